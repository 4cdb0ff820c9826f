"""Names and orders of axes of other frameworks: one array of theirs for each of ours."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights.files import in_memory
import zoo
from zoo.registry import MODELS
from zoo.weights.families import LAYOUTS
from zoo.weights.importing import Misfit, Request, best_match, fill
from zoo.weights.layouts import (
    Layout,
    array_names,
    from_keras,
    from_torch,
    rename,
)

# One model of each class in each framework; the parity tests have all of them.
ONE_OF_EACH = {
    (MODELS[name].module, framework): (name, framework)
    for name, layouts in reversed(LAYOUTS.items())
    for framework in layouts
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "framework"), ONE_OF_EACH.values())
def test_every_array_has_a_name_of_its_own(name, framework):
    layout = LAYOUTS[name][framework]
    model = zoo.create_model(name, **layout.fields)
    images = jax.ShapeDtypeStruct((1, *MODELS[name].image_shape), jnp.float32)
    like = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    names = array_names(like, layout.rules(model), framework)
    assert len(set(names.values())) == len(jax.tree.leaves(like))


@pytest.mark.parametrize(
    ("convert", "theirs", "ours"),
    [
        (from_torch, (8, 3, 5, 4), (5, 4, 3, 8)),
        (from_torch, (6, 1, 3, 3), (3, 3, 1, 6)),  # depthwise
        (from_torch, (10, 12), (12, 10)),
        (from_torch, (10, 12), (2, 3, 2, 10)),  # dense behind flattened maps
        (from_torch, (10, 12, 1, 1), (12, 10)),  # a convolution with one position
        (from_torch, (1, 1, 10, 12), (12, 10)),
        (from_torch, (7,), (7,)),
        (from_keras, (5, 4, 3, 8), (5, 4, 3, 8)),
        (from_keras, (3, 3, 6, 1), (3, 3, 1, 6)),
        (from_keras, (12, 10), (2, 3, 2, 10)),
    ],
)
def test_conversion_moves_every_number_and_loses_none(convert, theirs, ours):
    array = np.arange(np.prod(theirs)).reshape(theirs)
    converted = convert(array, ours)
    assert converted.shape == ours
    assert sorted(converted.flat) == list(range(array.size))


def test_dense_kernel_behind_flattened_maps_is_the_same_function():
    maps = np.random.default_rng(0).normal(size=(2, 3, 2))  # H, W, C
    torch_kernel = np.random.default_rng(1).normal(size=(10, 12))
    expected = torch_kernel @ maps.transpose(2, 0, 1).reshape(-1)  # torch flattens C, H, W
    ours = from_torch(torch_kernel, (2, 3, 2, 10))
    np.testing.assert_allclose(np.einsum("hwc,hwco->o", maps, ours), expected)


@pytest.mark.parametrize(
    ("convert", "theirs", "ours"),
    [
        (from_torch, (8, 3, 5, 5), (5, 5, 4, 8)),
        (from_torch, (12, 10), (12, 10)),
        (from_torch, (8,), (7,)),
        (from_keras, (5, 5, 3, 8), (5, 5, 3, 9)),
        # As many numbers, in another order.
        (from_torch, (8, 4, 1, 7), (7, 1, 4, 8)),
        (from_keras, (1, 7, 4, 8), (7, 1, 4, 8)),
        (from_keras, (12, 10), (10, 12)),
        (from_keras, (3, 3, 8, 4), (3, 3, 4, 8)),
    ],
)
def test_another_shape_is_refused(convert, theirs, ours):
    with pytest.raises(ValueError, match=re.escape(f"shape {list(theirs)}, expected")):
        convert(np.zeros(theirs), ours)


def test_a_module_without_a_rule_is_an_error():
    with pytest.raises(KeyError, match="no rule names our module 'stem'"):
        rename("stem", [("head", "fc")])


def lenet_rules(model):
    del model
    return [(r"(c\d|f6)", r"features.\1"), ("head", "classifier")]


LENET = Layout("LeNet", lenet_rules)


def lenet_arrays(channels: int = 3) -> dict[str, np.ndarray]:
    """A made-up torch checkpoint of LeNet-5 for colour images."""
    rng = np.random.default_rng(0)
    shapes = {
        "c1": (6, channels, 5, 5),
        "c3": (16, 6, 5, 5),
        "c5": (120, 16, 5, 5),
        "f6": (84, 120),
    }
    arrays = {f"features.{name}.weight": rng.normal(size=s) for name, s in shapes.items()}
    arrays |= {f"features.{name}.bias": rng.normal(size=s[0]) for name, s in shapes.items()}
    return arrays | {"classifier.weight": np.ones((10, 84)), "classifier.bias": np.zeros(10)}


def imported(arrays, channels=3):
    create = functools.partial(zoo.create_model, "lenet5")
    wanted = Request("lenet5", create, {}, 10, (32, 32, 3))
    tensors = in_memory(arrays)
    matched = best_match(tensors, wanted, {"torchvision": LENET}, "here")
    return matched.model, fill(tensors, matched, wanted, channels, 0, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a.pop("features.f6.bias"),
            "a whole lenet5 in layout torchvision: tensors 1 (features.f6.bias) missing",
        ),
        (lambda a: a.update(extra=np.ones(3)), "tensors 1 (extra) that it has no place for"),
        (
            lambda a: a.update({"features.c3.weight": np.ones((16, 6, 3, 3))}),
            "tensor 'features.c3.weight' has shape [16, 6, 3, 3], expected [16, 6, 5, 5]",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message):
    arrays = lenet_arrays()
    change(arrays)
    with pytest.raises(Misfit, match=re.escape(message)):
        imported(arrays)


def test_two_of_ours_called_alike_is_an_error():
    rules = [(r".*", "same")]
    like = jax.eval_shape(lambda: {"params": {"a": {"bias": 0}, "b": {"bias": 0}}})
    with pytest.raises(ValueError, match="several of our arrays are called"):
        array_names(like, rules, "timm")


def test_gray_images_give_what_they_gave_as_rgb():
    gray = np.random.default_rng(3).normal(size=(2, 32, 32, 1)).astype(np.float32)
    model, colour = imported(lenet_arrays())
    _, single = imported(lenet_arrays(), channels=1)
    expected = model.apply(colour, np.repeat(gray, 3, axis=-1), train=False)
    np.testing.assert_allclose(
        model.apply(single, gray, train=False), expected, rtol=1e-4, atol=1e-5
    )
    assert imported(lenet_arrays(), channels=4)[1]["params"]["c1"]["kernel"].shape == (5, 5, 4, 6)
