"""Pictures in rows: of examples as they are and as they are augmented, or of anything else."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.data.augment import Augment
from zoo.data.loader import Examples, assemble

SMALLEST = 96  # side of a cell, in pixels: smaller images are enlarged, pixel by pixel
TEXT = 12  # height of letters, in pixels
LINE = TEXT + 6
GAP = 4

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Cell(NamedTuple):
    """A picture, uint8 [H, W, 1 or 3], and what is written below it."""

    image: np.ndarray
    text: str = ""


class Row(NamedTuple):
    """Cells side by side, and what is written above them."""

    cells: Sequence[Cell]
    head: str = ""


def draw_rows(rows: Sequence[Row], side: int, heads: Sequence[str] = ()) -> Image.Image:
    """Returns cells in rows, on white.

    Args:
      rows: of as many cells as there are.
      side: of each picture, in pixels: it is enlarged pixel by pixel, or shrunk.
      heads: of the columns.
    """
    below = LINE if any(cell.text for row in rows for cell in row.cells) else 0
    columns = max(len(row.cells) for row in rows)
    heights = [(LINE if row.head else 0) + side + below + GAP for row in rows]
    top = LINE if heads else GAP
    size = columns * (side + GAP) + GAP, top + sum(heights)
    grid = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(TEXT)
    for column, head in enumerate(heads):
        draw.text((GAP + column * (side + GAP), 2), head, "black", font)
    for row, height in zip(rows, heights, strict=True):
        inside = top + (LINE if row.head else 0)
        draw.text((GAP, top), _shortened(row.head, draw, font, size[0] - GAP), "black", font)
        for column, (image, text) in enumerate(row.cells):
            left = GAP + column * (side + GAP)
            grid.paste(_picture(image, side), (left, inside))
            text = _shortened(text, draw, font, side)
            draw.text((left, inside + side + 1), text, "black", font)
        top += height
    return grid


def side_of(size: int) -> int:
    """Returns the side of a cell for images of a size: the same, or a multiple if it is small."""
    return size * max(1, -(-SMALLEST // size))


def augmented(
    examples: Examples, augment: Augment, key: jax.Array, indices: np.ndarray, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns some examples as training sees them in an epoch.

    Args:
      examples: where to read them.
      augment: see `zoo.data.augment.make_augment`; what mixes takes partners among them.
      key: as the training step has it.
      indices: int [B], which ones.
      epoch: for which epoch.

    Returns:
      images uint8 [B, S, S, C], and targets: float [B, K] with a column per class, where
      labels are classes; else as they are.

    Raises:
      DataError: for what cannot be decoded.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    count = len(indices)
    batch = assemble(examples, indices, np.full(count, epoch), np.ones(count), here)
    targets = batch["label"]
    if targets.ndim == 1 and jnp.issubdtype(targets.dtype, jnp.integer):
        targets = jax.nn.one_hot(targets, len(examples.source.class_names))
    images, targets = jax.jit(augment)(batch, key, targets)
    return np.asarray(images), np.asarray(targets)


def caption(target: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns a target in words: the classes it has a part in, the largest first, or numbers.

    Example:
      >>> caption(np.array([0.25, 0.0, 0.75]), ["cat", "dog", "owl"])
      'owl 75%, cat 25%'
      >>> caption(np.array([0.0, 1.0, 0.0]), ["cat", "dog", "owl"])
      'dog'
      >>> caption(np.array([1.5]), ["cat", "dog"])
      '1.5'
      >>> caption(np.array([41.0, 70.5]), ["age", "weight"])
      'age 41, weight 70.5'
    """
    values = np.ravel(target)
    if len(values) != len(class_names):
        return " ".join(f"{value:.4g}" for value in values)
    if values.min() < 0 or values.max() > 1:
        return ", ".join(f"{n} {value:.4g}" for n, value in zip(class_names, values, strict=True))
    order = [int(i) for i in np.argsort(-values, kind="stable") if values[i] >= 0.005]
    if all(values[i] == 1 for i in order):
        return ", ".join(class_names[i] for i in order)
    return ", ".join(f"{class_names[i]} {values[i]:.0%}" for i in order)


def draw_grid(
    fitted: Examples,
    cropped: Examples,
    augment: Augment,
    key: jax.Array,
    indices: np.ndarray,
    *,
    columns: int,
    epoch: int = 0,
) -> Image.Image:
    """Returns a row per example: as evaluation sees it, then as training does, epoch by epoch.

    Args:
      fitted: the examples as in evaluation.
      cropped: the same ones as in training.
      augment: see `augmented`.
      key: likewise.
      indices: int [N], of the rows.
      columns: how many, the first one included.
      epoch: of the second column; the others follow.

    Raises:
      DataError: for what cannot be decoded.
    """
    names = fitted.source.class_names
    parts = [augmented(fitted, lambda b, k, t: (b["image"], t), key, indices, epoch)]
    for later in range(columns - 1):
        parts.append(augmented(cropped, augment, key, indices, epoch + later))
    heads = ["fitted", *(f"epoch {epoch + later}" for later in range(columns - 1))]
    rows = [
        Row([Cell(images[i], caption(targets[i], names)) for images, targets in parts])
        for i in range(len(indices))
    ]
    return draw_rows(rows, side_of(fitted.shape[0]), heads)


def _picture(image: np.ndarray, side: int) -> Image.Image:
    pil = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
    larger = side >= max(pil.size)
    return pil.resize((side, side), Image.Resampling.NEAREST if larger else Image.Resampling.BOX)


def _shortened(text: str, draw: ImageDraw.ImageDraw, font: Font, width: int) -> str:
    """Returns a text, without its end if it is wider than a number of pixels."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font) > width:
        text = text[:-1]
    return f"{text}…"
