"""Images sorted into a folder for each class: FOLDER/CLASS/name, copied or linked."""

from collections.abc import Iterable, Sequence
import functools
import os
from pathlib import Path
import shutil

from zoo.errors import ConfigError, DataError

UNSURE = "_unsure"  # the folder of what is less probable than was asked for
LONGEST = 255  # bytes of a name, on nearly all file systems


class Sorter:
    """Puts images where their class says. What is there already stays: it was put there before.

    Of several images of the same name the second is called name-2, and so on, in the order of the
    images, whatever their classes: a job that is started again calls each what it was called.

    Args:
      folder: FOLDER.
      paths: of all images.
      class_names: of the model.
      min_probability: what is less probable goes to FOLDER/_unsure.
      link: make symbolic links to where the images are instead of copies.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        class_names: Sequence[str],
        min_probability: float,
        link: bool,
    ):
        self._root, self._paths = folder, paths
        self._min_probability, self._link = min_probability, link
        self._names = distinct([os.path.basename(path) for path in paths])
        classes = dict.fromkeys(class_names)  # ImageNet has two cranes
        folders = distinct([UNSURE, *map(_folder_name, classes)])
        self._folders = dict(zip(classes, folders[1:], strict=True))

    def target(self, index: int, name: str, probability: float) -> Path:
        """Returns where an image belongs, given its class and how probable that is."""
        sure = probability >= self._min_probability
        return self._root / (self._folders[name] if sure else UNSURE) / self._names[index]

    def place(self, index: int, name: str, probability: float) -> None:
        """Puts an image where it belongs, whole or not at all.

        Raises:
          DataError: if it cannot be put there.
        """
        target, path = self.target(index, name, probability), self._paths[index]
        if os.path.lexists(target):
            return
        scratch = self._root / ".image.tmp"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if self._link:
                target.symlink_to(os.path.abspath(path))
            else:
                shutil.copy2(path, scratch)
                scratch.replace(target)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be put into {target.parent} ({error.strerror}); see to it and "
                "start the same command again"
            ) from error
        finally:
            scratch.unlink(missing_ok=True)


def check_is_empty(folder: Path) -> None:
    """Raises ConfigError unless a folder has nothing in it but hidden files, or is not there."""
    if folder.is_dir() and any(not name.startswith(".") for name in os.listdir(folder)):
        raise ConfigError(
            f"--folder-by-class={folder}: has something in it; name a new folder, or empty it"
        )


def outside(paths: Iterable[str], folder: Path) -> list[str]:
    """Returns the paths that are not below a folder."""
    inside = os.path.realpath(folder)

    @functools.lru_cache(1024)
    def is_below(parent: str) -> bool:
        return os.path.commonpath([inside, os.path.realpath(parent)]) == inside

    return [path for path in paths if not is_below(os.path.dirname(path))]


def distinct(names: Sequence[str]) -> list[str]:
    """Returns names of which no two are the same, even where case does not count.

    Example:
      >>> distinct(["a.png", "A.png", "a.png", "a-2.png"])
      ['a.png', 'A-3.png', 'a-4.png', 'a-2.png']
    """
    own, taken = {name.casefold() for name in names}, set()
    last: dict[str, int] = {}
    found = []
    for name in names:
        key, candidate = name.casefold(), name
        while candidate.casefold() in taken or (candidate != name and candidate.casefold() in own):
            last[key] = last.get(key, 1) + 1
            candidate = _numbered(name, last[key])
        taken.add(candidate.casefold())
        found.append(candidate)
    return found


def _numbered(name: str, number: int) -> str:
    stem, suffix = os.path.splitext(name)
    while len(os.fsencode(f"{stem}-{number}{suffix}")) > LONGEST:
        stem = stem[:-1]
    return f"{stem}-{number}{suffix}"


def _folder_name(name: str) -> str:
    """Returns a class's name as that of a folder, which is neither hidden nor a path."""
    safe = "".join("_" if c in "/\\\0" or not c.isprintable() else c for c in name)
    if safe.startswith(".") or not safe:
        safe = f"_{safe[1:]}"
    while len(os.fsencode(safe)) > LONGEST:
        safe = safe[:-1]
    return safe
