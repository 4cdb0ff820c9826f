"""Receptive fields are those that were published, and those that gradients have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.analysis.models import random_variables
import zoo
from zoo.analysis.layers import run_layers
from zoo.analysis.receptive_fields import ReceptiveField, receptive_fields
from zoo.errors import ConfigError
from zoo.registry import find_model


def field_of(name: str, layer: str, size: int | None = None) -> ReceptiveField:
    shape = find_model(name).image_shape if size is None else (size, size, 3)
    return receptive_fields(zoo.create_model(name), shape, layer)[layer]


# The last map of each network: Araujo, Norris and Sim 2019, table 1, whose alexnet_v2, vgg_16,
# resnet_v1 and mobilenet_v1 are these.
PUBLISHED = [("alexnet", 195), ("vgg16", 212), ("mobilenet_v1", 315)]
PUBLISHED_DEEP = [
    *(("resnet50_v1", 483), ("resnet101_v1", 1027), ("resnet152_v1", 1507)),
    *(("inception_v3", 1311), ("inception_v4", 2071), ("inception_resnet_v2", 3039)),
]


@pytest.mark.parametrize(("name", "size"), PUBLISHED)
def test_last_maps_see_what_was_published(name, size):
    found = field_of(name, "stride32")
    assert (found.size, found.strides, found.context) == ((size, size), (32, 32), False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), PUBLISHED_DEEP)
def test_last_maps_of_deep_networks_see_what_was_published(name, size):
    assert field_of(name, "stride32").size == (size, size)


# By hand. ResNet-18: stem 7, pooling 11, then 4 (3 - 1) strides in each stage, of which the first
# convolution still has the stride before: 11 + 4 x 8 = 43, + 8 + 3 x 16 = 99, and so on; all of it
# lies about the middle of the first window. AlexNet: 11 at stride 4 behind padding 2.
BY_HAND = {
    ("resnet18", "stride2"): (7, 2, -3),
    ("resnet18", "stride4"): (43, 4, -21),
    ("resnet18", "stride8"): (99, 8, -49),
    ("resnet18", "stride32"): (435, 32, -217),
    ("alexnet", "stride4"): (11, 4, -2),
    ("alexnet", "stride8"): (51, 8, -18),
    ("alexnet", "conv1"): (11, 4, -2),
    ("alexnet", "fc6"): (195 + 5 * 32, 32, -66),
    ("vgg16", "stage1/conv2"): (5, 1, -2),
    ("resnet20", "stage2_block1/conv1"): (17, 2, -8),  # 3 x 3 of 15 at stride 1
    ("resnet20", "stage2_block1"): (21, 2, -10),
    ("lenet5", "c3"): (14, 2, 0),
}


@pytest.mark.parametrize(("name", "layer"), BY_HAND)
def test_fields_by_hand(name, layer):
    found = field_of(name, layer)
    size, stride, start = BY_HAND[name, layer]
    if layer == "fc6":  # a single position
        stride = found.strides[0]
    assert found == ReceptiveField((size,) * 2, (stride,) * 2, (start,) * 2, False)


@pytest.mark.slow
def test_a_gate_is_context_and_does_not_widen():
    before, behind = (field_of("mobilenet_v3_small", name, 64) for name in ("stride2", "stride4"))
    assert before == ReceptiveField((3, 3), (2, 2), (-1, -1), context=False)
    assert behind == ReceptiveField((7, 7), (4, 4), (-3, -3), context=True)  # 3x3 at stride 2


@pytest.mark.parametrize(
    ("name", "layer", "size", "channels"),
    [
        ("lenet5", "stride4", 32, 1),
        ("resnet20", "stride2", 64, 3),
        ("mobilenet_v1", "stage3_block1/pointwise_conv", 33, 3),  # padding "SAME"
    ],
)
def test_gradients_reach_exactly_the_field(name, layer, size, channels):
    # Weights and images are positive: nothing cancels, and no ReLU is shut.
    model, shape = zoo.create_model(name), (size, size, channels)
    variables = random_variables(model, shape, positive=True)
    variables = jax.tree.map(lambda x: x / max(np.prod(x.shape[:-1]), 1), variables)
    field = receptive_fields(model, shape, layer)[layer]
    run = functools.partial(run_layers, model, [layer], variables)
    images = np.random.default_rng(0).uniform(0.5, 1, (1, *shape)).astype(np.float32)

    def one(x: jax.Array) -> jax.Array:
        out = run(x)[layer]
        return out[0, out.shape[1] // 2, out.shape[2] // 2 - 1].sum()

    shape_out = jax.eval_shape(run, jnp.asarray(images))[layer].shape
    reached = np.asarray(jax.jit(jax.grad(one))(images))[0].sum(-1) > 0
    top, left, bottom, right = field.box(shape_out[1] // 2, shape_out[2] // 2 - 1)
    expected = np.zeros((size, size), bool)
    expected[max(top, 0) : bottom, max(left, 0) : right] = True
    np.testing.assert_array_equal(reached, expected)


def test_an_unknown_layer_is_told_with_its_likes():
    with pytest.raises(ConfigError, match=r"Did you mean 'stride1' or .*the endpoints"):
        field_of("resnet20", "stride11")
