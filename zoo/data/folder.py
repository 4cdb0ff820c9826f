"""Folders of images: ROOT/train/CLASS/x.jpg, as Keras and torchvision read them."""

import os
from pathlib import Path

import numpy as np

from zoo.data.source import digest, parse_split, slice_bounds
from zoo.errors import ConfigError, DataError
from zoo.images import decode_image, is_image_name

SPLIT_NAMES = {"validation": ("validation", "val", "valid"), "test": ("test",)}


class FolderSource:
    """One split of a folder of images. Classes are the sorted folder names of `train`.

    The examples are held in one fixed shuffled order, so that a slice such as
    `train[90%:]` has all classes. Class folders may be nested and may be links; names
    that begin with a dot and files that do not end like an image are passed over.

    Args:
      root: the folder that holds the splits.
      split: a folder in it, with an optional slice; `validation` is also found as `val`
        and `valid`.

    Raises:
      ConfigError: for a split that is not there.
      DataError: for an empty class, or a class that training does not have.
    """

    def __init__(self, root: str, split: str):
        name, start, stop = parse_split(split)
        self._root = Path(root)
        folder = self._find(name)
        train = folder if name == "train" else self._find("train")
        self.class_names = tuple(_folders(train))
        if not self.class_names:
            raise DataError(f"{train}: has no class folders; wanted {train}/CLASS/image.jpg")
        strangers = sorted(set(_folders(folder)) - set(self.class_names))
        if strangers:
            raise DataError(
                f"{folder}: class {strangers[0]!r} is not among the {len(self.class_names)} "
                f"classes of {train}"
            )
        paths, labels = [], []
        for label, class_name in enumerate(self.class_names):
            found = _images_below(folder / class_name) if (folder / class_name).is_dir() else []
            if not found and name == "train":
                raise DataError(f"{folder / class_name}: class folder without an image in it")
            paths += found
            labels += [label] * len(found)
        order = np.argsort(np.random.Philox(key=[0, 0]).random_raw(len(paths)), kind="stable")
        order = order[slice(*slice_bounds(start, stop, len(paths)))]
        self._paths = [paths[i] for i in order]
        self.labels = np.asarray(labels, np.int64)[order]
        files = [(os.fsencode(p.relative_to(self._root)), p.stat().st_size) for p in self._paths]
        self.fingerprint = digest(self.class_names, files)

    def _find(self, name: str) -> Path:
        for candidate in SPLIT_NAMES.get(name, (name,)):
            if (self._root / candidate).is_dir():
                return self._root / candidate
        if not self._root.is_dir():
            raise ConfigError(f"config.data.name=folder:{self._root}: no such folder")
        raise ConfigError(
            f"folder:{self._root} has no split {name!r}, only {_folders(self._root)}. Take a "
            "slice of another, as in --config.data.train_split='train[:90%]' "
            "--config.data.validation_split='train[90%:]', or switch it off with ''"
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return decode_image(self._paths[index]), int(self.labels[index])

    def describe(self, index: int) -> str:
        return str(self._paths[index])


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    """Returns the image files below a folder, sorted, following links but not loops."""
    found, seen = [], set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        candidates = (Path(here) / f for f in files if not f.startswith("."))
        found += [p for p in candidates if is_image_name(p) and p.exists()]
    return sorted(found)
