"""Images without labels, by their names: single files, folders, patterns, lists."""

from collections.abc import Iterable, Iterator, Sequence
import fnmatch
import functools
import glob
import os
from pathlib import Path
import re

import numpy as np

from zoo.data.source import digest
from zoo.errors import ConfigError, DataError
from zoo.images import EXTENSIONS, Encoded, decode, is_image_name, read_image, to_array

_DEEP = re.compile(r"(?<![^/])\*\*(?![^/])")  # ** as a whole part of a path


class FilesSource:
    """Images that nobody has labelled. Each has a target of no numbers, float32 [0].

    Files are not looked into before they are wanted, and may be missing or no images.

    Args:
      paths: of the files; see `list_images`.
    """

    class_names: tuple[str, ...] = ()
    target_shape = (0,)

    def __init__(self, paths: Sequence[str]):
        self.paths = list(paths)

    @property
    def fingerprint(self) -> str:
        """A digest of names and sizes, as they are when it is asked for."""
        return digest([(os.fsencode(p), _size(p)) for p in self.paths])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        encoded, target = self.encoded(index)
        return to_array(decode(encoded)), target

    def encoded(self, index: int) -> tuple[Encoded, np.ndarray]:
        """Returns the file's content and a target of no numbers."""
        return read_image(self.paths[index]), np.zeros(0, np.float32)

    def describe(self, index: int) -> str:
        return self.paths[index]


def _size(path: str) -> int:
    """Returns a file's size in bytes, -1 if there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def list_images(inputs: Iterable[str]) -> list[str]:
    """Returns the image files that are meant, each once, written as they were given.

    They are in the order of their names' bytes, whatever the order of the inputs.

    Args:
      inputs: files, whatever their names; folders, of which all images are meant, at any depth;
        patterns, in which * and ? stand for parts of a name, [ab] for one of these characters and
        ** for folders at any depth. In folders and by patterns only files are found that end like
        an image and, with the folders they are in, do not begin with a dot.

    Raises:
      ConfigError: for an input that is not there, or a pattern that matches nothing.
      DataError: for a folder without images, or that cannot be read.
    """
    return without_repeats(path for given in inputs for path in _expand(given))


def read_list(content: bytes, separator: bytes = b"\n") -> list[str]:
    r"""Returns the files that a list names, each once, in the order of their names' bytes.

    They may be missing: that is found when they are read.

    Args:
      content: of the list: the path of a file between one separator and the next.
      separator: a newline, or NUL where names may hold newlines.

    Example:
      >>> read_list(b"b.jpg\na.jpg\n\na.jpg\n")
      ['a.jpg', 'b.jpg']
    """
    return without_repeats(os.fsdecode(line) for line in content.split(separator) if line)


def without_repeats(paths: Iterable[str]) -> list[str]:
    """Returns paths sorted by their bytes, one for each entry of a folder.

    Of several spellings, as in "a.jpg" and "./a.jpg", the first is kept.
    """
    real = functools.lru_cache(1024)(os.path.realpath)
    found: dict[tuple[str, str], str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        found.setdefault((real(folder), name), path)
    return sorted(found.values(), key=os.fsencode)


def to_text(path: str) -> str:
    r"""Returns a path as text that any file can hold: \xNN stands for a byte that is no UTF-8.

    Nearly all paths stay as they are; of the others `to_path` makes the same again.

    Example:
      >>> to_text("caf\udce9.png"), to_text("café.png"), to_text(r"a\xb.png")
      ('caf\\xe9.png', 'café.png', 'a\\x5cxb.png')
    """
    # A \x that is in the name itself must not look like one of ours.
    return os.fsencode(path).replace(rb"\x", rb"\x5cx").decode("utf-8", "backslashreplace")


def to_path(text: str) -> str:
    r"""Returns the path of which `to_text` made this.

    Example:
      >>> to_path(r"caf\xe9.png"), to_path(r"a\x5cxb.png")
      ('caf\udce9.png', 'a\\xb.png')
    """
    found = re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()), text.encode())
    return os.fsdecode(found)


def images_below(folder: str) -> list[str]:
    """Returns the image files below a folder, following links but not loops.

    Files and folders whose names begin with a dot are passed over.

    Raises:
      DataError: if it cannot be read.
    """
    return [path for path in _files_below(folder) if is_image_name(Path(path))]


def _files_below(folder: str) -> Iterator[str]:
    seen = set()
    for here, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        paths = (os.path.join(here, f) for f in files if not f.startswith("."))
        yield from (path for path in paths if os.path.exists(path))


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _expand(given: str) -> list[str]:
    """Returns the files that one input means."""
    if os.path.isdir(given):
        found = images_below(given)
        if not found:
            raise DataError(f"{given}: has no images ({', '.join(EXTENSIONS)}) at any depth")
        return found
    if os.path.lexists(given):
        return [given]
    if not glob.has_magic(given):
        raise ConfigError(f"{given!r}: no such file or folder")
    matches = _matches(given)
    found = [path for path in matches if is_image_name(Path(path))]
    if not found:
        raise ConfigError(
            f"{given!r}: matches {len(matches)} files, of which none ends like an image "
            f"({', '.join(EXTENSIONS)})"
            if matches
            else f"{given!r}: no such file or folder, and as a pattern it matches nothing"
        )
    return found


def _matches(pattern: str) -> list[str]:
    """Returns the files that match a pattern, or are in folders that do.

    Unlike the standard library's, ** does not go round in circles where links lead back.
    """
    head, *tail = _DEEP.split(pattern, maxsplit=1)
    if not tail:
        found = filter(os.path.exists, glob.glob(pattern))
        return [f for p in found for f in (_files_below(p) if os.path.isdir(p) else [p])]
    wanted = ["**", *filter(None, tail[0].split("/"))]
    found = []
    for root in glob.glob(head) if head else [""]:
        for path in _files_below(root or os.curdir):
            path = path if root else path.removeprefix("./")
            parts = path[len(root) :].strip("/").split("/")
            if any(_fits(parts[:count], wanted) for count in range(1, len(parts) + 1)):
                found.append(path)
    return found


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path are those that the parts of a pattern stand for."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[count:], pattern[1:]) for count in range(len(parts) + 1))
    return (
        bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
    )
