"""Reads and writes safetensors files: a JSON header that says where each array lies.

The header is checked here before the library sees the file, more strictly than the library
does: a file is read when it says one thing, and says it to every reader.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import functools
import io
import json
import math
import os
from pathlib import Path
import secrets
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from zoo.errors import WeightsError
from zoo.weights.tensors import Tensor, Tensors

HEADER_LIMIT = 4 * 2**20  # bytes; that of a network with 2,000 arrays has 0.3 million
TENSOR_LIMIT = 10_000
NAME_LIMIT = 512
RANK_LIMIT = 32

# What a number in the header may be at most; larger ones would make products slow.
NUMBER_LIMIT = 2**63

# NumPy's names. Integers are counters; float8 and the like need scales that are not ours.
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    **{f"I{bits}": f"int{bits}" for bits in (64, 32, 16, 8)},
    **{f"U{bits}": f"uint{bits}" for bits in (64, 32, 16, 8)},
}
CODES = {name: code for code, name in DTYPES.items()}

# How other files begin that are saved under the name of a safetensors file.
MISTAKEN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file: fetch it with `git lfs pull`"),
    (b"\x89HDF", "an HDF5 file: if it holds Keras weights, name it .h5"),
    (b"PK", "a zip archive, as of torch: python -m zoo convert reads a state dict"),
    (b"\x80", "a torch pickle: python -m zoo convert reads it if it holds a state dict"),
    (b"<", "a web page, not the file: check the link, on a hub it has /resolve/, not /blob/"),
    (b"{", "JSON text: if it is the index of several files, name those"),
)


class Entry(NamedTuple):
    """An array as the header declares it; `start` and `stop` count behind the header."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    stop: int


class Header(NamedTuple):
    """A header that was checked."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


@contextlib.contextmanager
def open_safetensors(paths: Sequence[str | Path]) -> Iterator[Tensors]:
    """Yields the tensors of one file, or of the files that one set is spread over.

    Nothing but headers is read before a tensor's `read`, which reads this tensor alone.

    Raises:
      WeightsError: if a file is missing, is something else, is damaged or contradicts
        itself, or if two of them have a tensor of the same name.
    """
    try:
        import safetensors
    except ImportError as error:
        raise WeightsError(
            f"{paths[0]}: safetensors files need a library: pip install 'zoo[weights]' ({error})"
        ) from error
    tensors: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for path in map(Path, paths):
            entries = read_header(path).entries
            try:
                # Not its mmap: that ends the process when the file shrinks.
                file = stack.enter_context(safetensors.safe_open(path, "np", backend="pread"))
            except (safetensors.SafetensorError, OSError) as error:
                raise WeightsError(f"{path}: is no safetensors file ({error})") from error
            for name, entry in entries.items():
                if name in tensors:
                    raise WeightsError(
                        f"{path}: tensor {name!r} is in another of the files as well; name the "
                        "files of one set only"
                    )
                read = functools.partial(_read, file, path, name, entry)
                tensors[name] = Tensor(entry.shape, entry.dtype, read)
        yield tensors


def _read(file: Any, path: Path, name: str, entry: Entry) -> np.ndarray:
    from safetensors import SafetensorError

    try:
        array = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: tensor {name!r} cannot be read ({error}); the file was closed, or changed "
            "since it was opened"
        ) from error
    if (array.shape, array.dtype) != (entry.shape, _numpy_dtype(entry.dtype)):
        raise WeightsError(f"{path}: the file was replaced while it was read; start again")
    return array


def read_metadata(path: str | Path) -> dict[str, str]:
    """Returns the strings that a file carries besides its tensors.

    Raises:
      WeightsError: as `open_safetensors` does.
    """
    return read_header(Path(path)).metadata


def read_header(path: Path) -> Header:
    """Returns what a file declares, after every check that needs no data.

    Raises:
      WeightsError: if it is missing, is something else, is damaged or contradicts itself.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(64)
        length = int.from_bytes(start[:8], "little")
        if start[8:9] != b"{":
            raise WeightsError(f"{path}: is {what_it_is(start)}")
        if length > HEADER_LIMIT:
            raise WeightsError(
                f"{path}: declares a header of {length} bytes, at most {HEADER_LIMIT} are read; "
                "save the weights of one network, without large metadata"
            )
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        raise WeightsError(f"{path}: {_cut_short(size, 8 + length)}")
    try:
        return _parse(text, size - 8 - length)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except RecursionError:
        raise WeightsError(f"{path}: the header nests too deep; save it again") from None


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a file for reading; folders, devices and pipes are refused.

    Raises:
      WeightsError: if that fails.
    """
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path}: is no regular file; name the file that holds the weights")
        return path.open("rb")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def what_it_is(start: bytes) -> str:
    """Returns what a file that is not one of weights looks like, by its first bytes.

    Example:
      >>> what_it_is(b"<!DOCTYPE html>")
      'a web page, not the file: check the link, on a hub it has /resolve/, not /blob/'
    """
    if not start:
        return "empty, 0 bytes: download or save it again"
    for magic, meaning in MISTAKEN:
        if start.lstrip().startswith(magic):
            return meaning
    begins = start[:8].hex(" ")
    return f"no file of weights that is known here (it begins with {begins}): download it again"


def _cut_short(size: int, promised: int) -> str:
    return f"has {size} bytes of {promised} and was cut short: download or save it again"


def _parse(text: bytes, data_size: int) -> Header:
    """Returns the header that a text is, for that many bytes of data behind it."""
    try:
        declared = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"the header is no JSON ({error}); download it again") from None
    if not isinstance(declared, dict):
        raise WeightsError("the header is no JSON object; download or save it again")
    metadata = declared.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise WeightsError("'__metadata__' may hold strings only; save it again without")
    if len(declared) > TENSOR_LIMIT:
        raise WeightsError(
            f"declares {len(declared)} tensors, at most {TENSOR_LIMIT} are read; name the file of "
            "one network"
        )
    entries = {}
    for name, value in declared.items():
        check_name(name)
        entries[name] = _entry(name, value)
    _check_places(entries, data_size)
    return Header(entries, metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two equal keys they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise WeightsError(f"the header has {twice[:80]!r} twice; save it again")
    return found


def check_name(name: str) -> None:
    """Refuses names that could do harm as a path, in a terminal or in a message.

    Raises:
      WeightsError: naming the name, without the file.
    """
    parts = name.replace("\\", "/").split("/")
    if not (0 < len(name) <= NAME_LIMIT and name.isprintable()) or parts[0] == "" or ".." in parts:
        raise WeightsError(
            f"tensor name {name[:80]!r} is not allowed: 1 to {NAME_LIMIT} printable characters, "
            "no absolute path and no '..'; rename the tensor"
        )


def _entry(name: str, value: Any) -> Entry:
    """Returns an array's declaration, whose three fields agree with each other."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"tensor {name!r} must have dtype, shape and data_offsets, only those")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise WeightsError(
            f"tensor {name!r} has dtype {str(code)[:40]!r}, read are {', '.join(DTYPES)}; "
            "save it as one of these"
        )
    if not _are_numbers(shape) or len(shape) > RANK_LIMIT:
        raise WeightsError(f"tensor {name!r} has shape {str(shape)[:80]}, which is none")
    if not _are_numbers(offsets) or len(offsets) != 2:
        raise WeightsError(f"tensor {name!r} has data_offsets {str(offsets)[:80]}, no range")
    size = math.prod(shape) * _numpy_dtype(DTYPES[code]).itemsize
    if offsets[1] - offsets[0] != size:
        raise WeightsError(
            f"tensor {name!r} {code} {shape} takes {size} bytes, its data_offsets {offsets} "
            f"are {offsets[1] - offsets[0]}; download or save it again"
        )
    return Entry(tuple(shape), DTYPES[code], offsets[0], offsets[1])


def _are_numbers(value: Any) -> bool:
    """Says whether this is a list of sizes; a bool is an int to Python, not to others."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < NUMBER_LIMIT for n in value)


def _numpy_dtype(name: str) -> np.dtype:
    # NumPy, and so the library, knows bfloat16 only once JAX has brought it.
    return np.dtype(jnp.bfloat16 if name == "bfloat16" else name)


def _check_places(entries: Mapping[str, Entry], data_size: int) -> None:
    """Refuses arrays that overlap, leave bytes out, or do not end where the file ends."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != end:
            kind = "overlaps another" if entry.start < end else "leaves a hole in front"
            raise WeightsError(f"tensor {name!r} {kind}; save it again")
        end = entry.stop
    if data_size < end:
        raise WeightsError(f"its arrays' part {_cut_short(data_size, end)}")
    if data_size > end:
        raise WeightsError(
            f"has {data_size - end} bytes behind the last tensor; download or save it again"
        )


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a file that is there completely or not at all.

    The same arrays and strings give the same bytes, whatever their order: wide dtypes come
    first, so that every array is aligned, and then the names decide.

    Raises:
      WeightsError: if a name or a dtype is not one that `open_safetensors` reads.
      OSError: if the disk is full or the folder cannot be written to.
    """
    arrays = {name: _little_endian(np.asarray(array)) for name, array in arrays.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        array = arrays[name]
        code = CODES.get(array.dtype.name, array.dtype.name)
        place = [end, end := end + array.nbytes]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": place}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    if len(text) > HEADER_LIMIT:
        raise WeightsError(f"{path}: needs a header of {len(text)} bytes, more than is read")
    try:
        _parse(text, end)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            # As bytes: bfloat16 has no buffer of its own.
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)


def _little_endian(array: np.ndarray) -> np.ndarray:
    """Returns an array in the file's byte order; HDF5 files may hold the other one."""
    return array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a new file beside a path, which takes its place when all is on the disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name has to reach the disk, too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
