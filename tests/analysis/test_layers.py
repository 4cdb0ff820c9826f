"""Maps of any layer, and slopes in them that are those of finite differences."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.analysis.models import make_trained
from zoo.analysis.layers import layers_of, score, with_slope
from zoo.errors import ConfigError

SMALL = {"stage_sizes": (1, 1, 1)}
CLASSES = jnp.array([3, 7])


def images_of(trained, count=2):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, *trained.image_shape)).astype(np.float32)


@pytest.fixture(scope="module")
def resnet():
    return make_trained("resnet20", 16, 3, **SMALL)


def test_maps_are_those_of_the_network(resnet):
    x = images_of(resnet)
    names = ("stride4", "stage3_block1", "stem_conv", "stage1_block1/bn1")
    found = jax.jit(layers_of(resnet, *names))(resnet.variables, x)
    assert {*found} == {*names}
    np.testing.assert_array_equal(found["stride4"], found["stage3_block1"])
    kernel = resnet.variables["params"]["stem_conv"]["kernel"]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    by_hand = np.tensordot(padded[:, 4:7, 5:8], kernel, 3)
    np.testing.assert_allclose(found["stem_conv"][:, 4, 5], by_hand, atol=1e-4)


def test_the_slope_at_the_last_map_is_the_head(resnet):
    reached, slope = jax.jit(with_slope(resnet, "stride4"))(
        resnet.variables, images_of(resnet), CLASSES
    )
    head = resnet.variables["params"]["head"]["kernel"][:, np.asarray(CLASSES)].T / 16
    assert slope.shape == reached.shape
    np.testing.assert_allclose(slope - head[:, None, None], 0, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param("stem_conv", marks=pytest.mark.slow),
        pytest.param("stage2_block1/bn1", marks=pytest.mark.slow),
        "stage2_block1",
    ],
)
def test_slopes_are_those_of_finite_differences(resnet, layer):
    """Through a residual block, of which the layer is a part, its beginning or its end."""
    x, rng = images_of(resnet), np.random.default_rng(2)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: np.asarray(a, np.float64), resnet.variables)
        x = x.astype(np.float64)
        reached, slope = jax.jit(with_slope(resnet, layer))(variables, x, CLASSES)
        direction = rng.normal(size=reached.shape)

        @jax.jit
        def moved(step: float) -> jax.Array:
            def add(method, args, kwargs, context):
                out = method(*args, **kwargs)
                here = "/".join(context.module.path) == layer and context.method_name == "__call__"
                return out + step * direction if here else out

            with nn.intercept_methods(add):
                logits = resnet.model.apply(variables, x, train=False)
            return score(logits, CLASSES)

        difference = (moved(1e-6) - moved(-1e-6)) / 2e-6
        np.testing.assert_allclose((slope * direction).sum((1, 2, 3)), difference, rtol=1e-5)
        assert np.abs(difference).min() > 1e-4


@pytest.mark.slow
def test_what_is_computed_again_in_training_hides_nothing(resnet):
    again = make_trained("resnet20", 16, 3, **SMALL, remat=(1, 2, 3))
    for layer in ("stage2_block1/conv1", "stage2_block1"):
        results = [
            jax.jit(with_slope(trained, layer))(trained.variables, images_of(resnet), CLASSES)
            for trained in (resnet, again)
        ]
        jax.tree.map(np.testing.assert_array_equal, *results)
        assert np.any(results[0][1])


def test_one_logit_speaks_for_two_classes():
    logits = jnp.array([[2.0], [2.0]])
    assert score(logits, jnp.array([0, 1])).tolist() == [-2, 2]


def test_unknown_layers_are_refused(resnet):
    with pytest.raises(ConfigError, match=r"no such\. Did you mean 'stage2_block1/conv2'"):
        layers_of(resnet, "stride4", "stage2_block1/conv3")
