"""The kernels of a layer that sees the image itself, as pictures."""

import math

import numpy as np
from PIL import Image

from zoo.analysis.trained import Trained
from zoo.data.grid import Cell, Row, draw_rows
from zoo.description import layer_table
from zoo.errors import ConfigError, suggest


def find_filters(trained: Trained, layer: str | None = None) -> tuple[str, np.ndarray]:
    """Returns the name of a layer and its kernels, float32 [N, h, w, C].

    Those of a dense layer on the pixels have the shape of the image. Channels are in the order
    of an image's, also in networks that take them the other way round.

    Args:
      trained: the model.
      layer: a path as `python -m zoo describe` prints it; None for the first with a kernel.

    Raises:
      ConfigError: for a layer that there is not, or whose kernels do not see 1 or 3 channels.
    """
    kernels = {}
    for row in layer_table(trained.model, trained.image_shape, train=False)[0]:
        leaf = trained.variables["params"]
        for part in row.name.split("/"):
            leaf = leaf[part]
        if "kernel" in leaf:
            kernels[row.name] = np.asarray(leaf["kernel"], np.float32)
    name = layer or next(iter(kernels))
    if name not in kernels:
        raise ConfigError(
            f"layer {name!r}: {trained.label} has none of that name with a kernel."
            f"{suggest(name, kernels)} They begin with {', '.join([*kernels][:3])}"
        )
    kernel = kernels[name]
    if kernel.ndim == 2 and kernel.shape[0] == math.prod(trained.image_shape):
        kernel = kernel.reshape(*trained.image_shape, -1)
    if kernel.ndim != 4 or kernel.shape[2] not in (1, 3):
        raise ConfigError(
            f"layer {name!r}: a kernel {list(kernel.shape)} is no picture; only those that see 1 "
            f"or 3 channels are, such as {next(iter(kernels))!r}"
        )
    if trained.preprocessing.channel_order == "BGR" and kernel.shape[2] == 3:
        kernel = kernel[:, :, ::-1]
    return name, np.moveaxis(kernel, -1, 0)


def draw_filters(kernels: np.ndarray, side: int = 48) -> Image.Image:
    """Returns kernels in a square, each scaled so that its largest weight is black or white.

    Args:
      kernels: float [N, h, w, 1 or 3]; 0 becomes middle grey.
      side: of each in the picture, in pixels.
    """
    largest = np.abs(kernels).max((1, 2, 3), keepdims=True)
    pictures = np.round(127.5 + 127.5 * kernels / np.where(largest > 0, largest, 1))
    cells = [Cell(picture) for picture in pictures.astype(np.uint8)]
    columns = math.ceil(math.sqrt(len(cells)))
    side = max(side, kernels.shape[1])
    rows = [Row(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return draw_rows(rows, side)
