"""Folders of images: train/CLASS/x.jpg, as Keras and torchvision read them, or with a table.

Without folders for splits, CLASS/x.jpg, all there is is the split `train`.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.data.files import images_below
from zoo.data.source import Target, digest, parse_split, slice_bounds
from zoo.data.table import TABLE, Table, read_table, targets_of
from zoo.errors import ConfigError, DataError
from zoo.images import Encoded, decode, is_image_name, read_image, to_array

SPLIT_NAMES = {"validation": ("validation", "val", "valid"), "test": ("test",)}


class Listing(NamedTuple):
    """The N images of a split.

    Attributes:
      names: of the classes, or of the K numbers of each image.
      paths: [N].
      targets: labels, int64 [N], or numbers, float32 [N, K].
    """

    names: tuple[str, ...]
    paths: list[Path]
    targets: np.ndarray


class FolderSource:
    """One split of a folder of images.

    Classes are the sorted folder names of `train`. Class folders may be nested and may be
    links; names that begin with a dot and files that do not end like an image are passed
    over. If there is a table instead, `train/metadata.csv`, it says which images there are
    and what belongs to each: numbers, or the name of a class; see `zoo.data.table`.

    The examples are held in one fixed shuffled order, so that a slice such as
    `train[90%:]` has all classes.

    Args:
      root: the folder that holds the splits; if there is no folder of a split's name in it, what
        it holds is `train` itself.
      split: a folder in it, with an optional slice; `validation` is also found as `val`
        and `valid`.

    Raises:
      ConfigError: for a split that is not there.
      DataError: for an empty class, a class that training does not have, or a wrong table.
    """

    def __init__(self, root: str, split: str):
        name, start, stop = parse_split(split)
        self._root = Path(root)
        folder = self._find(name)
        train = folder if name == "train" else self._find("train")
        with_table = (train / TABLE).is_file()
        if (folder / TABLE).is_file() != with_table:
            has, lacks = (train, folder) if with_table else (folder, train)
            raise DataError(
                f"{has / TABLE}: there is none in {lacks}; give all splits a table, or none"
            )
        listing = _list_table(folder, train) if with_table else _list_classes(folder, train)
        count = len(listing.paths)
        order = np.argsort(np.random.Philox(key=[0, 0]).random_raw(count), kind="stable")
        order = order[slice(*slice_bounds(start, stop, count))]
        self.class_names = listing.names
        self.labels = listing.targets[order]
        self.target_shape = self.labels.shape[1:]
        self._paths = [listing.paths[i] for i in order]
        files = [(os.fsencode(p.relative_to(self._root)), p.stat().st_size) for p in self._paths]
        # Of class folders the paths say all.
        self.fingerprint = digest(self.class_names, files, *[self.labels] * with_table)

    def _find(self, name: str) -> Path:
        found = find_split(self._root, name)
        if found is not None:
            return found
        if not self._root.is_dir():
            raise ConfigError(f"config.data.name=folder:{self._root}: no such folder")
        whole = find_split(self._root, "train") == self._root
        has = "'train', which is all of it" if whole else _folders(self._root)
        raise ConfigError(
            f"folder:{self._root} has no split {name!r}, only {has}. Take a "
            "slice of another, as in --config.data.train_split='train[:90%]' "
            "--config.data.validation_split='train[90%:]', or switch it off with ''"
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        encoded, target = self.encoded(index)
        return to_array(decode(encoded)), target

    def encoded(self, index: int) -> tuple[Encoded, Target]:
        """Returns the file's content and the target."""
        target = self.labels[index]
        return read_image(self._paths[index]), target if self.target_shape else int(target)

    def describe(self, index: int) -> str:
        return str(self._paths[index])


def find_split(root: Path, name: str) -> Path | None:
    """Returns the folder of a split, None if there is none.

    Args:
      root: what is looked at.
      name: of the split; `train` is also found in `root` itself, if that has no folder of any
        split's name, but a table, or folders with images right in them.
    """
    for candidate in SPLIT_NAMES.get(name, (name,)):
        if (root / candidate).is_dir():
            return root / candidate
    splits = (candidate for names in SPLIT_NAMES.values() for candidate in names)
    if name != "train" or not root.is_dir() or any((root / split).is_dir() for split in splits):
        return None
    of_classes = (
        any(is_image_name(path) for path in (root / folder).iterdir()) for folder in _folders(root)
    )
    return root if (root / TABLE).is_file() or any(of_classes) else None


def _list_classes(folder: Path, train: Path) -> Listing:
    """Lists a folder of class folders."""
    names = tuple(_folders(train))
    if not names:
        raise DataError(
            f"{train}: has no class folders; wanted {train}/CLASS/image.jpg, or {train / TABLE}"
        )
    strangers = sorted(set(_folders(folder)) - set(names))
    if strangers:
        raise DataError(
            f"{folder}: class {strangers[0]!r} is not among the {len(names)} classes of {train}"
        )
    paths, labels = [], []
    for label, name in enumerate(names):
        found = _images_below(folder / name) if (folder / name).is_dir() else []
        if not found and folder == train:
            raise DataError(f"{folder / name}: class folder without an image in it")
        paths += found
        labels += [label] * len(found)
    return Listing(names, paths, np.asarray(labels, np.int64))


def _list_table(folder: Path, train: Path) -> Listing:
    """Lists a folder with a table."""
    table = read_table(folder / TABLE)
    _check_no_class_folders(folder, table)
    given = table if folder == train else read_table(train / TABLE)
    names, targets = targets_of(table, given)
    return Listing(names, list(table.images), targets)


def _check_no_class_folders(folder: Path, table: Table) -> None:
    """Raises DataError if there are images in folders, and the table names none of them."""
    if any(path.parent != folder for path in table.images):
        return
    for name in _folders(folder):
        if _images_below(folder / name):
            raise DataError(
                f"{folder}: has {TABLE}, and images in folders such as {name!r}, of which it names "
                f"none. If folders are classes, move {TABLE} away; if not, move the folders"
            )


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    """Returns the image files below a folder, sorted."""
    return sorted(map(Path, images_below(str(folder))))
