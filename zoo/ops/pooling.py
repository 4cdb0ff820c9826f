"""Largest values of windows, computed as is best on the platform it is compiled for."""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from zoo.ops.plain import Pairs, Window, make_window
from zoo.ops.xla_cpu import pad, shifted, taps


def max_pool2d(x: jax.Array, window: int, strides: int, padding: str | Pairs) -> jax.Array:
    """Returns the largest value of each window, [B, H', W', C].

    The gradient goes to the first of several largest values, row by row, as XLA and torch
    have it. On CPUs, where XLA's windows and their gradients are computed one element at a
    time, windows are shifted images, compared as a whole.

    Args:
      x: [B, H, W, C], of a floating type.
      window: height and width.
      strides: of rows and columns.
      padding: "VALID", "SAME" (TensorFlow's) or (above, below), (left, right); never wins.

    Example:
      >>> max_pool2d(jnp.arange(16.0).reshape(1, 4, 4, 1), 2, 2, ((0, 0), (0, 0)))[0, :, :, 0]
      Array([[ 5.,  7.],
             [13., 15.]], dtype=float32)
    """
    shape = make_window(x.shape[1:3], (window, window), strides, padding)
    if min(shape.out) < 1:
        return _by_windows(x, window=shape)  # an empty array
    return lax.platform_dependent(
        x,
        cpu=functools.partial(_by_shifts, window=shape),
        default=functools.partial(_by_windows, window=shape),
    )


def _by_windows(x: jax.Array, *, window: Window) -> jax.Array:
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, *window.kernel, 1),
        (1, *window.strides, 1),
        ((0, 0), *window.padding, (0, 0)),
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest(x: jax.Array, window: Window) -> jax.Array:
    padded = pad(x, window.padding, value=-jnp.inf)
    return functools.reduce(jnp.maximum, (shifted(padded, i, j, window) for i, j in taps(window)))


@_largest.defjvp
def _largest_jvp(window: Window, primals: tuple[jax.Array], tangents: tuple[jax.Array]):
    (x,), (change,) = primals, tangents
    padded, change = pad(x, window.padding, value=-jnp.inf), pad(change, window.padding)
    largest = jnp.full((*x.shape[:1], *window.out, x.shape[3]), -jnp.inf, x.dtype)
    which = jnp.zeros(largest.shape, jnp.int32)
    for tap, (i, j) in enumerate(taps(window)):
        value = shifted(padded, i, j, window)
        which = jnp.where(value > largest, tap, which)
        largest = jnp.maximum(largest, value)
    moved = [
        jnp.where(which == tap, shifted(change, i, j, window), 0)
        for tap, (i, j) in enumerate(taps(window))
    ]
    return largest, sum(moved)


def _by_shifts(x: jax.Array, *, window: Window) -> jax.Array:
    return _largest(x, window)
