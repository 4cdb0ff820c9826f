"""Largest values of windows, computed as is best on the platform it is compiled for."""

import functools
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

from zoo.ops import onednn
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


def _by_shifts(x: jax.Array, *, window: Window) -> jax.Array:
    return _largest(x, window)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest(x: jax.Array, window: Window) -> jax.Array:
    padded = pad(x, window.padding, value=-jnp.inf)
    return functools.reduce(jnp.maximum, (shifted(padded, i, j, window) for i, j in taps(window)))


@_largest.defjvp
def _largest_jvp(window: Window, primals: tuple[jax.Array], tangents: tuple[jax.Array]):
    (x,), (change,) = primals, tangents
    return _largest(x, window), pick.bind(x, change, window=window)


def _pick(x: jax.Array, t: jax.Array, *, window: Window) -> jax.Array:
    """Returns of each window of t what lies where that of x has its largest value."""
    padded, t = pad(x, window.padding, value=-jnp.inf), pad(t, window.padding)
    largest = jnp.full((x.shape[0], *window.out, x.shape[3]), -jnp.inf, x.dtype)
    picked = jnp.zeros_like(largest, t.dtype)
    for i, j in taps(window):
        value = shifted(padded, i, j, window)
        picked = jnp.where(value > largest, shifted(t, i, j, window), picked)
        largest = jnp.maximum(largest, value)
    return picked


def _spread(x: jax.Array, g: jax.Array, *, window: Window) -> jax.Array:
    """Returns the sum of all g [B, H', W', C], each where its window of x is largest."""
    padded = pad(x, window.padding, value=-jnp.inf)
    largest = jnp.full(g.shape, -jnp.inf, x.dtype)
    which = jnp.zeros(g.shape, jnp.int32)
    for tap, (i, j) in enumerate(taps(window)):
        value = shifted(padded, i, j, window)
        which = jnp.where(value > largest, tap, which)
        largest = jnp.maximum(largest, value)

    def place(t: jax.Array) -> jax.Array:
        t = pad(t, window.padding)
        moved = [
            jnp.where(which == tap, shifted(t, i, j, window), 0)
            for tap, (i, j) in enumerate(taps(window))
        ]
        return functools.reduce(jnp.add, moved)

    return jax.linear_transpose(place, jax.typeof(x).update(dtype=g.dtype))(g)[0]


def _define(name: str, function: Any, faster: Any = None) -> Primitive:
    """Returns a primitive of x and of an array in which it is linear.

    It goes unchanged while x changes: the largest value of a window stays where it is.
    """
    primitive = Primitive(f"zoo_max_pool_{name}")

    def derive(primals: Any, tangents: Any, *, window: Window) -> Any:
        (x, t), (_, change) = primals, tangents
        out = primitive.bind(x, t, window=window)
        if isinstance(change, ad.Zero):
            return out, ad.Zero(jax.typeof(out))
        return out, primitive.bind(x, change, window=window)

    def batch(arrays: Any, axes: Any, *, window: Window) -> Any:
        return jax.vmap(functools.partial(function, window=window), tuple(axes))(*arrays), 0

    def lower_cpu(ctx: Any, *operands: Any, window: Window) -> Any:
        takes = onednn.takes(ctx.avals_in[0].dtype, window, ctx.module_context.axis_context)
        chosen = faster if faster is not None and takes else function
        return mlir.lower_fun(chosen, multiple_results=False)(ctx, *operands, window=window)

    primitive.def_impl(lambda x, t, *, window: function(x, t, window=window))
    primitive.def_abstract_eval(
        lambda x, t, *, window: jax.make_jaxpr(functools.partial(function, window=window))(
            x, t
        ).out_avals[0]
    )
    ad.primitive_jvps[primitive] = derive
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    mlir.register_lowering(primitive, lower_cpu, platform="cpu")
    return primitive


pick = _define("pick", _pick)
spread = _define("spread", _spread, onednn.spread)
# Each is the transpose of the other.
ad.primitive_transposes[pick] = lambda t, x, g, *, window: (
    None,
    ad.Zero(g.aval) if isinstance(t, ad.Zero) else spread.bind(x, t, window=window),
)
ad.primitive_transposes[spread] = lambda t, x, g, *, window: (
    None,
    ad.Zero(g.aval) if isinstance(t, ad.Zero) else pick.bind(x, t, window=window),
)
