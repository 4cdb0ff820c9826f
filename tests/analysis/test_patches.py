"""The strongest patches are those that a look at everything finds."""

import jax
import numpy as np
import pytest

from tests.analysis.models import make_trained
from zoo.analysis.layers import layers_of
from zoo.analysis.patches import choose_channels, cut, draw_patches, find_patches
from zoo.analysis.running import examples_of
from zoo.errors import ConfigError


@pytest.fixture(scope="module")
def lenet():
    return make_trained("lenet5", 32, 1)


@pytest.fixture(scope="module")
def examples(lenet, splits):
    return examples_of(lenet, splits.validation)


def test_the_strongest_are_found_whatever_the_batch(lenet, examples):
    channels = choose_channels(lenet, ["c3", "pre_logits"], 3)
    found = find_patches(lenet, examples, channels, 4, batch_size=16)
    images = np.stack([examples.read(i)[0] for i in range(len(examples))])
    run = jax.jit(layers_of(lenet, "c3", "pre_logits"))
    maps = run(lenet.variables, lenet.preprocessing.normalise(images))
    for layer, best in found.items():
        values = np.asarray(maps[layer]).reshape(len(images), -1, maps[layer].shape[-1])
        for column, channel in enumerate(best.channels):
            largest = values[:, :, channel].max(1)
            order = np.argsort(-largest, kind="stable")[:4]
            assert best.examples[:, column].tolist() == order.tolist()
            np.testing.assert_allclose(best.values[:, column], largest[order], rtol=1e-4)
            width = best.places.max() + 1 if layer == "pre_logits" else 10
            place = best.places[:, column] @ np.array([width, 1])
            assert place.tolist() == values[order, :, channel].argmax(1).tolist()
    again = find_patches(lenet, examples, channels, 4, batch_size=64)["c3"]
    np.testing.assert_array_equal(found["c3"].examples, again.examples)
    np.testing.assert_array_equal(found["c3"].places, again.places)


def test_the_field_of_the_maximum_is_where_the_image_has_it(lenet, examples):
    """A kernel that looks at one pixel only finds the brightest one, in the middle of its field."""
    kernel = np.zeros((5, 5, 1, 6), np.float32)
    kernel[1, 3] = 1
    lenet.variables["params"]["c1"]["kernel"] = kernel
    best = find_patches(lenet, examples, {"c1": np.array([2])}, 5)["c1"]
    assert best.field.size == (5, 5)
    for k in range(5):
        image = examples.read(int(best.examples[k, 0]))[0]
        patch = cut(image, best.field.box(*best.places[k, 0].tolist()))
        assert patch[1, 3, 0] == image[1:29, 3:31].max()
    picture = draw_patches({"c1": best}, examples)
    assert picture.size == (5 * 100 + 4, 4 + 18 + 96 + 18 + 4)


def test_patches_keep_their_shape_at_borders():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    np.testing.assert_array_equal(
        cut(image, (-1, 2, 2, 5))[..., 0], [[128, 128, 128], [2, 3, 128], [6, 7, 128]]
    )
    np.testing.assert_array_equal(cut(image, (-9, 1, 9, 3)), image[:, 1:3])
    assert np.all(cut(image, (-3, -3, 0, 0)) == 128)


def test_channels_that_are_not_there_are_refused(lenet):
    with pytest.raises(ConfigError, match="from 0 to 15"):
        choose_channels(lenet, ["c3"], 9, [16])
    assert choose_channels(lenet, ["c3"], 99)["c3"].tolist() == [*range(16)]
