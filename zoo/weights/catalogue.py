"""The weights that others published for our models: where they are, and how to use them.

The table is `catalogue.csv`; `tests/parity/published.py` makes it of what torchvision, timm
and Keras say themselves, and the slow tests compare each row with them.
"""

import csv
import functools
from importlib import resources
from pathlib import PurePath
from typing import NamedTuple

from zoo.registry import registered_name
from zoo.weights.preprocessing import Preprocessing


class Published(NamedTuple):
    """One set of published weights.

    Attributes:
      model: our name of the network.
      weights: `timm/…` is the id on the Hugging Face hub, if the URL is there; `torchvision/…`
        an entry of its enumerations; `keras/…` a function of `keras.applications` and its
        `weights=`; `efficientnet-pytorch/…` a name of that package.
      layout: what its arrays are called like, a key of `zoo.weights.families.LAYOUTS[model]`.
      url: of the file, or of the page it is on.
      file: its name as published.
      digest: `sha256:` or `md5:` and the hexadecimal digits known, for SHA-256 often the first
        eight only; "" if none was published.
      licence: its SPDX name in lower case; "" if none was stated.
      num_classes: that it tells apart.
      image_size: side of the square, in pixels.
      crop_fraction: the part of the resized shorter side that is kept.
      fit: one of `zoo.images.FITS`.
      interpolation: a key of `zoo.images.INTERPOLATIONS`.
      mean: one per channel, on the scale 0 to 1, in the order of the network's channels.
      std: likewise.
      channel_order: "RGB" or "BGR".
      test_image_size: with which the accuracy was measured, if it is another.
      test_crop_fraction: likewise.
      top1: percent of ImageNet's validation images, as published; None if it was not found.
      top5: likewise.
      accuracy_source: who says so.
      checked: "file" if a copy was loaded here and computed what the original computes,
        "layout" if names and shapes of the arrays are those of the original library, else "".
    """

    model: str
    weights: str
    layout: str
    url: str
    file: str
    digest: str
    licence: str
    num_classes: int
    image_size: int
    crop_fraction: float
    fit: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str
    test_image_size: int | None
    test_crop_fraction: float | None
    top1: float | None
    top5: float | None
    accuracy_source: str
    checked: str

    @property
    def preprocessing(self) -> Preprocessing:
        """From an image to the network's input."""
        return Preprocessing(
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            crop_fraction=self.crop_fraction,
            fit=self.fit,
            channel_order=self.channel_order,
            class_names=imagenet_classes() if self.num_classes == 1000 else None,
            test_image_size=self.test_image_size,
            test_crop_fraction=self.test_crop_fraction,
        )


COLUMNS = Published._fields
_WHOLE = ("num_classes", "image_size", "test_image_size")
_REAL = ("crop_fraction", "test_crop_fraction", "top1", "top5")
_PER_CHANNEL = ("mean", "std")


def _value(column: str, cell: str) -> object:
    if column in _PER_CHANNEL:
        return tuple(map(float, cell.split()))
    if column in _WHOLE:
        return int(cell) if cell else None
    if column in _REAL:
        return float(cell) if cell else None
    return cell


@functools.cache
def read_rows() -> tuple[Published, ...]:
    """Returns the whole table: by model as registered, and of each the default first."""
    text = resources.files("zoo.weights").joinpath("catalogue.csv").read_text("utf-8")
    return tuple(
        Published(**{column: _value(column, cell) for column, cell in row.items()})  # pyright: ignore[reportArgumentType]
        for row in csv.DictReader(text.splitlines())
    )


def published(model: str | None = None) -> tuple[Published, ...]:
    """Returns what was published for a model, the default first, or for all.

    Args:
      model: a registered name or alias; None for all.

    Raises:
      ValueError: for an unknown name.

    Example:
      >>> [row.weights for row in published("xception")]
      ['timm/legacy_xception.tf_in1k', 'keras/Xception.imagenet']
    """
    if model is None:
        return read_rows()
    name = registered_name(model)
    return tuple(row for row in read_rows() if row.model == name)


def find_published(source: str) -> Published | None:
    """Returns the row of a name of weights, with or without its prefix; None if there is none.

    Example:
      >>> find_published("resnet50.a1_in1k").weights
      'timm/resnet50.a1_in1k'
    """
    return _by_name().get(source)


@functools.cache
def _by_name() -> dict[str, Published]:
    rows = {row.weights: row for row in read_rows()}
    return {row.weights.partition("/")[2]: row for row in read_rows()} | rows


def by_file_name(name: str, model: str | None = None) -> Published | None:
    """Returns the row of a file as published, or renamed to its weights; None if unclear.

    Every repository on the hub calls its file `model.safetensors`, which says nothing.

    Args:
      name: of the file, with or without its folder.
      model: a registered name or alias, if it is known.

    Example:
      >>> by_file_name("mobilenet_v2-b0353104.pth").weights
      'torchvision/MobileNet_V2_Weights.IMAGENET1K_V1'
      >>> by_file_name("resnet18.a1_in1k.safetensors").weights
      'timm/resnet18.a1_in1k'
    """
    path = PurePath(name)
    rows = [
        row
        for row in published(model)
        if path.name == row.file or path.stem == row.weights.partition("/")[2]
    ]
    return rows[0] if len(rows) == 1 and path.name != "model.safetensors" else None


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """Returns ImageNet's 1000 classes in the order of the logits of all weights here.

    Example:
      >>> imagenet_classes()[:3]
      ('tench', 'goldfish', 'great white shark')
    """
    return tuple(name for _, name in _imagenet_rows())


@functools.cache
def imagenet_ids() -> tuple[str, ...]:
    """Returns the WordNet ids of `imagenet_classes`, which are the names of ImageNet's folders."""
    return tuple(wordnet for wordnet, _ in _imagenet_rows())


def _imagenet_rows() -> list[list[str]]:
    text = resources.files("zoo.weights").joinpath("imagenet_classes.txt").read_text("utf-8")
    return [line.split("\t") for line in text.splitlines()]
