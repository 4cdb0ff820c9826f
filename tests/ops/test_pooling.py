import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.ops import onednn, pooling
from zoo.ops.plain import make_window

CASES = [
    (3, 2, ((1, 1), (1, 1))),
    (3, 1, ((1, 1), (1, 1))),
    (2, 2, "VALID"),
    (3, 2, "SAME"),
    (3, 2, ((0, 1), (0, 2))),
]


def images(dtype=np.float32):
    # Rounded and cut off at 0, so that windows have several largest values.
    draw = np.random.default_rng(0).normal(size=(2, 9, 8, 5))
    return jnp.asarray(np.maximum(draw.round(1), 0), dtype)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("size", "strides", "padding"), CASES)
def test_shifts_equal_windows_with_their_gradient_and_ties(size, strides, padding, dtype):
    x = images(dtype)
    window = make_window(x.shape[1:3], (size, size), strides, padding)
    # Few digits: the sums of the gradient are exact.
    g = jnp.asarray(np.random.default_rng(1).integers(-8, 8, (2, *window.out, 5)), dtype)

    def both(form):
        y, pull_back = jax.vjp(functools.partial(form, window=window), x)
        return y, *pull_back(g)

    for got, wanted in zip(both(pooling._by_shifts), both(pooling._by_windows), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("size", "strides", "padding"), CASES)
def test_onednn_spreads_as_windows_do(size, strides, padding, use_onednn):
    x = images()
    window = make_window(x.shape[1:3], (size, size), strides, padding)
    g = jnp.asarray(np.random.default_rng(1).integers(-8, 8, (2, *window.out, 5)), x.dtype)
    run = jax.jit(
        lambda x, g: jax.vjp(lambda x: pooling.max_pool2d(x, size, strides, padding), x)[1](g)[0]
    )
    assert onednn.SPREAD_TARGET in run.lower(x, g).as_text()
    _, pull_back = jax.vjp(functools.partial(pooling._by_windows, window=window), x)
    np.testing.assert_array_equal(run(x, g), *pull_back(g))


def test_a_cpu_compares_shifts_and_a_tpu_has_windows():
    run = jax.jit(jax.grad(lambda x: pooling.max_pool2d(x, 3, 2, "SAME").sum()))
    text = {
        p: jax.export.export(run, platforms=[p])(images()).mlir_module() for p in ("cpu", "tpu")
    }
    assert "select_and_scatter" in text["tpu"] and "select_and_scatter" not in text["cpu"]
    assert "reduce_window" not in text["cpu"]


def test_not_a_number_is_the_largest():
    x = images().at[0, 4, 4, 0].set(jnp.nan)
    window = make_window(x.shape[1:3], (3, 3), 2, "SAME")
    wanted = jnp.isnan(pooling._by_windows(x, window=window))
    assert wanted.any()
    np.testing.assert_array_equal(jnp.isnan(pooling._by_shifts(x, window=window)), wanted)


def test_mapped_and_in_forward_mode():
    x = images()
    pool = functools.partial(pooling.max_pool2d, window=3, strides=2, padding="SAME")
    mapped = jax.vmap(lambda image: pool(image[None])[0])(x)
    np.testing.assert_array_equal(mapped, pool(x))
    _, change = jax.jvp(pool, (x,), (jnp.ones_like(x),))
    np.testing.assert_array_equal(change, jnp.ones_like(mapped))


def test_derivatives_of_derivatives():
    # No ties: of these XLA takes another one in forward mode than in reverse mode.
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 8, 5)), np.float32)
    window = make_window(x.shape[1:3], (3, 3), 2, "SAME")

    def gradient(pool):
        return jax.grad(lambda x: jnp.sum(pool(x) ** 3))

    direction = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    mine, theirs = (
        [
            jax.jvp(gradient(pool), (x,), (direction,))[1],
            *jax.vjp(gradient(pool), x)[1](direction),
        ]
        for pool in (
            lambda x: pooling.max_pool2d(x, 3, 2, "SAME"),
            functools.partial(pooling._by_windows, window=window),
        )
    )
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
