"""The cut part of a picture, brought to the size of a network's input.

Pillow takes about half as long to resize a part of a photograph to 224 pixels as to decode the
photograph. `cykooz-resizer`, which has the same filters in vector instructions, takes 0.4 times
as long as Pillow. It rounds otherwise: with the bilinear filter a result differs by 1 grey level
at most (0.2 on average); with bicubic and lanczos, which overshoot at edges, by up to 10 there
(0.3 on average).
"""

from collections.abc import Callable
import threading

import numpy as np
from PIL import Image

from zoo.data.jpeg import Part, Pixels
from zoo.errors import ConfigError
from zoo.images import INTERPOLATIONS, to_mode

Resize = Callable[[Part], np.ndarray]


def make_resize(size: int, channels: int, interpolation: str, *, fast: bool = False) -> Resize:
    """Returns `resize(part)`: a part as uint8 [size, size, channels], antialiased.

    Args:
      size: the side of the square wanted, in pixels.
      channels: 1 (luma) or 3.
      interpolation: a key of `zoo.images.INTERPOLATIONS`.
      fast: by `cykooz-resizer`; "nearest" is Pillow's in any case.

    Raises:
      ConfigError: if that is wanted and not installed.
    """
    mode = "L" if channels == 1 else "RGB"
    if fast and interpolation != "nearest":
        return _make_fast(size, mode, interpolation)

    def resize(part: Part) -> np.ndarray:
        image = _in_mode(part.pixels, mode)
        image = image.resize((size, size), INTERPOLATIONS[interpolation], box=part.box)
        if part.turn is not None:
            image = image.transpose(part.turn)
        return np.asarray(image).reshape(size, size, channels)

    return resize


def _make_fast(size: int, mode: str, interpolation: str) -> Resize:
    try:
        import cykooz_resizer as library
    except ImportError as error:
        raise ConfigError(
            f"config.data.decoding='fast' needs cykooz-resizer: pip install 'zoo[fast]' ({error})"
        ) from error
    filters = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}
    way = library.ResizeAlg.convolution(library.FilterType[filters[interpolation]])
    kind = library.PixelType.U8 if mode == "L" else library.PixelType.U8x3
    channels, dimensions = len(mode), 2 if mode == "L" else 3
    whole = library.ResizeOptions(resize_alg=way)
    own = threading.local()  # a resizer has a memory of its own and lets other threads run

    def resize(part: Part) -> np.ndarray:
        if not hasattr(own, "resizer"):
            own.resizer = library.Resizer()
        pixels, (left, top, right, bottom) = part.pixels, part.box
        if not isinstance(pixels, np.ndarray) or pixels.ndim != dimensions:
            pixels = np.asarray(_in_mode(pixels, mode))
        height, width = pixels.shape[:2]
        given = library.ImageData(width, height, kind, pixels.tobytes())
        made = library.ImageData(size, size, kind)
        options = whole
        if part.box != (0, 0, width, height):
            box = library.CropBox(left, top, right - left, bottom - top)
            options = library.ResizeOptions(resize_alg=way, crop_box=box)
        own.resizer.resize(given, made, options)
        array = np.frombuffer(made.get_buffer(), np.uint8).reshape(size, size, channels)
        if part.turn is None:
            return array
        image = Image.fromarray(array[..., 0] if mode == "L" else array)
        return np.asarray(image.transpose(part.turn)).reshape(array.shape)

    return resize


def _in_mode(pixels: Pixels, mode: str) -> Image.Image:
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    return to_mode(image, mode)
