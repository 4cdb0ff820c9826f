"""AlexNet's two forms: maps as in figure 2, normalisation as in section 3.3, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import local_response_norm
from zoo.models.alexnet import VARIANTS, AlexNet


def small(name, **fields):
    """The variant with few features."""
    widths = tuple(width // 16 for width in VARIANTS[name]["widths"])
    fields = {"hidden_features": 50, "num_classes": 3, **fields}
    return AlexNet(**{**VARIANTS[name], "widths": widths, **fields})


def shapes(model, height, width, channels=3):
    """The shapes of variables and endpoints."""
    images = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    init = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)

    def endpoints(variables, images):
        return model.apply(variables, images, train=False, method="endpoints")

    out = jax.eval_shape(endpoints, init, images)
    return init, {name: x.shape for name, x in out.items()}


@pytest.mark.parametrize(("name", "size"), [("alexnet", 224), ("alexnet_2012", 227)])
def test_maps_are_those_of_figure_2(name, size):
    _, out = shapes(small(name), size, size)
    for stride, side in {4: 55, 8: 27, 16: 13, 32: 6}.items():
        assert out[f"stride{stride}"][1:3] == (side, side)


@pytest.mark.parametrize("name", VARIANTS)
def test_any_image_from_the_smallest_on_will_do(name):
    least = small(name).smallest_image
    for height, width, channels in ((least, least, 3), (70, 131, 1), (300, 64, 4)):
        _, out = shapes(small(name), height, width, channels)
        assert out["logits"] == (2, 3)
        assert all(all(shape) for shape in out.values())
    with pytest.raises(ValueError, match=f"at least {least}x{least}"):
        shapes(small(name), least - 1, 100)


def test_normalisation_is_the_formula_of_section_3_3():
    a = np.random.default_rng(0).normal(size=(2, 3, 1, 9)) * 50
    expected = np.empty_like(a)
    n, k, alpha, beta, channels = 5, 2.0, 1e-4, 0.75, 9
    for i in range(channels):
        near = range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1)
        total = sum(a[..., j] ** 2 for j in near)
        expected[..., i] = a[..., i] / (k + alpha * total) ** beta
    with jax.enable_x64(True):
        np.testing.assert_allclose(local_response_norm(jnp.asarray(a)), expected, rtol=1e-13)


@pytest.mark.parametrize("name", VARIANTS)
def test_dropout_is_on_inputs_in_2014_and_on_outputs_in_2012(name):
    model = small(name)
    rng = np.random.default_rng(0)
    init, _ = shapes(model, 63, 63)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), init)
    images = rng.normal(size=(2, 63, 63, 3)).astype(np.float32)

    @jax.jit
    def endpoints(key):
        rngs = {"dropout": key}
        return model.apply(variables, images, train=True, rngs=rngs, method="endpoints")

    first, second = (jax.device_get(endpoints(jax.random.key(i))) for i in (1, 2))
    np.testing.assert_array_equal(first["stride32"], second["stride32"])
    assert not np.allclose(first["logits"], second["logits"])
    head = variables["params"]["head"]
    whole = first["pre_logits"] @ head["kernel"] + head["bias"]
    assert np.allclose(whole, first["logits"], rtol=1e-4) == (name == "alexnet")


def test_normalisation_can_be_trained_in_a_compiled_step():
    def loss(x):
        return jnp.sum(local_response_norm(x) ** 2)

    x = jnp.linspace(-3, 3, 18).reshape(1, 1, 2, 9)
    eager, compiled = jax.grad(loss)(x), jax.jit(jax.grad(loss))(x)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    nudge = 1e-2 * jnp.sin(jnp.arange(18.0)).reshape(x.shape)
    change = loss(x + nudge) - loss(x - nudge)
    np.testing.assert_allclose(2 * jnp.sum(eager * nudge), change, rtol=1e-3)
