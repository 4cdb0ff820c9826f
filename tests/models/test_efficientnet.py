"""Laws of EfficientNet: scaling, depth, stochastic depth, sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.layers import InvertedResidual, make_divisible
from zoo.models import efficientnet
from zoo.models.efficientnet import EfficientNet, Stage
from zoo.models.efficientnet_v2 import FusedInvertedResidual

# The smallest network with every kind of block.
SMALL = functools.partial(
    EfficientNet,
    stages=(
        Stage(FusedInvertedResidual, 1, 3, 1, 8, 1, 0.0),
        Stage(FusedInvertedResidual, 2, 3, 2, 8, 2, 0.0),
        Stage(InvertedResidual, 2, 5, 2, 8, 2, 0.25),
    ),
    stem_features=8,
    head_features=16,
    num_classes=3,
)


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    init = functools.partial(SMALL().init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return jax.tree.map(lambda x: rng.uniform(0.1, 0.5, x.shape).astype(x.dtype), shapes)


def layers_of(params, stage: int) -> int:
    return sum(name.startswith(f"stage{stage}_") for name in params)


def shapes_of(model, size: int = 32):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), images)["params"]


def test_compound_scaling_is_equation_3_and_doubles_the_work():
    assert zoo.compound_scaling(0) == (1.0, 1.0, 224)
    depth, width, size = zoo.compound_scaling(3)
    assert (depth, width, size) == (pytest.approx(1.728), pytest.approx(1.331), 341)
    assert zoo.compound_scaling(2, alpha=2.0, beta=3.0, gamma=0.5) == (4.0, 9.0, 56)
    assert depth * width**2 * (size / 224) ** 2 == pytest.approx(2**3, rel=0.12)


# name, phi, and how far the published numbers are from equation 3, in percent.
@pytest.mark.parametrize(
    ("name", "phi", "width", "depth", "size"),
    [
        ("efficientnet_b0", 0, 0, 0, 0),
        ("efficientnet_b1", 0.5, -5, 0, 0),
        ("efficientnet_b2", 1, 0, 0, 1),
        ("efficientnet_b3", 2, -1, -3, 1),
        ("efficientnet_b4", 3.5, 0, -5, 4),
        ("efficientnet_b5", 5, -1, -12, 1),
        ("efficientnet_b6", 6, 2, -13, 2),
        ("efficientnet_b7", 7, 3, -13, 1),
    ],
)
def test_published_sizes_are_near_equation_3_but_not_on_it(name, phi, width, depth, size):
    formula = zoo.compound_scaling(phi)
    model = zoo.create_model(name)
    published = (model.width_mult, model.depth_mult, efficientnet.IMAGE_SIZES[name])
    wanted = (formula.width_mult, formula.depth_mult, formula.image_size)
    percent = [round(100 * (a / b - 1)) for a, b in zip(published, wanted, strict=True)]
    assert percent == [width, depth, size]


@pytest.mark.parametrize(
    ("value", "rounded"), [(1, 8), (11, 16), (12, 16), (17.6, 16), (18, 24), (19.9, 24), (352, 352)]
)
def test_channels_are_multiples_of_8_and_at_least_90_percent(value, rounded):
    assert make_divisible(value) == rounded


def test_lite_scales_neither_its_ends_nor_the_layers_there():
    params = shapes_of(zoo.create_model("efficientnet_lite4"))
    assert params["stem_conv"]["kernel"].shape == (3, 3, 3, 32)
    assert params["head_conv"]["kernel"].shape == (1, 1, 448, 1280)
    assert [layers_of(params, stage) for stage in range(1, 8)] == [1, 4, 4, 6, 6, 8, 1]
    assert not any("se" in block for block in params.values())


def test_squeeze_excite_is_a_quarter_of_what_comes_into_the_block():
    params = shapes_of(zoo.create_model("efficientnet_b0"))
    assert params["stage2_block1"]["se"]["reduce"]["kernel"].shape == (1, 1, 96, 4)
    assert params["stage2_block2"]["se"]["reduce"]["kernel"].shape == (1, 1, 144, 6)


@pytest.mark.parametrize("padding", ["symmetric", "SAME"])
def test_any_image_has_maps_of_its_size_rounded_up(padding, variables):
    model = SMALL(padding=padding)
    endpoints = functools.partial(model.apply, train=False, method="endpoints")
    for height, width in [(1, 1), (1, 9), (7, 12), (33, 18)]:
        images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        out = jax.eval_shape(endpoints, variables, images)
        for stride in (2, 4, 8):
            wanted = -(-height // stride), -(-width // stride)
            assert out[f"stride{stride}"].shape[1:3] == wanted


def test_a_block_with_stride_has_no_residual_even_on_a_map_of_one_pixel(variables):
    images = jax.random.normal(jax.random.key(1), (2, 1, 1, 3))
    # Without its projections a block is its residual, or nothing.
    params = jax.tree.map(np.copy, variables["params"])
    for name in ("stage3_block1", "stage3_block2"):
        params[name]["project_bn"]["scale"] *= 0
    endpoints = jax.jit(functools.partial(SMALL().apply, train=False, method="endpoints"))
    out = endpoints({**variables, "params": params}, images)
    assert jnp.all(out["stride4"] != 0)
    assert jnp.all(out["stride8"] == out["stride8"][0])  # nothing of the images is left


def train_step(params, model, variables):
    """Returns the logits of two images in training."""
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    variables = {**variables, "params": params}
    rngs = {"dropout": jax.random.key(2)}
    return model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])[0]


def test_stochastic_depth_reaches_its_rate_at_the_last_block(variables):
    # A rate of 1: the first block always survives, the last one never does.
    model = SMALL(drop_path_rate=1.0, dropout_rate=0.0)
    step = jax.jit(functools.partial(train_step, model=model, variables=variables))
    before = step(variables["params"])
    for block, norm, matters in [("stage1_block1", "bn", 1), ("stage3_block2", "project_bn", 0)]:
        params = jax.tree.map(np.copy, variables["params"])
        params[block][norm]["scale"] *= 3
        assert bool(jnp.any(step(params) != before)) == matters


def test_remat_takes_stages_and_keeps_the_parameters(variables):
    for remat, blocks in [((), 0), ((1,), 1), ((1, 3), 3)]:
        step = functools.partial(train_step, model=SMALL(remat=remat), variables=variables)
        names = [e.primitive.name for e in jax.make_jaxpr(step)(variables["params"]).eqns]
        assert names.count("checkpoint") + names.count("remat2") == blocks, set(names)
