"""A random part of each training picture, cut on the host from all the pixels it has.

Where a picture is larger than the network's input, cutting before it is made smaller keeps
detail that `random_resized_crop` on the device no longer has.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

import numpy as np

from zoo.data import jpeg
from zoo.data.augmentation.checks import check_arguments, check_range
from zoo.data.jpeg import Box
from zoo.data.resize import make_resize
from zoo.errors import ConfigError
from zoo.images import Encoded

DECODINGS = ("exact", "scaled", "fast")

Crop = Callable[[np.ndarray | Encoded, int, int], np.ndarray]


def draw_box(
    uniform: Sequence[float],
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
      uniform: 22 numbers, even in [0, 1).
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
    # Numbers of Python: for a box at a time NumPy's arrays would take ten times as long.
    for part, shape in zip(uniform[:10], uniform[10:20], strict=True):
        area = (scale[0] + part * (scale[1] - scale[0])) * height * width
        by = math.exp(low + shape * (high - low))
        rows, columns = round(math.sqrt(area / by)), round(math.sqrt(area * by))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = uniform[20] * (height - rows + 1), uniform[21] * (width - columns + 1)
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
    decoding: str = "exact",
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
      decoding: of a file: "exact" gives the pixels that Pillow's decoding and resizing the whole
        gives; "scaled" decodes a JPEG at a smaller size where the part is large enough; "fast"
        does that, approximates, and resizes all pictures by vector instructions. How much they
        differ is in `zoo.data.jpeg` and `zoo.data.resize`.

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
        draw_box([0.0] * 22, size, size, **ranges)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    fast = decoding == "fast"
    if fast and jpeg.decode_jpeg is None:
        raise ConfigError("config.data.decoding='fast' needs simplejpeg: pip install 'zoo[fast]'")
    resize = make_resize(size, channels, interpolation, fast=fast)
    smallest = None if decoding == "exact" else size

    def crop(image: np.ndarray | Encoded, epoch: int, index: int) -> np.ndarray:
        # The order of examples has the same key; its counter's last word is 0.
        stream = np.random.Philox(key=[seed, epoch], counter=[0, 0, index, 1])
        uniform = ((stream.random_raw(22) >> 11) * 2.0**-53).tolist()

        def draw(height: int, width: int) -> Box:
            return draw_box(uniform, height, width, **ranges)

        if isinstance(image, Encoded):
            return resize(jpeg.cut(image, draw, smallest, rough=fast))
        return resize(jpeg.cut_array(image, draw))

    return crop
