"""What cameras and computers do. Images are float64 [H, W, C] from 0 to 1."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from zoo.data.corruptions.draws import Draws


def brightness(image: np.ndarray, draws: Draws, scale: float, amount: float) -> np.ndarray:
    """Adds an amount to the largest channel, the V of HSV; hue and saturation stay."""
    value = image.max(-1, keepdims=True)
    brighter = np.minimum(value + amount, 1)
    return np.where(value > 0, image * brighter / np.where(value > 0, value, 1), brighter)


def contrast(image: np.ndarray, draws: Draws, scale: float, factor: float) -> np.ndarray:
    """Draws each channel towards its mean."""
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * factor + mean


def elastic_transform(
    image: np.ndarray, draws: Draws, scale: float, height: float, deviation: float, corner: float
) -> np.ndarray:
    """Shears and moves the image at random, then moves each pixel as its neighbours are moved.

    Args:
      image: [H, W, C].
      draws: how far.
      scale: of lengths.
      height: of the movement before it is smoothed, in pixels.
      deviation: of the Gaussian that smooths it, in pixels.
      corner: how far each of three points may move to either side, in pixels.
    """
    shape = np.array(image.shape[:2])
    middle, reach = shape // 2, min(shape) // 3
    points = middle + reach * np.array([[1, 1], [-1, 1], [-1, -1]])
    moved = points + draws.uniform(3, 2, low=-scale * corner, high=scale * corner)
    # The affine map from moved points back to where they were.
    map_back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)
    grid = np.indices(image.shape[:2]).astype(np.float64)
    places = np.tensordot(map_back[:2], grid, (0, 0)) + map_back[2][:, None, None]
    image = _look_up(image, places, "mirror")
    for axis in (1, 0):
        noise = draws.uniform(*shape, low=-1, high=1)
        smooth = ndimage.gaussian_filter(noise, scale * deviation, mode="reflect", truncate=3)
        grid[axis] += scale * height * smooth
    return _look_up(image, grid, "reflect")


def _look_up(image: np.ndarray, places: np.ndarray, mode: str) -> np.ndarray:
    """Returns an image's values at places [2, H, W] between its pixels."""
    channels = np.moveaxis(image, -1, 0)
    return np.stack([ndimage.map_coordinates(c, places, order=1, mode=mode) for c in channels], -1)


def pixelate(image: np.ndarray, draws: Draws, scale: float, factor: float) -> np.ndarray:
    """Makes an image smaller by a factor and enlarges it again, by averages over areas."""
    pil = _to_pillow(image)
    size = max(1, int(pil.width * factor)), max(1, int(pil.height * factor))
    small = pil.resize(size, Image.Resampling.BOX)
    return _to_array(small.resize(pil.size, Image.Resampling.BOX))


def jpeg_compression(image: np.ndarray, draws: Draws, scale: float, quality: int) -> np.ndarray:
    """Compresses an image as a JPEG of a quality, as Pillow does by default, and reads it."""
    file = io.BytesIO()
    _to_pillow(image).save(file, "JPEG", quality=quality)
    return _to_array(Image.open(file, formats=["JPEG"]))


def _to_pillow(image: np.ndarray) -> Image.Image:
    levels = np.round(image * 255).astype(np.uint8)
    return Image.fromarray(levels if levels.shape[-1] == 3 else levels[..., 0])


def _to_array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image) / 255
    return array if array.ndim == 3 else array[..., None]
