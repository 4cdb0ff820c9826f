"""Convolutions of 3x3 with a quarter of the multiplications, for CPUs with oneDNN.

Winograd's F(4x4, 3x3) takes images in tiles of 6x6 pixels that overlap by 2, transforms tiles and
kernels along both directions, multiplies each of the 36 numbers of a tile with its own matrix
[C, O], and transforms back to 4x4 results: 36 multiplications for 16 results of 9. XLA makes one
loop of each transformation, oneDNN multiplies (Lavin and Gray 2016, https://arxiv.org/abs/1509.09308).

The usual points of interpolation, 0, 1, -1, 2 and -2, round twice as coarsely in float32 as those
here, which lie closer (Barabasz et al. 2020, https://arxiv.org/abs/1803.10986): results differ from
exact ones by 1e-6, where those of the direct sum do by 4e-7 (root mean squares).
"""

from collections.abc import Callable
from fractions import Fraction
import functools
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from zoo.ops import onednn_product
from zoo.ops.plain import Pairs, Size, Window
from zoo.ops.xla_cpu import pad

OUT, KERNEL = 4, 3
TILE = OUT + KERNEL - 1
POINTS = (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2))
_MOST = 2**26  # numbers of transformed images at a time: 256 MiB


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what transforms images [6, 6], kernels [6, 3] and, transposed, results [6, 4].

    A product of polynomials is known by its values at 5 points and its leading coefficient
    (Toom and Cook); convolution is the transpose of that.
    """
    images = np.zeros((TILE, TILE))
    kernels, results = np.zeros((TILE, KERNEL)), np.zeros((TILE, OUT))
    for i, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        images[i, :-1] = _coefficients(others)
        scale = math.prod(point - other for other in others)
        kernels[i] = [float(point**k / scale) for k in range(KERNEL)]
        results[i] = [float(point**k) for k in range(OUT)]
    images[-1] = _coefficients(POINTS)
    kernels[-1, -1] = results[-1, -1] = 1
    return images, kernels, results


def _coefficients(roots: Any) -> list[float]:
    """Returns those of the polynomial with these roots, the constant first."""
    found = [Fraction(1)]
    for root in roots:
        lower, higher = [-root * c for c in found] + [Fraction(0)], [Fraction(0), *found]
        found = [a + b for a, b in zip(lower, higher, strict=True)]
    return [float(c) for c in found]


_IMAGES, _KERNELS, _RESULTS = (matrix.astype(np.float32) for matrix in _matrices())


def suits(window: Window) -> bool:
    """Returns whether a convolution is one of those that can be computed so."""
    plain = window.strides == window.dilation == (1, 1) and window.groups == 1
    # The gradient of images pads by what is missing to 2.
    return plain and window.kernel == (3, 3) and max(map(max, window.padding)) <= 2


def pays(window: Window, batch: int, inside: int, out: int, *, prepared: bool = False) -> bool:
    """Returns whether a convolution can be computed so, and whether that is faster.

    Args:
      window: of it.
      batch: images.
      inside: their channels.
      out: channels of the result.
      prepared: whether kernels are transformed beforehand.
    """
    if not suits(window) or not isinstance(batch, int):  # exported for any number of images
        return False
    tiles = batch * math.prod(_counts(window.out))
    # Nanoseconds, of two cores that do 200 GFLOPS; what is faster depends on their ratios.
    direct = 0.09 * batch * math.prod(window.out) * inside * out
    products = 0.4 * tiles * inside * out
    # Where all is prepared, the direct way needs no pass for what follows a convolution.
    passes = (4.5 if prepared else 3.5) * OUT**2 * tiles * (inside + out) / 2
    kernels = (0.8 if prepared else 1.4) * TILE**2 * inside * out
    return products + passes + kernels < 0.9 * direct


def transform(kernel: jax.Array) -> jax.Array:
    """Returns kernels [3, 3, C, O] as `convolve` takes them, [C, 36, O]."""
    rows = _combine(_KERNELS, lambda i: kernel[i][:, :, None], (TILE, 1))
    both = _combine(_KERNELS, lambda j: rows[j][:, :, None], (TILE, 1))
    return both.reshape(kernel.shape[2], TILE**2, kernel.shape[3])


def convolve(x: jax.Array, transformed: jax.Array, *, padding: Pairs, out: Size) -> jax.Array:
    """Returns the convolution [B, H', W', O].

    Args:
      x: [B, H, W, C].
      transformed: kernels of `transform`.
      padding: zeros (above, below), (left, right).
      out: H' and W'.
    """

    def part(x: jax.Array) -> jax.Array:
        tiles = _tiles(x, padding, out)
        products = onednn_product.forward(tiles.reshape(-1, TILE**2, x.shape[3]), transformed)
        return _assemble(products.reshape(*tiles.shape[:5], -1), out)

    return jnp.concatenate(_in_parts(part, out, max(x.shape[3], transformed.shape[2]), x))


def forward(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """Returns the convolution [B, H', W', O] of images and a kernel."""
    return convolve(x, transform(kernel), padding=window.padding, out=window.out)


def input_gradient(g: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """Returns the gradient of the images [B, H, W, C]: a convolution with the turned kernel."""
    swapped = onednn_product.transpose(kernel.reshape(-1, *kernel.shape[2:]), (0, 2, 1))
    turned = swapped[::-1].reshape(KERNEL, KERNEL, *swapped.shape[1:])
    (top, bottom), (left, right) = window.padding
    padding = (2 - top, 2 - bottom), (2 - left, 2 - right)
    return convolve(g, transform(turned), padding=padding, out=window.image)


def kernel_gradient(x: jax.Array, g: jax.Array, *, window: Window) -> jax.Array:
    """Returns the gradient of the kernel [3, 3, C, O], of images and of the result's."""

    def part(x: jax.Array, g: jax.Array) -> jax.Array:
        (height, width), (down, right) = window.out, _counts(window.out)
        whole = _pad(g, (0, OUT * down - height), (0, OUT * right - width))
        whole = whole.reshape(g.shape[0], down, OUT, right, OUT, g.shape[3])
        rows = _combine(_RESULTS, lambda i: whole[:, :, i][:, :, :, None], (TILE, 1, 1))
        both = _combine(_RESULTS, lambda j: rows[:, :, :, :, j][:, :, :, :, None], (TILE, 1))
        tiles = _tiles(x, window.padding, window.out)
        flat = (a.reshape(-1, TILE**2, a.shape[-1]) for a in (tiles, both))
        return onednn_product.transposed(*flat)

    # Without this it would find the tiles of the forward pass, and keep them until now.
    x, g = lax.optimization_barrier((x, g))
    sums = functools.reduce(jnp.add, _in_parts(part, window.out, max(x.shape[3], g.shape[3]), x, g))
    sums = sums.reshape(x.shape[3], TILE, TILE, g.shape[3])
    rows = _combine(_KERNELS.T, lambda i: sums[:, i][:, None], (KERNEL, 1, 1))
    both = _combine(_KERNELS.T, lambda j: rows[:, :, j][:, :, None], (KERNEL, 1))
    flat = both.reshape(x.shape[3], -1, g.shape[3])
    return onednn_product.transpose(flat, (1, 0, 2)).reshape(KERNEL, KERNEL, *flat.shape[::2])


def _combine(
    matrix: np.ndarray, part: Callable[[int], jax.Array], shape: tuple[int, ...]
) -> jax.Array:
    """Returns the sum of parts, each times a column of a matrix that lies along an axis of 1."""
    terms = (part(k) * matrix[:, k].reshape(shape) for k in range(matrix.shape[1]))
    return functools.reduce(jnp.add, terms)


def _tiles(x: jax.Array, padding: Pairs, out: Size) -> jax.Array:
    """Returns the transformed tiles [B, H' / 4, W' / 4, 6, 6, C] of images."""
    (top, _), (left, _) = padding
    (height, width), (down, right) = x.shape[1:3], _counts(out)
    below, behind = OUT * down + 2 - height - top, OUT * right + 2 - width - left
    x = _pad(x, (top, below), (left, behind))

    def row(i: int) -> jax.Array:
        return lax.slice_in_dim(x, i, i + OUT * (down - 1) + 1, OUT, 1)[:, :, :, None]

    def column(j: int) -> jax.Array:
        part = lax.slice_in_dim(rows, j, j + OUT * (right - 1) + 1, OUT, 2)
        return part[:, :, :, :, None]

    rows = _combine(_IMAGES, row, (TILE, 1))
    return _combine(_IMAGES, column, (TILE, 1))


def _assemble(tiles: jax.Array, out: Size) -> jax.Array:
    """Returns the result [B, H', W', O] of its transformed tiles."""
    batch, down, right, *_, channels = tiles.shape
    both = _combine(_RESULTS.T, lambda j: tiles[:, :, :, :, j][:, :, :, :, None], (OUT, 1))
    rows = _combine(_RESULTS.T, lambda i: both[:, :, :, i][:, :, None], (OUT, 1, 1, 1))
    whole = rows.reshape(batch, down * OUT, right * OUT, channels)
    return whole[:, : out[0], : out[1]]


def _pad(x: jax.Array, rows: tuple[int, int], columns: tuple[int, int]) -> jax.Array:
    """Returns images with a margin, in memory: a loop that pads as it reads would be slower."""
    return lax.optimization_barrier(pad(x, (rows, columns)))


def _counts(out: Size) -> Size:
    """Returns how many tiles there are along both directions."""
    return tuple(-(-size // OUT) for size in out)


def _in_parts(
    function: Callable[..., jax.Array], out: Size, channels: int, *arrays: jax.Array
) -> list[jax.Array]:
    """Returns a function of few enough images at a time.

    Args:
      function: of images.
      out: H' and W' of the convolution.
      channels: the most that are transformed.
      *arrays: [B, …].
    """
    batch = arrays[0].shape[0]
    numbers = batch * math.prod(_counts(out)) * TILE**2 * channels
    count = min(math.ceil(numbers / _MOST), batch)
    parts = zip(*(jnp.array_split(a, count) for a in arrays), strict=True)
    return [function(*part) for part in parts]
