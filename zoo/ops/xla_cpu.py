"""The products of `zoo.ops.convolution` in forms that XLA computes fast on CPUs.

XLA's own depthwise convolution is 15 to 30 times as slow there as multiplying and adding
shifted images, its kernel gradient slower still (it becomes a dense convolution), and 1x1
convolutions are slower than the matrix products they are. What is not listed here is left
to XLA. Shapes are those of `zoo.ops.convolution`.
"""

from collections.abc import Iterator
import dataclasses
import functools
import itertools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from zoo.ops import plain
from zoo.ops.plain import Pairs, Size, Window


def _is_depthwise(window: Window, kernel: Size) -> bool:
    return window.groups > 1 and kernel[2:] == (1, window.groups)


def _is_product(window: Window) -> bool:
    return window.kernel == (1, 1) and window.groups == 1 and not any(map(any, window.padding))


def pad(x: jax.Array, padding: Pairs, between: Size = (0, 0), value: float = 0) -> jax.Array:
    """Returns images with a margin, and with rows and columns between those there are."""
    rows, columns = ((*pad, inner) for pad, inner in zip(padding, between, strict=True))
    return lax.pad(x, jnp.asarray(value, x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))


def taps(window: Window) -> Iterator[Size]:
    """Yields the row and column of each weight of a kernel."""
    return itertools.product(*map(range, window.kernel))


def shifted(x: jax.Array, row: int, column: int, window: Window) -> jax.Array:
    """Returns the pixels [B, H', W', C] of padded images that one weight is multiplied with."""
    (down, right), (height, width) = window.strides, window.out
    row, column = row * window.dilation[0], column * window.dilation[1]
    return lax.slice(
        x,
        (0, row, column, 0),
        (x.shape[0], row + (height - 1) * down + 1, column + (width - 1) * right + 1, x.shape[3]),
        (1, down, right, 1),
    )


def forward(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """Returns the convolution."""
    if _is_product(window):
        x = x[:, :: window.strides[0], :: window.strides[1]]
        return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
    if _is_depthwise(window, kernel.shape):
        x = pad(x, window.padding)
        terms = (shifted(x, i, j, window) * kernel[i, j, 0] for i, j in taps(window))
        return functools.reduce(jnp.add, terms)
    return plain.forward(x, kernel, window=window)


def input_gradient(g: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """Returns the gradient of the images."""
    spread = tuple(s - 1 for s in window.strides)
    if _is_product(window):
        if g.shape[1:3] == (1, 1):
            # Few rows, a large kernel: as its first factor it need not be transposed.
            dx = lax.dot_general(kernel[0, 0], g, (((1,), (3,)), ((), ()))).transpose(1, 2, 3, 0)
        else:
            dx = jnp.einsum("bhwo,io->bhwi", g, kernel[0, 0])
        sizes = zip(window.image, g.shape[1:3], window.strides, strict=True)
        return pad(dx, tuple((0, n - (m - 1) * s - 1) for n, m, s in sizes), spread)
    if _is_depthwise(window, kernel.shape):
        sizes = zip(window.image, g.shape[1:3], window.extent, *_geometry(window), strict=True)
        padding = tuple((k - 1 - p, n + p - 1 - (m - 1) * s) for n, m, k, s, p in sizes)
        g = pad(g, padding, spread)
        back = dataclasses.replace(
            window, image=g.shape[1:3], strides=(1, 1), padding=((0, 0), (0, 0))
        )
        return forward(g, kernel[::-1, ::-1], window=back)
    return plain.input_gradient(g, kernel, window=window)


def _geometry(window: Window) -> tuple[Size, Size]:
    return window.strides, tuple(low for low, _ in window.padding)


def kernel_gradient(x: jax.Array, g: jax.Array, *, window: Window) -> jax.Array:
    """Returns the gradient of the kernel."""
    kernel = (*window.kernel, x.shape[3] // window.groups, g.shape[3])
    if _is_product(window):
        x = x[:, :: window.strides[0], :: window.strides[1]]
        return jnp.einsum("bhwi,bhwo->io", x, g)[None, None]
    if _is_depthwise(window, kernel):
        return _depthwise_kernel_gradient(pad(x, window.padding), g, window)
    return plain.kernel_gradient(x, g, window=window)


def _depthwise_kernel_gradient(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """Returns [kh, kw, 1, C], reading each row of padded images and gradients once.

    One sum [B, W', C] for each weight is carried from row to row, and summed up at the end:
    as many reductions over the whole images read them anew each.
    """
    (height, width), (down, right), (rows, columns) = window.kernel, window.strides, g.shape[1:3]
    lower, further = window.dilation

    def add_row(sums: Any, row: jax.Array) -> tuple[Any, None]:
        here = lax.dynamic_index_in_dim(g, row, 1, keepdims=False).astype(wide)
        lines = [
            lax.dynamic_index_in_dim(x, row * down + i * lower, 1, keepdims=False)
            for i in range(height)
        ]
        stop = (columns - 1) * right + 1
        return tuple(
            total + lax.slice_in_dim(lines[i], j * further, j * further + stop, right, 1) * here
            for total, (i, j) in zip(sums, taps(window), strict=True)
        ), None

    wide = jnp.promote_types(g.dtype, jnp.float32)  # sums of many rows
    zeros = jnp.zeros_like(g[:, 0], wide)
    sums, _ = lax.scan(add_row, (zeros,) * (height * width), jnp.arange(rows))
    total = jnp.stack([s.sum((0, 1)) for s in sums]).astype(g.dtype)
    return total.reshape(height, width, 1, g.shape[3])
