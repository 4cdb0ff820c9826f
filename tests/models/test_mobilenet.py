"""MobileNet, V2 and V3: what parity does not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.layers import make_divisible
from zoo.models.mobilenet_v1 import MobileNetV1
from zoo.models.mobilenet_v2 import MobileNetV2
from zoo.models.mobilenet_v3 import MobileNetV3

FAMILY = [MobileNetV1, MobileNetV2, MobileNetV3]


def shapes_of(model, *shape, train=False):
    """Returns the shapes of all endpoints, and of the variables."""
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

    def endpoints(x):
        return model.init_with_output(rngs, x, train=train, method="endpoints")

    return jax.eval_shape(endpoints, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_rounded_widths_are_multiples_and_never_below_nine_tenths():
    for width in range(1, 400):
        rounded = make_divisible(width)
        assert rounded % 8 == 0
        assert rounded >= 0.9 * width
        assert rounded <= max(8, width + 8)
    assert make_divisible(30, 16) == 32


@pytest.mark.parametrize("module", FAMILY)
def test_any_image_will_do(module):
    for shape in [(1, 1, 1, 3), (2, 33, 50, 1)]:
        out, _ = shapes_of(module(num_classes=None), *shape, train=True)
        assert min(min(x.shape) for x in out.values()) > 0
        assert "logits" not in out


@pytest.mark.parametrize("module", FAMILY)
def test_both_paddings_give_maps_of_the_same_size(module):
    # 30 and 20 halve to even and odd sizes.
    same, symmetric = (shapes_of(module(padding=p), 1, 30, 20, 3)[0] for p in ("SAME", "symmetric"))
    assert same == symmetric


@pytest.mark.parametrize("module", FAMILY)
def test_recomputing_stages_changes_no_name(module):
    _, plain = shapes_of(module(), 1, 32, 32, 3)
    _, again = shapes_of(module(remat=(1, 3, 5)), 1, 32, 32, 3, train=True)
    assert jax.tree.map(np.shape, plain["params"]) == jax.tree.map(np.shape, again["params"])


def test_features_before_the_head_only_grow_with_width():
    for width, features in [(0.35, 1280), (1.4, 1792)]:
        for module in (MobileNetV2, MobileNetV3):
            out, _ = shapes_of(module(width_mult=width), 1, 32, 32, 3)
            assert out["pre_logits"].shape == (1, features)


def test_stride_maps_have_the_features_of_the_tables():
    features = {
        "mobilenet_v1": (64, 128, 256, 512, 1024),
        "mobilenet_v2": (16, 24, 32, 96, 1280),
        "mobilenet_v3_large": (16, 24, 40, 112, 960),
        "mobilenet_v3_small": (16, 16, 24, 48, 576),
    }
    for name, expected in features.items():
        out, _ = shapes_of(zoo.create_model(name), 1, 224, 224, 3)
        for i, c in enumerate(expected, 1):
            assert out[f"stride{2**i}"].shape == (1, 224 // 2**i, 224 // 2**i, c)
