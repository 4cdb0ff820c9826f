"""A random part of each training picture, cut on the host from all the pixels it has.

Where a picture is larger than the network's input, cutting before it is made smaller keeps
detail that `random_resized_crop` on the device no longer has.
"""

from collections.abc import Callable, Mapping
import math
from typing import Any

import numpy as np

from zoo.data.augmentation.checks import check_arguments, check_range
from zoo.data.jpeg import Box, cut, cut_array
from zoo.data.resize import make_resize
from zoo.errors import ConfigError
from zoo.images import Encoded

Crop = Callable[[np.ndarray | Encoded, int, int], np.ndarray]


def draw_box(
    uniform: np.ndarray,
    height: int,
    width: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Returns top, left, height and width of a part of a picture, by its area and shape.

    The first of ten boxes that fits, as `geometry.random_box` draws it; where none does, the
    largest central box of an allowed shape, as in torchvision.

    Args:
      uniform: float64 [22], even in [0, 1).
      height: of the picture, in pixels.
      width: likewise.
      scale: smallest and largest area, as a part of the picture's.
      ratio: smallest and largest width by height; their logarithm is uniform.

    Raises:
      ConfigError: for ranges that are none.
    """
    check_range("scale", scale, 0, 1)
    check_range("ratio", ratio, 0)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    areas = (scale[0] + uniform[:10] * (scale[1] - scale[0])) * height * width
    ratios = np.exp(low + uniform[10:20] * (high - low))
    sides = np.round(np.sqrt([areas / ratios, areas * ratios])).astype(int)
    for rows, columns in sides.T.tolist():
        if 0 < rows <= height and 0 < columns <= width:
            top, left = np.floor(uniform[20:] * (height - rows + 1, width - columns + 1))
            return int(top), int(left), rows, columns
    rows, columns = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    rows, columns = max(1, rows), max(1, columns)
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def make_crop(
    arguments: Mapping[str, Any],
    *,
    seed: int,
    size: int,
    channels: int,
    interpolation: str,
    scaled: bool = False,
    fast: bool = False,
) -> Crop | None:
    """Returns `crop(image, epoch, index)`: uint8 [size, size, channels] of a random part.

    What is cut depends on seed, epoch, index and the picture's shape; not on the version of
    numpy, whose raw stream of Philox is fixed while its distributions are not.

    Args:
      arguments: "scale" and "ratio" of `draw_box`; none for no cropping.
      seed: of the run.
      size: the side of the square wanted, in pixels.
      channels: 1 (luma) or 3.
      interpolation: a key of `zoo.images.INTERPOLATIONS`; shrinking is antialiased.
      scaled: whether a JPEG may be decoded at a smaller size than it has, see `zoo.data.jpeg`.
      fast: whether to resize by vector instructions, see `zoo.data.resize`.

    Returns:
      the function of a picture uint8 [H, W, 1 or 3], or of a file's content, of which no more is
      decoded than need be; None without arguments.

    Raises:
      ConfigError: for an unknown argument, ranges that are none, or a missing library.
    """
    ranges = dict(arguments)
    if not ranges:
        return None
    name = "config.augment.crop"
    check_arguments(name, draw_box, ranges, supplied=("uniform", "height", "width"))
    try:
        draw_box(np.zeros(22), size, size, **ranges)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    resize = make_resize(size, channels, interpolation, fast=fast)
    smallest = size if scaled else None

    def crop(image: np.ndarray | Encoded, epoch: int, index: int) -> np.ndarray:
        # The order of examples has the same key; its counter's last word is 0.
        stream = np.random.Philox(key=[seed, epoch], counter=[0, 0, index, 1])
        uniform = (stream.random_raw(22) >> 11) * 2.0**-53

        def draw(height: int, width: int) -> Box:
            return draw_box(uniform, height, width, **ranges)

        if isinstance(image, Encoded):
            return resize(cut(image, draw, smallest))
        return resize(cut_array(image, draw))

    return crop
