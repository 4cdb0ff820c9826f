"""Images beside those that a network takes to be most like them."""

from pathlib import Path

import numpy as np
from PIL import Image

from zoo.analysis.neighbours import Neighbours
from zoo.data.grid import Cell, Row, draw_rows, side_of
from zoo.data.loader import Examples

LARGEST = 128  # side of a picture, in pixels


def draw_neighbours(queries: Examples, examples: Examples, found: Neighbours) -> Image.Image:
    """Returns a picture: a row per query, first itself, then its neighbours, the nearest first.

    Args:
      queries: M images.
      examples: those among which neighbours were looked for.
      found: of `zoo.analysis.neighbours.nearest`, [M, k].

    Raises:
      DataError: for an image that cannot be read any more.
    """
    names = examples.source.class_names
    rows = []
    for i, (indices, distances) in enumerate(zip(*found, strict=True)):
        cells = [Cell(queries.read(i)[0], Path(queries.source.describe(i)).name)]
        for index, distance in zip(indices, distances, strict=True):
            image, target, _ = examples.read(int(index))
            name = names[int(target)] if np.ndim(target) == 0 else ""
            cells.append(Cell(image, f"{distance:.2f} {name}"))
        rows.append(Row(cells))
    heads = ["image", *(f"neighbour {k + 1}" for k in range(found.indices.shape[1]))]
    return draw_rows(rows, min(side_of(examples.shape[0]), LARGEST), heads)
