"""Convolutions of XLA programs on x86 CPUs, computed by oneDNN.

XLA computes convolutions on a CPU with 256-bit instructions; oneDNN, the library behind
torch's, knows AVX-512 as well and has kernels for depthwise convolutions. Here it is called
from within compiled programs through XLA's foreign function interface: arrays stay where
they are, in NHWC, kernels in HWIO.

Nothing of this happens unless `enable()` was called, as train.py and the benchmarks do where
the package `onednn-cpu-tbb` is installed (`pip install 'zoo[cpu]'`). oneDNN's C interface
(version 3, https://uxlfoundation.github.io/oneDNN/) is called by ctypes: nothing is compiled.
"""

from collections.abc import Sequence
import ctypes
import functools
from importlib import metadata
from pathlib import Path
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.ops import plain
from zoo.ops.plain import Window

TARGET = "zoo_onednn_convolution"
PACKAGE = "onednn-cpu-tbb"
NEEDED = ("libintlc.so.5", "libimf.so", "libtbb.so.12")  # of its dependencies
KINDS = ("forward", "input_gradient", "kernel_gradient")

# Of oneapi/dnnl/dnnl_types.h, version 3.
_F32 = 3
_ANY, _NHWC, _HWIO, _HWIGO = 1, 22, 28, 39
_FORWARD, _DIRECT, _CPU, _SCRATCHPAD_BY_USER = 64, 1, 1, 1
_QUERY_WEIGHTS, _QUERY_DIFF_WEIGHTS, _QUERY_SCRATCHPAD = 131, 132, 136
_SRC, _DST, _WEIGHTS, _SCRATCHPAD = 1, 17, 33, 80
_DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS = 129, 145, 161

_enabled = False


class OneDNNError(RuntimeError):
    """oneDNN is missing, or refused a convolution."""


class _Argument(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_int), ("memory", ctypes.c_void_p))


# Of xla/ffi/api/c_api.h, version 0: only what is read here.
class _Buffer(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    )


class _Buffers(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("buffers", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    )


class _Array(ctypes.Structure):
    _fields_ = (
        ("dtype", ctypes.c_int),
        ("size", ctypes.c_size_t),
        ("data", ctypes.POINTER(ctypes.c_int64)),
    )


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("names", ctypes.c_void_p),
        ("values", ctypes.POINTER(ctypes.POINTER(_Array))),
    )


class _Version(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    )


class _Api(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)),
    )


class _ErrorArguments(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("code", ctypes.c_int),
    )


class _Metadata(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_size_t), ("version", _Version), ("traits", ctypes.c_uint32))


class _Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    )


class _CallFrame(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.POINTER(_Extension)),
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    """Returns oneDNN, loaded."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise OneDNNError(f"{PACKAGE} is not installed: pip install 'zoo[cpu]'") from None
    found = [f for f in files if f.name == "libdnnl.so.3"]
    if not found:
        raise OneDNNError(f"{PACKAGE} has no library for {sys.platform}")
    library = Path(str(found[0].locate())).resolve()
    try:
        for name in NEEDED:  # they lie beside it, where no loader looks
            ctypes.CDLL(str(library.parent / name), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise OneDNNError(f"{PACKAGE} cannot be loaded: {error}") from None


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library(), name)(*arguments)
    if status:
        raise OneDNNError(f"{name} returned {status}")


def _make(name: str, *arguments: Any) -> ctypes.c_void_p:
    """Calls a function of oneDNN that writes a handle to its first argument."""
    handle = ctypes.c_void_p()
    _call(name, ctypes.byref(handle), *arguments)
    return handle


@functools.cache
def _engine() -> ctypes.c_void_p:
    return _make("dnnl_engine_create", _CPU, ctypes.c_size_t(0))


@functools.cache
def _attributes() -> ctypes.c_void_p:
    attributes = _make("dnnl_primitive_attr_create")
    _call("dnnl_primitive_attr_set_scratchpad_mode", attributes, _SCRATCHPAD_BY_USER)
    return attributes


def _dims(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * 12)(*values)


def _description(dims: Sequence[int], tag: int) -> ctypes.c_void_p:
    return _make("dnnl_memory_desc_create_with_tag", len(dims), _dims(dims), _F32, tag)


class _Memory:
    """A place in memory that primitives read or write; its address is set for each call."""

    def __init__(self, description: ctypes.c_void_p) -> None:
        size = _library().dnnl_memory_desc_get_size
        size.restype = ctypes.c_size_t
        self.size = size(description)
        self.handle = _make("dnnl_memory_create", description, _engine(), None)

    def at(self, address: int | None) -> None:
        _call("dnnl_memory_set_data_handle", self.handle, ctypes.c_void_p(address))


class _Primitive:
    """Something oneDNN computes, with the memory it reads and writes."""

    def __init__(self, description: ctypes.c_void_p, memory: dict[int, _Memory]) -> None:
        self.handle = _make("dnnl_primitive_create", description)
        self.scratchpad = _Memory(_query(description, _QUERY_SCRATCHPAD))
        memory = memory | {_SCRATCHPAD: self.scratchpad}
        self.arguments = (_Argument * len(memory))(
            *(_Argument(number, m.handle.value) for number, m in memory.items())
        )

    def run(self, stream: ctypes.c_void_p) -> None:
        _call(
            "dnnl_primitive_execute", self.handle, stream, len(self.arguments), self.arguments
        )


def _query(description: ctypes.c_void_p, what: int) -> ctypes.c_void_p:
    query = _library().dnnl_primitive_desc_query_md
    query.restype = ctypes.c_void_p
    return ctypes.c_void_p(query(description, what, 0))


def _reorder(source: ctypes.c_void_p, target: ctypes.c_void_p) -> ctypes.c_void_p:
    return _make(
        "dnnl_reorder_primitive_desc_create", source, _engine(), target, _engine(), _attributes()
    )


class _Convolution:
    """One of the three products, of one shape.

    oneDNN reads and writes kernels in blocks of its own choice, so a reorder goes before or
    after; images are NHWC. It may be computed by one thread at a time, as its memory is its.
    """

    def __init__(
        self,
        kind: str,
        image: Sequence[int],
        kernel: Sequence[int],
        out: Sequence[int],
        strides: Sequence[int],
        padding: Sequence[int],
        groups: int,
    ) -> None:
        (n, h, w, c), (kh, kw, i, o), (_, oh, ow, _) = image, kernel, out
        source = _description((n, c, h, w), _NHWC)
        target = _description((n, o, oh, ow), _NHWC)
        shape = (o, i, kh, kw) if groups == 1 else (groups, o // groups, i, kh, kw)
        plain = _description(shape, _HWIO if groups == 1 else _HWIGO)
        blocked = _description(shape, _ANY)
        top, bottom, left, right = padding
        window = (_dims(strides), _dims((0, 0)), _dims((top, left)), _dims((bottom, right)))
        hint = _make(
            "dnnl_convolution_forward_primitive_desc_create",
            *(_engine(), _FORWARD, _DIRECT, source, blocked, None, target),
            *(*window, _attributes()),
        )
        if kind == "forward":
            description = hint
        else:
            of = "data" if kind == "input_gradient" else "weights"
            description = _make(
                f"dnnl_convolution_backward_{of}_primitive_desc_create",
                *(_engine(), _DIRECT, source, blocked)
                + ((target,) if of == "data" else (None, target)),
                *(*window, hint, _attributes()),
            )
        query = _QUERY_DIFF_WEIGHTS if kind == "kernel_gradient" else _QUERY_WEIGHTS
        blocked = _query(description, query)
        self.image, self.out, self.kernel = _Memory(source), _Memory(target), _Memory(plain)
        same = bool(_library().dnnl_memory_desc_equal(plain, blocked))
        inner = self.kernel if same else _Memory(blocked)
        self.blocked = None if same else inner
        if kind == "forward":
            numbers = (_SRC, _WEIGHTS, _DST)
            self.order = (self.image, self.kernel, self.out)
        elif kind == "input_gradient":
            numbers = (_DIFF_SRC, _WEIGHTS, _DIFF_DST)
            self.order = (self.out, self.kernel, self.image)
        else:
            numbers = (_SRC, _DIFF_WEIGHTS, _DIFF_DST)
            self.order = (self.image, self.out, self.kernel)
        memory = dict(zip(numbers, (self.image, inner, self.out), strict=True))
        self.primitives = [_Primitive(description, memory)]
        if not same and kind == "kernel_gradient":
            reorder = _reorder(blocked, plain)
            self.primitives.append(_Primitive(reorder, {_SRC: inner, _DST: self.kernel}))
        elif not same:
            reorder = _reorder(plain, blocked)
            self.primitives.insert(0, _Primitive(reorder, {_SRC: self.kernel, _DST: inner}))
        self.stream = _make("dnnl_stream_create", _engine(), 1)
        self.free = max(p.scratchpad.size for p in self.primitives)
        self.lock = threading.Lock()

    def __call__(self, first: int, second: int, result: int) -> None:
        """Computes the product of what lies at two addresses and writes it to a third."""
        sizes = [m.size for m in (self.blocked,) if m] + [self.free]
        space = _Space.take(sum(sizes) + 128)
        try:
            with self.lock:
                address = space.address
                if self.blocked:
                    self.blocked.at(address)
                    address += -(-self.blocked.size // 64) * 64
                for memory, where in zip(self.order, (first, second, result), strict=True):
                    memory.at(where)
                for primitive in self.primitives:
                    primitive.scratchpad.at(address)
                    primitive.run(self.stream)
        finally:
            space.give_back()


class _Space:
    """Memory for the length of one call, kept for the next: the system's is slow to get."""

    _spare: list["_Space"] = []

    def __init__(self, size: int) -> None:
        self.array = np.empty(size + 64, np.uint8)
        self.address = -(-self.array.ctypes.data // 64) * 64

    @classmethod
    def take(cls, size: int) -> "_Space":
        try:
            space = cls._spare.pop()
        except IndexError:
            return cls(size)
        return space if space.array.size >= size + 64 else cls(size)

    def give_back(self) -> None:
        self._spare.append(self)


@functools.lru_cache(maxsize=4096)
def _convolution(*key: Any) -> _Convolution:
    return _Convolution(*key)


def _execute(frame: _CallFrame) -> None:
    first, second = (frame.arguments.buffers[i].contents for i in range(2))
    result = frame.results.buffers[0].contents
    kind, *window = frame.attributes.values[0].contents.data[:8]
    shapes = [tuple(b.dims[:4]) for b in (first, second, result)]
    kind = KINDS[kind]
    image, kernel, out = {
        "forward": lambda x, w, y: (x, w, y),
        "input_gradient": lambda g, w, x: (x, w, g),
        "kernel_gradient": lambda x, g, w: (x, w, g),
    }[kind](*shapes)
    convolution = _convolution(
        kind, image, kernel, out, tuple(window[:2]), tuple(window[2:6]), window[6]
    )
    convolution(first.data, second.data, result.data)


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_CallFrame))
def _handler(pointer: Any) -> int | None:
    frame = pointer.contents
    if frame.extension and frame.extension.contents.type == 1:  # asks for our version
        version = frame.extension.contents.metadata.contents.version
        version.major, version.minor = 0, 0
        if frame.api:
            version.major = frame.api.contents.version.major
            version.minor = frame.api.contents.version.minor
        return None
    try:
        _execute(frame)
    except BaseException as error:  # nothing may escape into C
        message = _ErrorArguments(
            ctypes.sizeof(_ErrorArguments), None, f"oneDNN: {error!r}".encode(), 13
        )
        return frame.api.contents.create_error(ctypes.addressof(message))
    return None


@functools.cache
def _register() -> None:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    address = ctypes.cast(_handler, ctypes.c_void_p)
    jax.ffi.register_ffi_target(TARGET, new(address, None, None), platform="cpu")


def enable() -> None:
    """Lets programs that are compiled for a CPU from now on use oneDNN.

    What was compiled before stays as it is.

    Raises:
      OneDNNError: if oneDNN cannot be used here; nothing has changed then.
    """
    global _enabled
    _library()
    _register()
    _enabled = True


def takes(dtype: Any, window: Window, axes: Any) -> bool:
    """Whether oneDNN is to compute a convolution.

    Args:
      dtype: of the arrays.
      window: of the convolution.
      axes: the context of the lowering; a call cannot be split over devices by the compiler.
    """
    if not _enabled or dtype != jnp.float32 or min(map(min, window.padding)) < 0:
        return False
    if hasattr(axes, "manual_axes"):
        return axes.manual_axes == frozenset(axes.mesh.axis_names)
    return getattr(axes, "num_devices", None) == 1


def convolution(kind: str, first: jax.Array, second: jax.Array, *, window: Window) -> jax.Array:
    """Returns one of the three products of `zoo.ops.convolution`, to be compiled for a CPU."""
    shape = jax.eval_shape(functools.partial(getattr(plain, kind), window=window), first, second)
    numbers = (KINDS.index(kind), *window.strides, *window.padding[0], *window.padding[1])
    call = jax.ffi.ffi_call(TARGET, jax.ShapeDtypeStruct(shape.shape, shape.dtype))
    return call(first, second, window=np.array([*numbers, window.groups], np.int64))
