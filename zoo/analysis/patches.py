"""The parts of a dataset's images that excite channels of a network most.

Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks",
https://arxiv.org/abs/1311.2901, figure 2. The patch of a position is its receptive field.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from zoo.analysis.layers import layer_shapes, layers_of
from zoo.analysis.receptive_fields import ReceptiveField, receptive_fields
from zoo.analysis.running import run_over, track
from zoo.analysis.trained import Trained
from zoo.data.grid import SMALLEST, Cell, Row, draw_rows
from zoo.data.loader import Examples
from zoo.errors import ConfigError

OUTSIDE = 128  # grey level of what is not in the image

Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # values, examples and places of `Strongest`


class Strongest(NamedTuple):
    """Where channels of a layer are largest, the largest first; one position of an image counts.

    Attributes:
      channels: int [C], which ones.
      values: float32 [K, C], what they put out.
      examples: int [K, C], positions in the source.
      places: int [K, C, 2], row and column of the map.
      field: of the layer.
    """

    channels: np.ndarray
    values: np.ndarray
    examples: np.ndarray
    places: np.ndarray
    field: ReceptiveField


def spread(total: int, count: int) -> np.ndarray:
    """Returns so many channels (or all, if there are fewer), evenly spaced, ascending.

    Example:
      >>> spread(64, 4)
      array([ 0, 21, 42, 63])
    """
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


def choose_channels(
    trained: Trained, layers: Sequence[str], count: int, only: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Returns the channels to look at, int [C] for each layer.

    Args:
      trained: the model.
      layers: see `zoo.analysis.layers.layers_of`.
      count: how many, evenly spread over all.
      only: these instead.

    Raises:
      ConfigError: for a layer or a channel that there is not.
    """
    shapes = layer_shapes(trained.model, trained.variables, trained.image_shape, layers)
    chosen = {}
    for layer in layers:
        total = shapes[layer][-1]
        if only is not None and not all(0 <= c < total for c in only):
            raise ConfigError(f"channels {list(only)}: {layer} has those from 0 to {total - 1}")
        chosen[layer] = spread(total, count) if only is None else np.asarray(only)
    return chosen


def find_patches(
    trained: Trained,
    examples: Examples,
    channels: Mapping[str, np.ndarray],
    count: int = 9,
    *,
    batch_size: int = 64,
    threads: int = 2,
) -> dict[str, Strongest]:
    """Returns where in a dataset channels are largest, by layer.

    The data are run through once, and only the best so far are kept.

    Args:
      trained: the model.
      examples: of `zoo.analysis.running.examples_of`.
      channels: int [C] by layer, see `choose_channels`.
      count: examples for each channel.
      batch_size: over all devices.
      threads: that decode.
    """
    outputs = layers_of(trained, *channels)

    def compute(variables: Any, images: jax.Array) -> Any:
        found = outputs(variables, images)
        return {name: _largest(found[name][..., chosen]) for name, chosen in channels.items()}

    rows = run_over(trained, examples, compute, batch_size=batch_size, threads=threads)
    best: dict[str, Found] = {}
    for row in track(rows, len(examples), "looking", lambda row: len(row.indices)):
        for name, (values, places) in row.outputs.items():
            indices = np.broadcast_to(row.indices[:, None], values.shape)
            new = values.astype(np.float32), indices, places
            best[name] = _merge(best[name], new, count) if name in best else _merge(new, (), count)
    if not best:
        raise ConfigError("there are no examples")
    fields = receptive_fields(trained.model, trained.image_shape, *channels)
    return {name: Strongest(channels[name], *best[name], field=fields[name]) for name in channels}


def _largest(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the largest value of each channel, [B, C], and its row and column, [B, C, 2]."""
    if x.ndim == 2:
        x = x[:, None, None]
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    place = flat.argmax(1)
    return flat.max(1), jnp.stack([place // x.shape[2], place % x.shape[2]], -1)


def _merge(first: Sequence[np.ndarray], second: Sequence[np.ndarray], count: int) -> Found:
    """Returns the best of two sets; of equals, the earlier."""
    both = [np.concatenate(pair) for pair in zip(first, second, strict=True)] if second else first
    values, examples, places = both
    order = np.argsort(-values, axis=0, kind="stable")[:count]
    columns = np.arange(order.shape[1])
    return values[order, columns], examples[order, columns], places[order, columns]


def cut(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Returns a part of an image, uint8 [h, w, C], grey where that lies outside.

    A part that is larger than the image is cut to it.

    Args:
      image: uint8 [H, W, C].
      box: top, left, bottom, right.
    """
    top, left, bottom, right = box
    if bottom - top >= image.shape[0]:
        top, bottom = 0, image.shape[0]
    if right - left >= image.shape[1]:
        left, right = 0, image.shape[1]
    out = np.full((bottom - top, right - left, image.shape[2]), OUTSIDE, np.uint8)
    rows = slice(max(top, 0), max(min(bottom, image.shape[0]), 0))
    columns = slice(max(left, 0), max(min(right, image.shape[1]), 0))
    part = image[rows, columns]
    if part.size:
        y, x = rows.start - top, columns.start - left
        out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return out


def draw_patches(
    found: Mapping[str, Strongest], examples: Examples, side: int = SMALLEST
) -> Image.Image:
    """Returns a picture: a row for each channel of each layer, the strongest patch first.

    Args:
      found: of `find_patches`.
      examples: the same.
      side: of each patch in the picture, in pixels; they are scaled to it.

    Raises:
      DataError: for an image that cannot be read any more.
    """
    names = examples.source.class_names
    rows = []
    for layer, best in found.items():
        size = "x".join(map(str, best.field.size))
        for column, channel in enumerate(best.channels):
            cells = []
            for k in range(len(best.values)):
                image, target, _ = examples.read(int(best.examples[k, column]))
                box = best.field.box(*map(int, best.places[k, column]))
                name = names[int(target)] if np.ndim(target) == 0 else ""
                text = f"{best.values[k, column]:.3g} {name}"
                cells.append(Cell(cut(image, box), text))
            rows.append(Row(cells, f"{layer}, channel {channel}: fields of {size} pixels"))
    return draw_rows(rows, side)
