"""The products of `zoo.ops.convolution`, all by XLA's convolution."""

import dataclasses
import functools
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

Size = tuple[int, ...]  # height and width
Pairs = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Window:
    """How a kernel of [kh, kw, C / groups, O] is moved over images of [B, H, W, C].

    Attributes:
      image: H and W.
      kernel: kh and kw.
      strides: of rows and columns.
      padding: zeros (above, below), (left, right).
      groups: of channels; C for a depthwise convolution.
      dilation: pixels from one weight to the next, along rows and columns.
    """

    image: Size
    kernel: Size
    strides: Size
    padding: Pairs
    groups: int = 1
    dilation: Size = (1, 1)

    @property
    def extent(self) -> Size:
        """Height and width of the pixels that a kernel covers."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def out(self) -> Size:
        """Height and width of the result."""
        sizes = zip(self.image, self.extent, self.strides, self.padding, strict=True)
        return tuple(max((n + sum(pad) - k) // s + 1, 0) for n, k, s, pad in sizes)


def make_window(
    image: Size,
    kernel: Size,
    strides: int | Size,
    padding: str | Pairs,
    groups: int = 1,
    dilation: int | Size = 1,
) -> Window:
    """Returns a window with strides for both directions and its padding in numbers.

    Args:
      image: H and W.
      kernel: kh and kw.
      strides: of rows and columns.
      padding: "VALID", "SAME" (TensorFlow's), or zeros (above, below), (left, right).
      groups: of channels.
      dilation: from one weight to the next.
    """
    strides = (strides, strides) if isinstance(strides, int) else strides
    dilation = (dilation, dilation) if isinstance(dilation, int) else dilation
    if isinstance(padding, str):
        extent = Window(image, kernel, strides, (), groups, dilation).extent
        padding = lax.padtype_to_pads(image, extent, strides, padding)  # pyright: ignore
    (top, bottom), (left, right) = padding
    pairs = ((int(top), int(bottom)), (int(left), int(right)))
    return Window(image, kernel, strides, pairs, groups, dilation)


def forward(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """Returns the convolution [B, H', W', O]."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=window.groups,
    )


def input_gradient(g: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """Returns the gradient of the images [B, H, W, C], of that of the result."""
    shape = (g.shape[0], *window.image, kernel.shape[2] * window.groups)
    x: Any = jax.typeof(g).update(shape=shape)  # on the same mapped axes
    return jax.linear_transpose(functools.partial(forward, kernel=kernel, window=window), x)(g)[0]


def kernel_gradient(x: jax.Array, g: jax.Array, *, window: Window) -> jax.Array:
    """Returns the gradient of the kernel [kh, kw, C / groups, O], of images and result's."""
    shape = (*window.kernel, x.shape[3] // window.groups, g.shape[3])
    of_g = jax.typeof(g)
    whole = of_g.sharding.update(spec=PartitionSpec(*(None,) * len(shape)))  # on each device
    kernel: Any = of_g.update(shape=shape, sharding=whole)
    return jax.linear_transpose(functools.partial(forward, x, window=window), kernel)(g)[0]
