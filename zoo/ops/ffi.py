"""Python functions as calls within programs that XLA compiled for a CPU.

XLA's foreign function interface hands over the addresses of arrays, which are read and written
in place (https://docs.jax.dev/en/latest/ffi.html). Its C structures are declared here, as far as
they are read, instead of compiling a wrapper. A call costs some 30 microseconds of Python.
"""

import _thread
import ast
import atexit
from collections.abc import Callable, Sequence
import contextlib
import ctypes
import functools
from typing import Any, NamedTuple

import jax
from jax._src import xla_bridge  # whether JAX has started has no public name

_INTERNAL_ERROR = 13
_METADATA = 1  # the kind of extension by which XLA asks for our version


class Array(NamedTuple):
    """An argument or a result.

    Attributes:
      address: of its first element; its elements are contiguous, the last axis fastest.
      shape: of the array.
    """

    address: int
    shape: tuple[int, ...]


# What is called, with (numbers, arguments, results).
Function = Callable[[tuple[Any, ...], Sequence[Array], Sequence[Array]], None]


def _structure(name: str, *fields: tuple[str, Any], sized: bool = True) -> Any:
    """Returns a C structure; most of XLA's begin with their size and a list of extensions."""
    head = (("struct_size", ctypes.c_size_t), ("extension", ctypes.c_void_p)) if sized else ()
    return type(name, (ctypes.Structure,), {"_fields_": (*head, *fields)})


# Of xla/ffi/api/c_api.h, major version 0; fields are only ever added behind those there are.
_Buffer = _structure(
    "_Buffer",
    ("dtype", ctypes.c_int),
    ("data", ctypes.c_void_p),
    ("rank", ctypes.c_int64),
    ("dims", ctypes.POINTER(ctypes.c_int64)),
)
_Buffers = _structure(
    "_Buffers",
    ("size", ctypes.c_int64),
    ("types", ctypes.c_void_p),
    ("buffers", ctypes.POINTER(ctypes.POINTER(_Buffer))),
)
_Text = _structure("_Text", ("data", ctypes.c_void_p), ("size", ctypes.c_size_t), sized=False)
_Attributes = _structure(
    "_Attributes",
    ("size", ctypes.c_int64),
    ("types", ctypes.c_void_p),
    ("names", ctypes.c_void_p),
    ("values", ctypes.POINTER(ctypes.POINTER(_Text))),
)
_Version = _structure("_Version", ("major", ctypes.c_int), ("minor", ctypes.c_int))
_Error = _structure("_Error", ("message", ctypes.c_char_p), ("code", ctypes.c_int))
_Api = _structure(
    "_Api",
    ("version", _Version),
    ("internal", ctypes.c_void_p),
    ("create_error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Error))),
)
_Metadata = _structure(
    "_Metadata", ("struct_size", ctypes.c_size_t), ("version", _Version), sized=False
)
_Extension = _structure(
    "_Extension",
    ("struct_size", ctypes.c_size_t),
    ("kind", ctypes.c_int),
    ("next", ctypes.c_void_p),
    ("metadata", ctypes.POINTER(_Metadata)),
    sized=False,
)
_CallFrame = _structure(
    "_CallFrame",
    ("struct_size", ctypes.c_size_t),
    ("extension", ctypes.POINTER(_Extension)),
    ("api", ctypes.POINTER(_Api)),
    ("context", ctypes.c_void_p),
    ("stage", ctypes.c_int),
    ("arguments", _Buffers),
    ("results", _Buffers),
    ("attributes", _Attributes),
    sized=False,
)
_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_CallFrame))

_declared: dict[str, Function] = {}
_handlers: dict[str, Any] = {}  # XLA keeps their addresses for as long as the process lives


def declare(target: str, function: Function) -> None:
    """Gives a function a name, by which `call` finds it.

    It may run in any thread, in several at once; what it raises becomes the error of the program
    that called it.

    Args:
      target: its name in programs; part of what is compiled and kept, so it must stay.
      function: takes the numbers of the call, its arguments and its results.
    """
    _declared[target] = function


def register() -> None:
    """Makes known to XLA what was declared, for programs that come from elsewhere."""
    for target, function in _declared.items():
        if target not in _handlers:
            _register(target, function)


def _register(target: str, function: Function) -> None:
    def handle(pointer: Any) -> int | None:
        frame = pointer.contents
        if frame.extension and frame.extension.contents.kind == _METADATA:
            version = frame.extension.contents.metadata.contents.version
            known = frame.api.contents.version
            version.major, version.minor = known.major, known.minor
            return None
        try:
            text = frame.attributes.values[0].contents
            numbers = _read(ctypes.string_at(text.data, text.size))
            function(numbers, _arrays(frame.arguments), _arrays(frame.results))
        except BaseException as error:  # nothing may escape into C
            if isinstance(error, KeyboardInterrupt):
                _thread.interrupt_main()
            text = f"{target}: {type(error).__name__}: {error}".encode()
            report = _Error(ctypes.sizeof(_Error), None, text, _INTERNAL_ERROR)
            return frame.api.contents.create_error(ctypes.byref(report))
        return None

    handler = _Handler(handle)
    if not _handlers:
        # A program that is still running when Python ends would wait for Python for ever. So it
        # runs within the call, where JAX has not started yet and there is one device,
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        # and what else is left is waited for.
        atexit.register(_wait)
    _handlers[target] = handler
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    new_capsule = kind(("PyCapsule_New", ctypes.pythonapi))
    capsule = new_capsule(ctypes.cast(handler, ctypes.c_void_p), None, None)
    jax.ffi.register_ffi_target(target, capsule, platform="cpu")


@functools.lru_cache(maxsize=4096)
def _read(text: bytes) -> tuple[Any, ...]:
    """Returns the numbers of a call, which are a text in the program."""
    return ast.literal_eval(text.decode())


def _wait() -> None:
    if not xla_bridge.backends_are_initialized():
        return
    for array in jax.live_arrays("cpu"):
        with contextlib.suppress(Exception):  # a program that failed has told whoever waited
            array.block_until_ready()


def _arrays(buffers: Any) -> list[Array]:
    found = (buffers.buffers[i].contents for i in range(buffers.size))
    return [Array(b.data or 0, tuple(b.dims[: b.rank])) for b in found]


def call(target: str, numbers: Sequence[Any], *arguments: jax.Array, result: Any) -> Any:
    """Returns what a declared function writes, within a program for the CPU.

    Args:
      target: its name.
      numbers: handed to it as they are; also texts, and tuples of either.
      *arguments: arrays.
      result: shape and type of what it writes, or a list of several.
    """
    register()
    result = jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype), result)
    return jax.ffi.ffi_call(target, result)(*arguments, numbers=repr(tuple(numbers)))
