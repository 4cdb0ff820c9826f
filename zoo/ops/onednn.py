"""Convolutions of programs for x86 CPUs, computed by oneDNN.

XLA computes convolutions and products on a CPU with 256-bit instructions. oneDNN, the library
that torch uses as well, knows AVX-512, and has kernels for depthwise convolutions, and for the
gradients of kernels and of pooling. Arrays stay where they are: images NHWC, kernels HWIO.

Nothing of this happens before `enable()`, which train.py and the benchmarks call where
`pip install 'zoo[cpu]'` has brought oneDNN.
"""

from collections.abc import Callable, Sequence
import ctypes
import dataclasses
import functools
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

from zoo.ops import ffi, plain
from zoo.ops import onednn_library as dnn
from zoo.ops.onednn_library import OneDNNError, Place, Primitive, Program
from zoo.ops.plain import Window

__all__ = ["OneDNNError", "convolution", "enable", "enabled", "installed", "spread", "takes"]

TARGET = "zoo_onednn_convolution"
SPREAD_TARGET = "zoo_onednn_max_pool_gradient"

# Of oneapi/dnnl/dnnl_types.h.
ANY, _NHWC, _HWIO, _HWIGO = 1, 22, 28, 39  # how numbers lie in memory
_TRAINING, DIRECT, _MAX = 64, 1, 511
WEIGHTS_OF, _DIFF_WEIGHTS_OF, _WORKSPACE_OF = 131, 132, 135  # queries
SRC, DST, WEIGHTS, _WORKSPACE = 1, 17, 33, 64  # arguments
_DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS = 129, 145, 161

_state = {"enabled": False}


def enable() -> None:
    """Lets oneDNN compute the convolutions of programs that are compiled for a CPU from now on.

    Those in float32, and the gradients of pooling, on one device or mapped over several. What was
    compiled before stays as it is. Not undone: a program does not tell by its inputs what it was
    compiled with. Called before JAX starts, it lets programs for one CPU run within the call
    (`jax_cpu_enable_async_dispatch`), so that none is left when Python ends.

    Raises:
      OneDNNError: if it is not installed or cannot be loaded; nothing has changed then.
    """
    dnn.library()
    ffi.register()
    _state["enabled"] = True


def installed() -> bool:
    """Whether the package is there."""
    try:
        return bool(metadata.version(dnn.PACKAGE))
    except metadata.PackageNotFoundError:
        return False


def enabled() -> bool:
    """Whether programs that are compiled now use it."""
    return _state["enabled"]


def takes(dtype: Any, window: Window, axes: Any) -> bool:
    """Whether oneDNN is to compute a convolution or the gradient of pooling.

    Args:
      dtype: of its arrays.
      window: of it. Maps of one pixel are left to XLA: they are products, with large kernels.
      axes: the axis context of the lowering. What the compiler would split over devices is left
        to it: it cannot split a call.
    """
    if not enabled() or dtype != jnp.float32 or min(map(min, window.padding)) < 0:
        return False
    if window.image == (1, 1):
        return False
    if hasattr(axes, "manual_axes"):
        return axes.manual_axes == frozenset(axes.mesh.axis_names)
    return getattr(axes, "num_devices", None) == 1


def convolution(kind: str, first: jax.Array, second: jax.Array, *, window: Window) -> jax.Array:
    """Returns one of the three products of `zoo.ops.convolution`, in a program for a CPU."""
    result = jax.eval_shape(functools.partial(getattr(plain, kind), window=window), first, second)
    numbers = (kind, dataclasses.astuple(window))
    return ffi.call(TARGET, numbers, first, second, result=result)


def spread(x: jax.Array, g: jax.Array, *, window: Window) -> jax.Array:
    """Returns `zoo.ops.pooling`'s gradient of largest values, in a program for a CPU."""
    result = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return ffi.call(SPREAD_TARGET, dataclasses.astuple(window), x, g, result=result)


def geometry(window: Window) -> tuple[Any, Any, Any, Any]:
    """Returns strides, dilation and padding, before and behind, as oneDNN takes them."""
    (top, bottom), (left, right) = window.padding
    # It counts the pixels between weights.
    between = dnn.dims(*(dilation - 1 for dilation in window.dilation))
    return dnn.dims(*window.strides), between, dnn.dims(top, left), dnn.dims(bottom, right)


def pooling_geometry(window: Window) -> tuple[Any, ...]:
    """Returns strides, size, dilation and padding of a window, as oneDNN takes them."""
    strides, *rest = geometry(window)
    return strides, dnn.dims(*window.kernel), *rest


def run(make: Callable[..., Program], numbers: Any, arguments: Any, results: Any) -> None:
    """Runs what is made of the numbers of a call and the shapes of its arrays."""
    arrays = (*arguments, *results)
    program = make(numbers, *(array.shape for array in arrays))
    program(*(array.address for array in arrays))


def _execute(numbers: Any, arguments: Any, results: Any) -> None:
    """Computes a product that `convolution` put into a program."""
    run(_product, numbers, arguments, results)


def _execute_spread(numbers: Any, arguments: Any, results: Any) -> None:
    """Computes a gradient that `spread` put into a program."""
    run(_spread, numbers, arguments, results)


ffi.declare(TARGET, _execute)
ffi.declare(SPREAD_TARGET, _execute_spread)


# What `zoo.ops.convolution` calls the arguments of each product, and its result.
_ORDER = {
    "forward": ("image", "kernel", "out"),
    "input_gradient": ("out", "kernel", "image"),
    "kernel_gradient": ("image", "out", "kernel"),
}
# As what oneDNN takes images, kernel and result.
_ARGUMENTS = {
    "forward": (SRC, WEIGHTS, DST),
    "input_gradient": (_DIFF_SRC, WEIGHTS, _DIFF_DST),
    "kernel_gradient": (SRC, _DIFF_WEIGHTS, _DIFF_DST),
}


def images(shape: Sequence[int]) -> Any:
    """Returns the layout of images [B, H, W, C]."""
    batch, height, width, channels = shape
    return dnn.layout((batch, channels, height, width), _NHWC)


def kernels(sizes: Sequence[int], groups: int) -> tuple[tuple[int, ...], Any]:
    """Returns the shape that oneDNN gives kernels [kh, kw, C / groups, O], and their layout."""
    height, width, inputs, outputs = sizes
    shape = (outputs, inputs, height, width)
    if groups > 1:
        shape = (groups, outputs // groups, *shape[1:])
    return shape, dnn.layout(shape, _HWIO if groups == 1 else _HWIGO)


@functools.lru_cache(maxsize=4096)
def _product(numbers: tuple[Any, ...], *shapes: tuple[int, ...]) -> Program:
    """Returns one of the three products, for arrays of certain shapes.

    oneDNN wants kernels in blocks of its own choice: they are written so before the product, or
    read so behind it.
    """
    kind, window = numbers[0], Window(*numbers[1])
    named = dict(zip(_ORDER[kind], shapes, strict=True))
    image, out = images(named["image"]), images(named["out"])
    shape, kernel = kernels(named["kernel"], window.groups)
    description = _describe(kind, image, dnn.layout(shape, ANY), out, geometry(window))
    of_kernel = _DIFF_WEIGHTS_OF if kind == "kernel_gradient" else WEIGHTS_OF
    blocked = dnn.layout_of(description, of_kernel)
    places = {"image": Place(image), "kernel": Place(kernel), "out": Place(out)}
    given = [places[name] for name in _ORDER[kind]]
    same = bool(dnn.library().dnnl_memory_desc_equal(kernel, blocked))
    blocks = places["kernel"] if same else Place(blocked)
    order = (places["image"], blocks, places["out"])
    product = Primitive(description, dict(zip(_ARGUMENTS[kind], order, strict=True)))
    if same:
        return Program(given, [], [product])
    if kind == "kernel_gradient":
        back = reorder(blocked, kernel, blocks, places["kernel"])
        return Program(given, [[blocks]], [product, back])
    return Program(given, [[blocks]], [reorder(kernel, blocked, places["kernel"], blocks), product])


def _describe(kind: str, image: Any, kernel: Any, out: Any, geometry: Any) -> ctypes.c_void_p:
    """Returns the description of a convolution, or of one of its gradients."""
    forward = dnn.make(
        "dnnl_convolution_forward_primitive_desc_create",
        *(dnn.engine(), _TRAINING, DIRECT, image, kernel, None, out, *geometry),
        dnn.attributes(),
    )
    if kind == "forward":
        return forward
    of, arrays = (
        ("data", (kernel, out))
        if kind == "input_gradient"
        else (
            "weights",
            (kernel, None, out),  # no bias
        )
    )
    return dnn.make(
        f"dnnl_convolution_backward_{of}_primitive_desc_create",
        *(dnn.engine(), DIRECT, image, *arrays, *geometry, forward, dnn.attributes()),
    )


def reorder(layout: Any, new_layout: Any, source: Place, target: Place) -> Primitive:
    """Returns what writes the numbers of one place into another, in the other's layout."""
    description = dnn.make(
        "dnnl_reorder_primitive_desc_create",
        *(layout, dnn.engine(), new_layout, dnn.engine(), dnn.attributes()),
    )
    return Primitive(description, {SRC: source, DST: target})


@functools.lru_cache(maxsize=1024)
def _spread(
    numbers: tuple[Any, ...], x: tuple[int, ...], g: tuple[int, ...], _: tuple[int, ...]
) -> Program:
    """Returns the gradient of largest values, for arrays of certain shapes.

    Which value of each window was the largest is found anew: that is faster than to keep it.
    """
    image, out = images(x), images(g)
    window = pooling_geometry(Window(*numbers))
    forward = dnn.make(
        "dnnl_pooling_forward_primitive_desc_create",
        *(dnn.engine(), _TRAINING, _MAX, image, out, *window, dnn.attributes()),
    )
    backward = dnn.make(
        "dnnl_pooling_backward_primitive_desc_create",
        *(dnn.engine(), _MAX, image, out, *window, forward, dnn.attributes()),
    )
    at_x, at_g, at_dx, y = Place(image), Place(out), Place(image), Place(out)
    which = Place(dnn.layout_of(forward, _WORKSPACE_OF))
    primitives = [
        Primitive(forward, {SRC: at_x, DST: y, _WORKSPACE: which}),
        Primitive(backward, {_DIFF_DST: at_g, _DIFF_SRC: at_dx, _WORKSPACE: which}),
    ]
    return Program([at_x, at_g, at_dx], [[y], [which]], primitives)
