"""What a dataset is to the rest of zoo, and the one door through which all come in."""

from collections.abc import Sequence
import hashlib
import re
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from zoo.errors import ConfigError, DataError, suggest

Target: TypeAlias = int | np.ndarray


class Source(Protocol):
    """Random access to images with targets. Safe to read from several threads.

    A source of files may have a method `encoded(index)` as well, which returns the file's content,
    `zoo.images.Encoded`, in the image's place: a random part needs not all of it decoded.

    A target is a label, or K numbers, float32 [K]: labels of which several may be true, values
    to predict. A source of the latter has an attribute `target_shape`, (K,).

    Attributes:
      class_names: the names of the classes, in label order, or of the K numbers.
    """

    class_names: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """A digest of what the source holds; it changes when the data change."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Returns the image, uint8 [H, W, C] with C = 1 or 3, and its target."""
        ...

    def describe(self, index: int) -> str:
        """Returns where an example comes from, for messages: a path or a position."""
        ...


class Splits(NamedTuple):
    """The three sources of a run; validation and test may be absent."""

    train: Source
    validation: Source | None
    test: Source | None


class ArraySource:
    """Images and targets in memory.

    Args:
      images: uint8 [N, H, W] or [N, H, W, C] with C = 1 or 3.
      labels: integers [N], from 0 to len(class_names) - 1; or numbers [N, K], see `Source`.
      class_names: the names of the classes or of the K numbers; by default "0", "1", …
      name: what to call the source in messages.

    Raises:
      DataError: for another dtype, shape or label.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str] | None = None,
        name: str = "array",
    ):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8:
            raise DataError(f"{name}: images must be uint8 (0 to 255), got {images.dtype}")
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise DataError(f"{name}: images must be [N, H, W, 1 or 3], got {images.shape}")
        are_labels = labels.ndim == 1 and labels.dtype.kind in "iu"
        are_numbers = labels.ndim == 2 and labels.dtype.kind in "iuf"
        if len(labels) != len(images) or not (are_labels or are_numbers):
            raise DataError(
                f"{name}: labels must be {len(images)} integers, or numbers [{len(images)}, K], "
                f"got {labels.dtype} {labels.shape}"
            )
        self.labels = labels.astype(np.int64 if are_labels else np.float32)
        self.target_shape = labels.shape[1:]
        count = labels.shape[1] if are_numbers else int(self.labels.max(initial=-1)) + 1
        self.class_names = tuple(map(str, range(count)) if class_names is None else class_names)
        if are_labels:
            check_labels(self.labels, len(self.class_names), name)
        elif len(self.class_names) != count:
            raise DataError(f"{name}: {len(self.class_names)} names for {count} numbers each")
        self._images, self._name = images, name
        self.fingerprint = digest(self.class_names, images.shape, images, self.labels)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        label = self.labels[index]
        return self._images[index], label if self.target_shape else int(label)

    def describe(self, index: int) -> str:
        return f"{self._name} example {index}"


def check_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Raises DataError at the first label outside 0 … num_classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"{name}: example {wrong[0]} has label {labels[wrong[0]]}, allowed are 0 to "
            f"{num_classes - 1} ({len(wrong)} such labels)"
        )


def digest(*parts: object) -> str:
    """Returns a short digest of arrays (by their bytes) and other values (by repr)."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(np.ascontiguousarray(part).data)
        else:
            state.update(repr(part).encode())
    return state.hexdigest()


_SPLIT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def parse_split(spec: str) -> tuple[str, str | None, str | None]:
    """Splits TFDS's slice notation: `"train[:90%]"` gives `("train", None, "90%")`.

    Raises:
      ConfigError: for anything else.
    """
    match = _SPLIT.fullmatch(spec)
    if match is None:
        raise ConfigError(
            f"split {spec!r}: write a name and at most one slice, as in 'train', "
            "'train[:55000]', 'train[90%:]'"
        )
    return match["name"], match["start"], match["stop"]


def slice_bounds(start: str | None, stop: str | None, size: int) -> tuple[int, int]:
    """Returns the absolute bounds of a slice such as `[10%:-100]` of `size` examples."""

    def position(text: str | None, default: int) -> int:
        if text is None:
            return default
        value = round(size * int(text[:-1]) / 100) if text.endswith("%") else int(text)
        return min(max(value + size if value < 0 else value, 0), size)

    return position(start, 0), position(stop, size)


KINDS = ("a TFDS name such as mnist", "idx:/path", "folder:/path", "mock:CLASSES")
OURS = ("folder", "idx", "mock")  # those that are not TFDS's


def _open_ours(kind: str, path: str, split: str) -> Source:
    """Opens one split of a kind of `OURS`; only that kind's module is imported."""
    if kind == "folder":
        from zoo.data.folder import FolderSource

        return FolderSource(path, split)
    if kind == "idx":
        from zoo.data.idx import open_idx

        return open_idx(path, split)
    from zoo.data.mock import open_mock

    return open_mock(path, split)


def open_splits(
    name: str,
    *,
    train: str,
    validation: str,
    test: str,
    data_dir: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
) -> Splits:
    """Opens a dataset by name.

    Args:
      name: a TFDS name (`mnist`, `imagenet2012:5.1.0`), `idx:/path` for the MNIST family's
        own files, `folder:/path` for train/CLASS/x.jpg or a table, train/metadata.csv (see
        `zoo.data.table`), or `mock:CLASSES` for noise.
      train: the split to train on, in TFDS's notation: `train`, `train[:90%]`.
      validation: the split to validate on; empty for none.
      test: the split for the final figure; empty for none.
      data_dir: where TFDS keeps prepared datasets; None for its usual place.
      image_key: the TFDS feature that holds the image.
      label_key: the TFDS feature that holds the label or numbers; see `TfdsSource`.

    Raises:
      ConfigError: for an unknown name or split.
      DataError: for missing or damaged files.
    """
    kind, colon, path = name.partition(":")
    if colon and kind in OURS:

        def opener(spec: str) -> Source:
            return _open_ours(kind, path, spec)

    elif "/" in path or kind.startswith((".", "/")):
        raise ConfigError(
            f"config.data.name={name!r}: no such kind of dataset.{suggest(kind, OURS)} "
            f"Allowed: {', '.join(KINDS)}"
        )
    else:
        from zoo.data.tfds import TfdsSource

        def opener(spec: str) -> Source:
            return TfdsSource(name, spec, data_dir, image_key, label_key)

    splits = Splits(
        opener(train),
        opener(validation) if validation else None,
        opener(test) if test else None,
    )
    for role, source in zip(Splits._fields, splits, strict=True):
        if source is not None and not len(source):
            raise DataError(f"{name}: the {role} split has no examples")
    return splits
