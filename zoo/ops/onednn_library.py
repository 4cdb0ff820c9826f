"""oneDNN's C interface, version 3, called by ctypes.

Its handles are never given back: they are made once for each shape of a program.
(https://uxlfoundation.github.io/oneDNN/)
"""

from collections.abc import Iterator, Sequence
import contextlib
import ctypes
import functools
from importlib import metadata
from pathlib import Path
import threading
from typing import Any

import numpy as np

PACKAGE = "onednn-cpu-tbb"
NEEDED = ("libintlc.so.5", "libimf.so", "libtbb.so.12")  # of its dependencies

# Of oneapi/dnnl/dnnl_types.h.
_CPU, _IN_ORDER, _FLOAT32, _SCRATCHPAD_OF_USER = 1, 1, 3, 1
_SCRATCHPAD_OF, _SCRATCHPAD = 136, 80  # a query, and an argument
_LINE = 64  # bytes, of the cache


class OneDNNError(RuntimeError):
    """oneDNN is not to be had here, or refused what it was asked for."""


@functools.cache
def library() -> ctypes.CDLL:
    """Returns the library, loaded.

    Raises:
      OneDNNError: if it is not installed or cannot be loaded.
    """
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
        loaded = ctypes.CDLL(str(file))
    except OSError as error:
        raise OneDNNError(f"{PACKAGE} cannot be loaded: {error}") from None
    loaded.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
    loaded.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
    return loaded


def version() -> str:
    """Returns the version of what is loaded, "3.2.0".

    Raises:
      OneDNNError: if nothing can be loaded.
    """

    class Version(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_int) for name in ("major", "minor", "patch"))

    ask = library().dnnl_version
    ask.restype = ctypes.POINTER(Version)
    found = ask().contents
    return f"{found.major}.{found.minor}.{found.patch}"


def call(name: str, *arguments: Any) -> None:
    """Calls a function of oneDNN; raises OneDNNError unless it returns success."""
    status = getattr(library(), name)(*arguments)
    if status:
        raise OneDNNError(f"{name} returned {status}")


def make(name: str, *arguments: Any) -> ctypes.c_void_p:
    """Calls a function whose first argument takes the handle of what it makes."""
    handle = ctypes.c_void_p()
    call(name, ctypes.byref(handle), *arguments)
    return handle


@functools.cache
def engine() -> ctypes.c_void_p:
    """Returns the CPU."""
    return make("dnnl_engine_create", _CPU, ctypes.c_size_t(0))


@functools.cache
def attributes() -> ctypes.c_void_p:
    """Returns what primitives are made with that do nothing besides."""
    return make_attributes()


def make_attributes() -> ctypes.c_void_p:
    """Returns new attributes, by which the scratchpad is given to a primitive."""
    made = make("dnnl_primitive_attr_create")
    call("dnnl_primitive_attr_set_scratchpad_mode", made, _SCRATCHPAD_OF_USER)
    return made


def dims(*values: int) -> Any:
    """Returns numbers as oneDNN takes sizes."""
    return (ctypes.c_int64 * 12)(*values)


def layout(shape: Sequence[int], tag: int) -> ctypes.c_void_p:
    """Returns the description of an array of float32."""
    return make("dnnl_memory_desc_create_with_tag", len(shape), dims(*shape), _FLOAT32, tag)


def strided(shape: Sequence[int], strides: Sequence[int]) -> ctypes.c_void_p:
    """Returns the description of an array of float32 whose numbers lie so many apart."""
    return make(
        "dnnl_memory_desc_create_with_strides",
        *(len(shape), dims(*shape), _FLOAT32, dims(*strides)),
    )


def layout_of(description: ctypes.c_void_p, what: int) -> ctypes.c_void_p:
    """Returns the description of an array that a primitive reads or writes."""
    return ctypes.c_void_p(library().dnnl_primitive_desc_query_md(description, what, 0))


class Place:
    """Memory that primitives read or write. Where it is is said before each use."""

    def __init__(self, layout: ctypes.c_void_p) -> None:
        size = library().dnnl_memory_desc_get_size(layout)
        self.size = -(-size // _LINE) * _LINE
        self.handle = make("dnnl_memory_create", layout, engine(), None)
        self._address = 0

    def put(self, address: int) -> None:
        """Says where it is."""
        if address != self._address:
            call("dnnl_memory_set_data_handle", self.handle, ctypes.c_void_p(address))
            self._address = address


class _Argument(ctypes.Structure):
    _fields_ = (("number", ctypes.c_int), ("place", ctypes.c_void_p))


class Primitive:
    """Something that oneDNN computes, from and to certain places."""

    def __init__(self, description: ctypes.c_void_p, places: dict[int, Place]) -> None:
        self.handle = make("dnnl_primitive_create", description)
        self.scratchpad = Place(layout_of(description, _SCRATCHPAD_OF))
        places = places | {_SCRATCHPAD: self.scratchpad}
        self.arguments = (_Argument * len(places))(
            *(_Argument(number, place.handle.value) for number, place in places.items())
        )

    def run(self, stream: ctypes.c_void_p) -> None:
        """Computes it."""
        call("dnnl_primitive_execute", self.handle, stream, len(self.arguments), self.arguments)


class Program:
    """Primitives that run one after the other, as one call."""

    def __init__(
        self,
        given: Sequence[Place],
        own: Sequence[Sequence[Place]],
        primitives: Sequence[Primitive],
    ) -> None:
        """Takes what was made.

        Args:
          given: places whose addresses come with each call.
          own: places that only its primitives use; each several in one, of which one is in use.
          primitives: in their order.
        """
        self._given, self._primitives = given, primitives
        self._own = [(places, max(place.size for place in places)) for places in own]
        self._size = sum(size for _, size in self._own)
        self._size += max(primitive.scratchpad.size for primitive in primitives)
        self._stream = make("dnnl_stream_create", engine(), _IN_ORDER)
        self._lock = threading.Lock()  # places are set, then used

    def __call__(self, *addresses: int) -> None:
        """Runs it on arrays at these addresses."""
        with _space(self._size) as free, self._lock:
            for place, address in zip(self._given, addresses, strict=True):
                place.put(address)
            for places, size in self._own:
                for place in places:
                    place.put(free)
                free += size
            for primitive in self._primitives:
                primitive.scratchpad.put(free)
                primitive.run(self._stream)


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
