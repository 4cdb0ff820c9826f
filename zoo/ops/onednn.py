"""Convolutions of programs for x86 CPUs, computed by oneDNN.

XLA computes convolutions and products on a CPU with 256-bit instructions. oneDNN, the library
that torch uses as well, knows AVX-512, and has kernels for depthwise convolutions and for the
gradients of kernels. Arrays stay where they are: images NHWC, kernels HWIO.

Nothing of this happens before `enable()`, which train.py and the benchmarks call where
`pip install 'zoo[cpu]'` has brought oneDNN. Its C interface, version 3
(https://uxlfoundation.github.io/oneDNN/), is called by ctypes.
"""

from collections.abc import Iterator, Sequence
import contextlib
import ctypes
import functools
from importlib import metadata
from pathlib import Path
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.ops import ffi, plain
from zoo.ops.plain import Window

PACKAGE = "onednn-cpu-tbb"
NEEDED = ("libintlc.so.5", "libimf.so", "libtbb.so.12")  # of its dependencies
TARGET = "zoo_onednn_convolution"
KINDS = ("forward", "input_gradient", "kernel_gradient")

# Of oneapi/dnnl/dnnl_types.h, version 3.
_CPU, _IN_ORDER, _FLOAT32 = 1, 1, 3
_ANY, _NHWC, _HWIO, _HWIGO = 1, 22, 28, 39  # how numbers lie in memory
_TRAINING, _DIRECT, _SCRATCHPAD_OF_USER = 64, 1, 1
_WEIGHTS_OF, _DIFF_WEIGHTS_OF, _SCRATCHPAD_OF = 131, 132, 136  # queries
_SRC, _DST, _WEIGHTS, _SCRATCHPAD = 1, 17, 33, 80  # arguments
_DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS = 129, 145, 161
_LINE = 64  # bytes, of the cache

_state = {"enabled": False}


class OneDNNError(RuntimeError):
    """oneDNN is not to be had here, or refused what it was asked for."""


def enable() -> None:
    """Lets oneDNN compute the convolutions of programs that are compiled for a CPU from now on.

    Those in float32, on one device or mapped over several. What was compiled before stays as it
    is. Not undone: a program does not tell by its inputs what it was compiled with.

    Raises:
      OneDNNError: if it is not installed or cannot be loaded; nothing has changed then.
    """
    _library()
    _register()
    _state["enabled"] = True


def installed() -> bool:
    """Whether the package is there."""
    try:
        return bool(metadata.version(PACKAGE))
    except metadata.PackageNotFoundError:
        return False


def enabled() -> bool:
    """Whether programs that are compiled now use it."""
    return _state["enabled"]


def version() -> str:
    """Returns the version of what is loaded, "3.2.0".

    Raises:
      OneDNNError: if nothing can be loaded.
    """

    class Version(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_int) for name in ("major", "minor", "patch"))

    ask = _library().dnnl_version
    ask.restype = ctypes.POINTER(Version)
    found = ask().contents
    return f"{found.major}.{found.minor}.{found.patch}"


def takes(dtype: Any, window: Window, axes: Any) -> bool:
    """Whether oneDNN is to compute a convolution.

    Args:
      dtype: of its arrays.
      window: of the convolution.
      axes: the axis context of the lowering. What the compiler would split over devices is left
        to it: it cannot split a call.
    """
    if not enabled() or dtype != jnp.float32 or min(map(min, window.padding)) < 0:
        return False
    if hasattr(axes, "manual_axes"):
        return axes.manual_axes == frozenset(axes.mesh.axis_names)
    return getattr(axes, "num_devices", None) == 1


def convolution(kind: str, first: jax.Array, second: jax.Array, *, window: Window) -> jax.Array:
    """Returns one of the three products of `zoo.ops.convolution`, in a program for a CPU."""
    result = jax.eval_shape(functools.partial(getattr(plain, kind), window=window), first, second)
    (top, bottom), (left, right) = window.padding
    geometry = (*window.strides, *window.dilation, top, bottom, left, right)
    numbers = (KINDS.index(kind), *geometry, window.groups)
    return ffi.call(TARGET, numbers, first, second, result=result)


def _execute(numbers: Sequence[int], arguments: Sequence[Any], results: Sequence[Any]) -> None:
    """Computes a product that `convolution` put into a program."""
    arrays = (*arguments, *results)
    product = _product(tuple(numbers), *(array.shape for array in arrays))
    product(*(array.address for array in arrays))


@functools.cache
def _register() -> None:
    ffi.register(TARGET, _execute)


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise OneDNNError(f"{PACKAGE} is not installed: pip install 'zoo[cpu]'") from None
    found = [f for f in files if f.name == "libdnnl.so.3"]
    if not found:
        raise OneDNNError(f"{PACKAGE} has no library for this machine")
    file = Path(str(found[0].locate())).resolve()
    try:
        for name in NEEDED:  # they lie beside it, where no loader looks
            ctypes.CDLL(str(file.parent / name), mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(file))
    except OSError as error:
        raise OneDNNError(f"{PACKAGE} cannot be loaded: {error}") from None
    library.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
    library.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
    return library


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library(), name)(*arguments)
    if status:
        raise OneDNNError(f"{name} returned {status}")


def _make(name: str, *arguments: Any) -> ctypes.c_void_p:
    """Calls a function whose first argument takes the handle of what it makes."""
    handle = ctypes.c_void_p()
    _call(name, ctypes.byref(handle), *arguments)
    return handle


@functools.cache
def _engine() -> ctypes.c_void_p:
    return _make("dnnl_engine_create", _CPU, ctypes.c_size_t(0))


@functools.cache
def _attributes() -> ctypes.c_void_p:
    attributes = _make("dnnl_primitive_attr_create")
    _call("dnnl_primitive_attr_set_scratchpad_mode", attributes, _SCRATCHPAD_OF_USER)
    return attributes


def _dims(*values: int) -> Any:
    return (ctypes.c_int64 * 12)(*values)


def _layout(dims: Sequence[int], tag: int) -> ctypes.c_void_p:
    """Returns the description of an array of float32."""
    return _make("dnnl_memory_desc_create_with_tag", len(dims), _dims(*dims), _FLOAT32, tag)


def _layout_of(description: ctypes.c_void_p, what: int) -> ctypes.c_void_p:
    """Returns the description of an array that a primitive reads or writes."""
    return ctypes.c_void_p(_library().dnnl_primitive_desc_query_md(description, what, 0))


class _Place:
    """Memory that primitives read or write. Where it is is said before each use."""

    def __init__(self, layout: ctypes.c_void_p) -> None:
        size = _library().dnnl_memory_desc_get_size(layout)
        self.size = -(-size // _LINE) * _LINE
        self.handle = _make("dnnl_memory_create", layout, _engine(), None)

    def put(self, address: int) -> None:
        _call("dnnl_memory_set_data_handle", self.handle, ctypes.c_void_p(address))


class _Argument(ctypes.Structure):
    _fields_ = (("number", ctypes.c_int), ("place", ctypes.c_void_p))


class _Primitive:
    """Something that oneDNN computes, from and to certain places."""

    def __init__(self, description: ctypes.c_void_p, places: dict[int, _Place]) -> None:
        self.handle = _make("dnnl_primitive_create", description)
        self.scratchpad = _Place(_layout_of(description, _SCRATCHPAD_OF))
        places = places | {_SCRATCHPAD: self.scratchpad}
        self.arguments = (_Argument * len(places))(
            *(_Argument(number, place.handle.value) for number, place in places.items())
        )

    def run(self, stream: ctypes.c_void_p) -> None:
        _call("dnnl_primitive_execute", self.handle, stream, len(self.arguments), self.arguments)


class _Product:
    """One of the three products, for arrays of certain shapes.

    oneDNN wants kernels in blocks of its own choice: they are written so before the product, or
    read so behind it.
    """

    def __init__(self, kind: str, shapes: dict[str, Sequence[int]], numbers: Sequence[int]) -> None:
        *geometry, groups = numbers
        (n, h, w, c), (kh, kw, i, o) = shapes["image"], shapes["kernel"]
        image = _layout((n, c, h, w), _NHWC)
        out = _layout([shapes["out"][axis] for axis in (0, 3, 1, 2)], _NHWC)
        dims = (o, i, kh, kw) if groups == 1 else (groups, o // groups, i, kh, kw)
        kernel = _layout(dims, _HWIO if groups == 1 else _HWIGO)
        description = _describe(kind, image, _layout(dims, _ANY), out, geometry)
        of_kernel = _DIFF_WEIGHTS_OF if kind == "kernel_gradient" else _WEIGHTS_OF
        blocked = _layout_of(description, of_kernel)
        same = bool(_library().dnnl_memory_desc_equal(kernel, blocked))
        self.places = {"image": _Place(image), "kernel": _Place(kernel), "out": _Place(out)}
        self.blocks = self.places["kernel"] if same else _Place(blocked)
        numbers = {
            "forward": (_SRC, _WEIGHTS, _DST),
            "input_gradient": (_DIFF_SRC, _WEIGHTS, _DIFF_DST),
            "kernel_gradient": (_SRC, _DIFF_WEIGHTS, _DIFF_DST),
        }[kind]
        places = (self.places["image"], self.blocks, self.places["out"])
        self.primitives = [_Primitive(description, dict(zip(numbers, places, strict=True)))]
        if not same and kind == "kernel_gradient":
            reorder = _describe_reorder(blocked, kernel)
            places = {_SRC: self.blocks, _DST: self.places["kernel"]}
            self.primitives.append(_Primitive(reorder, places))
        elif not same:
            reorder = _describe_reorder(kernel, blocked)
            places = {_SRC: self.places["kernel"], _DST: self.blocks}
            self.primitives.insert(0, _Primitive(reorder, places))
        self.own = 0 if same else self.blocks.size  # bytes besides the three arrays
        self.space = self.own + max(p.scratchpad.size for p in self.primitives)
        self.order = _ORDER[kind]
        self.stream = _make("dnnl_stream_create", _engine(), _IN_ORDER)
        self.lock = threading.Lock()  # places are set, then used

    def __call__(self, *addresses: int) -> None:
        """Computes it from two addresses to a third."""
        with _space(self.space) as space, self.lock:
            for name, address in zip(self.order, addresses, strict=True):
                self.places[name].put(address)
            if self.own:
                self.blocks.put(space)
            for primitive in self.primitives:
                primitive.scratchpad.put(space + self.own)
                primitive.run(self.stream)


# What `zoo.ops.convolution` calls the arguments of each product, and its result.
_ORDER = {
    "forward": ("image", "kernel", "out"),
    "input_gradient": ("out", "kernel", "image"),
    "kernel_gradient": ("image", "out", "kernel"),
}


def _describe(kind: str, image: Any, kernel: Any, out: Any, geometry: Sequence[int]) -> Any:
    """Returns the description of a convolution, or of one of its gradients."""
    down, right, lower, further, top, bottom, left, end = geometry
    # oneDNN counts the pixels between weights.
    dilation = _dims(lower - 1, further - 1)
    window = (_dims(down, right), dilation, _dims(top, left), _dims(bottom, end))
    forward = _make(
        "dnnl_convolution_forward_primitive_desc_create",
        *(_engine(), _TRAINING, _DIRECT, image, kernel, None, out, *window, _attributes()),
    )
    if kind == "forward":
        return forward
    hint = (*window, forward, _attributes())
    if kind == "input_gradient":
        name, arrays = "dnnl_convolution_backward_data_primitive_desc_create", (kernel, out)
    else:
        name, arrays = (
            "dnnl_convolution_backward_weights_primitive_desc_create",
            (kernel, None, out),
        )
    return _make(name, _engine(), _DIRECT, image, *arrays, *hint)


def _describe_reorder(source: Any, target: Any) -> Any:
    name = "dnnl_reorder_primitive_desc_create"
    return _make(name, source, _engine(), target, _engine(), _attributes())


@functools.lru_cache(maxsize=4096)
def _product(numbers: tuple[int, ...], *shapes: tuple[int, ...]) -> _Product:
    kind = KINDS[numbers[0]]
    return _Product(kind, dict(zip(_ORDER[kind], shapes, strict=True)), numbers[1:])


_spare: list[np.ndarray] = []  # memory of earlier calls: the system's is slow to get


@contextlib.contextmanager
def _space(size: int) -> Iterator[int]:
    """Gives the address of so many bytes for the length of a call."""
    try:
        array = _spare.pop()  # one step of the interpreter: no lock is needed
    except IndexError:
        array = np.empty(0, np.uint8)
    if array.size < size + _LINE:
        array = np.empty(size + _LINE, np.uint8)
    yield -(-array.ctypes.data // _LINE) * _LINE
    _spare.append(array)
