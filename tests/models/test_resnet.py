"""What parity does not show of ResNet: where strides are, how blocks start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.layers import Conv
from zoo.models.resnet import VARIANTS, Basic, zero_padding


@pytest.mark.parametrize(
    ("name", "block", "first", "second"),
    [
        ("resnet50", "stage2_block1", 56, 28),  # on the 3x3
        ("resnet50_v1", "stage2_block1", 28, 28),  # on the first 1x1
        ("resnet50_v2", "stage1_block3", 56, 28),  # at the end of a stage
    ],
)
def test_where_the_map_is_halved(name, block, first, second):
    sizes = {row.name: row.output[0] for row in zoo.describe(name).layers}
    assert (sizes[f"{block}/conv1"], sizes[f"{block}/conv2"]) == (first, second)


@pytest.mark.parametrize(
    ("name", "groups", "width"),
    [("resnet50", 1, 64), ("resnext50_32x4d", 32, 128), ("wide_resnet50_2", 1, 128)],
)
def test_middle_of_a_bottleneck_is_as_wide_as_the_table_says(name, groups, width):
    rows = {row.name: row for row in zoo.describe(name).layers}
    middle = rows["stage1_block1/conv2"]
    assert middle.output[-1] == width
    assert middle.parameters == 9 * width * width // groups


def test_shortcut_without_parameters_takes_every_second_pixel_and_adds_zeros():
    block = Basic(32, 2, Conv, Conv, Conv)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 16))
    out = zero_padding(x, block, 32)
    np.testing.assert_array_equal(out[..., 8:24], x[:, ::2, ::2])
    assert not out[..., :8].any() and not out[..., 24:].any()
    assert not [row for row in zoo.describe("resnet110").layers if "downsample" in row.name]


def test_a_new_network_passes_on_its_shortcuts():
    model = zoo.create_model("resnet18")
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]
    assert set(params["stage1_block1"]) == {"conv1", "bn1", "conv2", "bn2"}
    small = zoo.create_model("resnet18", stage_sizes=(2,), widths=(8,))
    params = small.init(jax.random.key(0), images, train=False)["params"]
    for block in ("stage1_block1", "stage1_block2"):
        assert not params[block]["bn2"]["scale"].any()
        assert params[block]["bn1"]["scale"].all()


def test_table_1():
    sizes = {name: VARIANTS[name]["stage_sizes"] for name in ("resnet18", "resnet50", "resnet152")}
    assert 2 + 2 * sum(sizes["resnet18"]) == 18
    assert 2 + 3 * sum(sizes["resnet50"]) == 50
    assert 2 + 3 * sum(sizes["resnet152"]) == 152
