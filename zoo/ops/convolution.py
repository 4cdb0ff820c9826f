"""2-D convolution, computed as is best on the platform it is compiled for.

A convolution y = x * w is bilinear, and so are the two products that its gradients are made
of. Each of the three is the derivative of the others:

    forward          x, w -> y     with respect to x: input_gradient, to w: kernel_gradient
    input_gradient   g, w -> x     with respect to g: forward,        to w: kernel_gradient
    kernel_gradient  x, g -> w     with respect to x: input_gradient, to g: forward

They are primitives of JAX that differentiate into each other, any number of times in either
mode. On TPUs and GPUs each is XLA's convolution. On CPUs it is what `zoo.ops.xla_cpu` makes
of it, or oneDNN where `zoo.ops.onednn` is enabled. What is chosen is what a program is
compiled for, not where it is written: one compiled for a TPU on a CPU has the TPU's form.
"""

import functools
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

from zoo.ops import onednn, plain, winograd, xla_cpu
from zoo.ops.across import same_axes
from zoo.ops.plain import Pairs, Window, make_window


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | tuple[int, int] = 1,
    padding: str | Pairs = "VALID",
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
) -> jax.Array:
    """Returns the convolution (without flipping) of images and a kernel, [B, H', W', O].

    Equal to `jax.lax.conv_general_dilated` up to rounding, gradients included.

    Args:
      x: [B, H, W, C].
      kernel: [kh, kw, C / groups, O], of the same dtype.
      strides: of rows and columns.
      padding: "VALID", "SAME" (TensorFlow's), or zeros (above, below), (left, right).
      groups: of channels; C for a depthwise convolution.
      dilation: pixels from one weight to the next, along rows and columns.

    Example:
      >>> import jax.numpy as jnp
      >>> conv2d(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), strides=2).shape
      (1, 1, 1, 5)
    """
    if x.shape[-1] != kernel.shape[2] * groups or kernel.shape[3] % groups:
        raise ValueError(
            f"a kernel {list(kernel.shape)} in {groups} groups does not fit images {list(x.shape)}"
        )
    window = make_window(x.shape[1:3], kernel.shape[:2], strides, padding, groups, dilation)
    if min(window.out) < 1:
        return plain.forward(x, kernel, window=window)  # an empty array
    return forward.bind(*same_axes(x, kernel), window=window)


def _define(name: str, default: Any, cpu: Any) -> Primitive:
    """Returns a primitive of two arrays and a window.

    Args:
      name: "forward", "input_gradient" or "kernel_gradient".
      default: computes it with XLA's convolution.
      cpu: computes it on CPUs.
    """
    primitive = Primitive(f"zoo_convolution_{name}")

    @functools.lru_cache(maxsize=1024)
    def alone(window: Window) -> Any:
        return jax.jit(functools.partial(primitive.bind, window=window))

    def impl(a: jax.Array, b: jax.Array, *, window: Window) -> jax.Array:
        return alone(window)(a, b)

    def shape(a: Any, b: Any, *, window: Window) -> Any:
        # XLA's convolution knows what becomes of shardings and of mapped axes.
        return jax.make_jaxpr(functools.partial(default, window=window))(a, b).out_avals[0]

    def batch(arrays: Any, axes: Any, *, window: Window) -> Any:
        if name != "kernel_gradient" and axes[1] is None:
            # Examples of examples are examples.
            a = jnp.moveaxis(arrays[0], axes[0], 0)
            merged = a.reshape(-1, *a.shape[2:])
            out = primitive.bind(merged, arrays[1], window=window)
            return out.reshape(*a.shape[:2], *out.shape[1:]), 0
        return jax.vmap(functools.partial(default, window=window), tuple(axes))(*arrays), 0

    def lower_cpu(ctx: Any, *operands: Any, window: Window) -> Any:
        first, second = ctx.avals_in
        if not onednn.takes(first.dtype, window, ctx.module_context.axis_context):
            chosen = cpu
        elif winograd.pays(window, *_sizes(name, first.shape, second.shape)):
            chosen = getattr(winograd, name)
        else:
            chosen = functools.partial(onednn.convolution, name)
        return mlir.lower_fun(chosen, multiple_results=False)(ctx, *operands, window=window)

    primitive.def_impl(impl)
    primitive.def_abstract_eval(shape)
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(default, multiple_results=False))
    mlir.register_lowering(primitive, lower_cpu, platform="cpu")
    return primitive


def _sizes(name: str, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns how many images there are, their channels and those of the result."""
    inside = second[2] if name == "input_gradient" else first[3]
    return first[0], inside, second[3]


forward = _define("forward", plain.forward, xla_cpu.forward)
input_gradient = _define("input_gradient", plain.input_gradient, xla_cpu.input_gradient)
kernel_gradient = _define("kernel_gradient", plain.kernel_gradient, xla_cpu.kernel_gradient)

# What a cotangent t of each becomes for its first and its second argument.
ad.defbilinear(
    forward,
    lambda t, x, w, *, window: input_gradient.bind(t, w, window=window),
    lambda t, x, w, *, window: kernel_gradient.bind(x, t, window=window),
)
ad.defbilinear(
    input_gradient,
    lambda t, g, w, *, window: forward.bind(t, w, window=window),
    lambda t, g, w, *, window: kernel_gradient.bind(t, g, window=window),
)
ad.defbilinear(
    kernel_gradient,
    lambda t, x, g, *, window: input_gradient.bind(g, t, window=window),
    lambda t, x, g, *, window: forward.bind(x, t, window=window),
)
