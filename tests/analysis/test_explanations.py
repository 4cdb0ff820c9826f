"""Grad-CAM and gradients have the properties that define them."""

import jax
import numpy as np
import pytest

from tests.analysis.models import make_trained
from zoo.analysis.classes import choose_classes, describe_class, find_class
from zoo.analysis.gradcam import draw_grad_cam, enlarge, grad_cam
from zoo.analysis.gradients import draw_gradients, integrated_gradients, smooth_gradients
from zoo.errors import ConfigError


@pytest.fixture(scope="module")
def lenet():
    return make_trained("lenet5", 32, 1)


def pixels_of(trained, count=2):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, *trained.image_shape), np.uint8)


def test_grad_cam_is_its_equation():
    resnet = make_trained("resnet20", 16, 3, stage_sizes=(1, 1, 1))
    images, classes = pixels_of(resnet), np.array([1, 4])
    x = resnet.preprocessing.normalise(images)
    run = jax.jit(lambda v, x: resnet.model.apply(v, x, train=False, method="endpoints"))
    maps = np.asarray(run(resnet.variables, x)["stride4"])
    # The mean over positions is linear: dy / dA is the head's weight over their number.
    alpha = np.asarray(resnet.variables["params"]["head"]["kernel"])[:, classes].T / 16
    expected = np.maximum((maps * alpha[:, None, None]).sum(-1), 0)
    np.testing.assert_allclose(grad_cam(resnet, images, classes), expected, rtol=1e-4, atol=1e-6)
    other = grad_cam(resnet, images, classes, "stage1_block1")
    assert other.shape == (2, 16, 16) and other.min() >= 0 < other.max()
    with pytest.raises(ConfigError, match="no positions"):
        grad_cam(resnet, images, classes, "pre_logits")
    with pytest.raises(ConfigError, match="without feature maps"):
        grad_cam(make_trained("linear", 8, 1), images, classes)


def test_pictures_show_where():
    warm = np.zeros((1, 2, 2), np.float32)
    warm[0, 0, 1] = 3
    picture = draw_grad_cam(np.full((1, 96, 96, 3), 200, np.uint8), warm, ["a 50%"], ["x.png"])
    array = np.asarray(picture).astype(int)
    assert array.shape == (96 + 18 + 8, 2 * 96 + 12, 3)
    cell = array[4:100, 104:200]
    assert cell[10, 85].sum() > cell[85, 10].sum() + 150  # bright at the upper right
    assert enlarge(warm[0], 4)[0, 3] == 3


def test_integrated_gradients_add_up_to_the_change(lenet):
    images, classes = pixels_of(lenet), np.array([2, 5])
    few, many = (integrated_gradients(lenet, images, classes, steps=n) for n in (2, 64))
    run = jax.jit(lambda v, x: lenet.model.apply(v, x, train=False))
    logits = [
        np.asarray(run(lenet.variables, lenet.preprocessing.normalise(x)))
        for x in (images, np.zeros_like(images))
    ]
    change = (logits[0] - logits[1])[np.arange(2), classes]
    np.testing.assert_allclose(many.change, change, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(many.values.sum((1, 2, 3)), change, rtol=0.01, atol=1e-3)
    assert np.abs(many.gap).max() < np.abs(few.gap).max()
    assert many.values.shape == images.shape


def test_of_a_linear_model_they_are_the_weights():
    linear = make_trained("linear", 8, 1)
    images, classes = pixels_of(linear, 1), np.array([6])
    found = integrated_gradients(linear, images, classes, baseline=255, steps=1)
    weights = np.asarray(linear.variables["params"]["head"]["kernel"])[:, 6].reshape(8, 8, 1)
    moved = (images[0] / 255.0 - 1) / 0.5
    np.testing.assert_allclose(found.values[0], weights * moved, rtol=1e-4, atol=1e-5)
    plain = smooth_gradients(linear, images, classes, noise=0, samples=1)
    np.testing.assert_allclose(plain[0], weights, rtol=1e-5)
    # A pixel that is the baseline's, or that no weight looks at, has no part in it.
    assert found.values[0][images[0] == 255].sum() == 0


def test_noise_follows_from_the_seed(lenet):
    images, classes = pixels_of(lenet), np.array([0, 1])
    first, again, other = (
        smooth_gradients(lenet, images, classes, samples=2, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0
    picture = draw_gradients(images, first, ["a", "b"], ["x", "y"])
    assert picture.size == (2 * 96 + 12, 2 * (96 + 18 + 4) + 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"steps": 0}, "1 or more"), ({"baseline": 300}, "from 0 to 255")],
)
def test_numbers_that_cannot_be_are_refused(lenet, options, words):
    with pytest.raises(ConfigError, match=words):
        integrated_gradients(lenet, pixels_of(lenet), np.array([0, 0]), **options)


def test_classes_by_name_number_and_prediction(lenet):
    assert find_class(lenet, "c") == find_class(lenet, "2") == 2
    with pytest.raises(ConfigError, match="Give one of its 10"):
        find_class(lenet, "zebra")
    logits = np.eye(10, dtype=np.float32)[[4, 0]] * 9
    assert choose_classes(lenet, logits, None).tolist() == [4, 0]
    assert choose_classes(lenet, logits, "b").tolist() == [1, 1]
    assert describe_class(lenet, logits[0], 4) == "e 100%"
