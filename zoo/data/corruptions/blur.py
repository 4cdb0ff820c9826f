"""Blurs. Images are float64 [H, W, C] from 0 to 1; `scale` is pixels per pixel of the table."""

import math

import numpy as np
from scipy import ndimage

from zoo.data.corruptions.draws import Draws


def defocus_blur(
    image: np.ndarray, draws: Draws, scale: float, radius: float, deviation: float
) -> np.ndarray:
    """Spreads each pixel over a disk, as a lens out of focus does.

    Args:
      image: [H, W, C].
      draws: nothing is drawn.
      scale: of lengths.
      radius: of the disk, in pixels.
      deviation: of the Gaussian that softens its edge, in pixels.
    """
    shortest = min(radius, 1)  # a smaller disk is one pixel
    kernel = _disk(max(scale * radius, shortest), scale * deviation)
    return ndimage.correlate(image, kernel[..., None], mode="mirror")


def _disk(radius: float, deviation: float) -> np.ndarray:
    """Returns a disk with a soft edge.

    It is softened within the square of the published program, by whose border the larger disks
    are reflected: their sum is not quite 1.
    """
    reach, square = (1, 8) if radius <= 8 else (2, int(radius))
    offsets = np.arange(-square, square + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, weights / weights.sum(), axis, mode="mirror")
    return disk


def glass_blur(
    image: np.ndarray, draws: Draws, scale: float, deviation: float, reach: int, times: int
) -> np.ndarray:
    """Jumbles pixels locally between two slight blurs, as frosted glass does.

    Pixels are gone through from the last to the first; each takes the value that one drawn
    from those around it has by then. (The published program means to swap the two, but with
    NumPy's views it copies.)

    Args:
      image: [H, W, C].
      draws: where from each pixel takes its value.
      scale: of lengths.
      deviation: of the Gaussian, in pixels.
      reach: how far values come from, in pixels.
      times: how often all that is done.
    """
    deviation, reach = scale * deviation, max(1, round(scale * reach))
    x = cut_off(_gaussian(image, deviation))
    height, width, channels = x.shape
    for _ in range(times if min(height, width) > 2 * reach else 0):
        x = x.reshape(-1, channels)[_jumble(height, width, reach, draws)]
        x = x.reshape(height, width, channels)
    return _gaussian(x, deviation)


def _jumble(height: int, width: int, reach: int, draws: Draws) -> np.ndarray:
    """Returns from where in the image each pixel gets its value, int [H * W]."""
    rows, columns = np.mgrid[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    rows, columns = rows.ravel(), columns.ravel()
    size = height * width
    here = rows * width + columns
    down, right = draws.integers(-reach, reach, 2, len(here))
    there = (rows + down) * width + columns + right
    # Numbers below `size` are old values, those above it new ones, which are the old ones in the
    # margin. What lies behind in the image has its new value when it is looked at.
    origin = np.concatenate([np.arange(size), np.arange(size)])
    origin[size + here] = np.where(there > here, size + there, there)
    while origin.max() >= size:
        origin = origin[origin]
    return origin[size:]


def motion_blur(
    image: np.ndarray, draws: Draws, scale: float, radius: float, deviation: float
) -> np.ndarray:
    """Draws each pixel out in one direction, within 45 degrees of the horizontal.

    Args:
      image: [H, W, C].
      draws: the direction.
      scale: of lengths.
      radius: half the length of the trace, in pixels.
      deviation: of the half of a Gaussian by which the trace fades, in pixels.
    """
    degrees = draws.uniform(low=-45, high=45)
    return whole_levels(streak(image, scale * radius, scale * deviation, degrees))


def streak(image: np.ndarray, radius: float, deviation: float, degrees: float) -> np.ndarray:
    """Returns an image drawn out in one direction, as ImageMagick's motion blur does it.

    Rounded to whole levels, the pixels are those of ImageMagick 6.9.11.

    Args:
      image: [H, W, C].
      radius: half the length of the trace, in pixels.
      deviation: of the half of a Gaussian by which the trace fades, in pixels.
      degrees: the direction.
    """
    length = 2 * math.ceil(radius) + 1
    steps = np.arange(length)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    angle = math.radians(degrees)
    down = np.ceil(steps * math.sin(angle) - 0.5).astype(int)
    right = np.ceil(steps * math.cos(angle) - 0.5).astype(int)
    height, width = image.shape[:2]
    padded = np.pad(image, ((length, length), (length, length), (0, 0)), mode="edge")
    blurred = np.zeros_like(image)
    for weight, y, x in zip(weights, length + down, length + right, strict=True):
        blurred += weight * padded[y : y + height, x : x + width]
    return blurred


def whole_levels(image: np.ndarray) -> np.ndarray:
    """Rounds to one of 256 grey levels, as ImageMagick returns them."""
    return np.round(image * 255) / 255


def zoom_blur(image: np.ndarray, draws: Draws, scale: float, step: float, count: int) -> np.ndarray:
    """Averages an image with enlarged ones, as when one moves towards what one looks at.

    Args:
      image: [H, W, C].
      draws: nothing is drawn.
      scale: of lengths; there are none.
      step: from one factor to the next; the first is 1.
      count: of factors.
    """
    factors = np.arange(1, 1 + (count - 0.5) * step, step)
    return (image + sum(enlarge(image, factor) for factor in factors)) / (count + 1)


def enlarge(image: np.ndarray, factor: float) -> np.ndarray:
    """Returns the middle of an image [H, W, C], enlarged linearly to its size."""
    for axis in (0, 1):
        size = image.shape[axis]
        part = math.ceil(size / factor)
        length = max(size, round(part * factor))
        places = np.arange(length)[(length - size) // 2 :][:size] * ((part - 1) / (length - 1))
        low = np.minimum(places.astype(int), max(part - 2, 0))
        share = (places - low).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        low += (size - part) // 2
        image = image.take(low, axis) * (1 - share) + image.take(low + 1, axis) * share
    return image


def _gaussian(image: np.ndarray, deviation: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (deviation, deviation, 0), mode="nearest", truncate=4)


def cut_off(image: np.ndarray) -> np.ndarray:
    """Rounds down to one of 256 grey levels, but for rounding errors."""
    return np.floor(np.round(image * 255, 6)) / 255
