import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.ops import pooling
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


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
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
