"""Weather. Images are float64 [H, W, C] from 0 to 1; `scale` is pixels per pixel of the table."""

import numpy as np
from scipy import ndimage

from zoo.data.corruptions.blur import cut_off, enlarge, streak, whole_levels
from zoo.data.corruptions.draws import Draws


def snow(
    image: np.ndarray,
    draws: Draws,
    scale: float,
    mean: float,
    deviation: float,
    size: float,
    threshold: float,
    radius: float,
    fading: float,
    share: float,
) -> np.ndarray:
    """Whitens an image and lays falling flakes over it.

    Args:
      image: [H, W, C].
      draws: the flakes, and where the wind blows from.
      scale: of lengths.
      mean: of the noise that becomes flakes.
      deviation: of it.
      size: of a flake, in pixels.
      threshold: of the noise, under which there is no flake.
      radius: half the length of a flake's trace, in pixels.
      fading: of the trace, a deviation in pixels.
      share: of the image that is not whitened.
    """
    height, width, _ = image.shape
    noise = mean + deviation * draws.normal(height, width, 1)
    flakes = enlarge(noise, max(1.0, scale * size))
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
    degrees = draws.uniform(low=-135, high=-45)
    flakes = whole_levels(streak(cut_off(flakes), scale * radius, scale * fading, degrees))
    whitened = np.maximum(image, 1.5 * _luma(image) + 0.5)
    return share * image + (1 - share) * whitened + flakes + np.rot90(flakes, 2)


def frost(
    image: np.ndarray, draws: Draws, scale: float, image_share: float, frost_share: float
) -> np.ndarray:
    """Adds a picture of frost on a window.

    The published program adds a part of one of five photographs, which are not ours to ship. Here
    the frost is drawn: crystals of six arms, large and small, on uneven ground, as bright, as
    rich in contrast and as blue as those photographs are. So the figures of models under `frost`
    are like the published ones, but **not comparable with them**.

    Args:
      image: [H, W, C].
      draws: the frost.
      scale: of lengths; those of the frost are parts of the image's shorter side.
      image_share: what is kept of the image.
      frost_share: what is added of the frost.
    """
    height, width, channels = image.shape
    texture = _frost(height, width, draws)
    return image_share * image + frost_share * (texture if channels == 3 else _luma(texture))


def _frost(height: int, width: int, draws: Draws) -> np.ndarray:
    """Returns a picture of frost, float64 [H, W, 3] from 0 to 1."""
    side = min(height, width)
    relief = _standardised(plasma(max(height, width), 1.2, draws)[:height, :width, None])
    for length, density in ((side / 6, 0.002), (side / 16, 0.02), (side / 40, 0.1)):
        relief += _standardised(_crystals(height, width, length, density, draws))
    relief = ndimage.gaussian_filter(relief, (side / 350, side / 350, 0))
    grey = draws.uniform(low=0.39, high=0.89) + 0.06 * relief
    return np.clip(grey * (0.9, 1.03, 1.09), 0, 1)


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / (x.std() + 1e-9)


def _crystals(height: int, width: int, length: float, density: float, draws: Draws) -> np.ndarray:
    """Returns stars of six fading arms at random places, float64 [H, W, 1]."""
    margin = 2 * int(length) + 2
    shape = (height + 2 * margin, width + 2 * margin, 1)
    seeds = np.where(draws.uniform(*shape) < density, draws.uniform(*shape), 0.0)
    turn = draws.uniform(low=0, high=60)
    stars = np.zeros(shape)
    for arm in range(6):
        stars += streak(seeds, length / 2, length / 2, turn + 60 * arm)
    return stars[margin:-margin, margin:-margin]


def fog(image: np.ndarray, draws: Draws, scale: float, density: float, decay: float) -> np.ndarray:
    """Adds clouds, and darkens until the brightest pixel is as bright as before.

    Args:
      image: [H, W, C].
      draws: the clouds.
      scale: of lengths; there are none.
      density: of the fog.
      decay: of the clouds' detail, see `plasma`.
    """
    height, width, _ = image.shape
    brightest = image.max()
    clouds = plasma(max(height, width), decay, draws)[:height, :width, None]
    return (image + density * clouds) * brightest / (brightest + density)


def plasma(side: int, decay: float, draws: Draws) -> np.ndarray:
    """Returns clouds, float64 [S, S] from 0 to 1, S the power of 2 from `side` on.

    Made by halving the grid again and again: each new point is the mean of its four neighbours
    and a random number (the diamond-square algorithm, on a torus).

    Args:
      side: what is needed.
      decay: the random numbers are smaller by its square with each halving.
      draws: of the numbers.
    """
    clouds, height = np.zeros((1, 1)), 1.0
    while len(clouds) < side:
        size = len(clouds)
        finer = np.empty((2 * size, 2 * size))
        finer[::2, ::2] = clouds
        below, right = np.roll(clouds, -1, 0), np.roll(clouds, -1, 1)
        corners = clouds + below + right + np.roll(below, -1, 1)
        middles = corners / 4 + height * draws.uniform(size, size, low=-1, high=1)
        finer[1::2, 1::2] = middles
        across = clouds + right + middles + np.roll(middles, 1, 0)
        finer[::2, 1::2] = across / 4 + height * draws.uniform(size, size, low=-1, high=1)
        along = clouds + below + middles + np.roll(middles, 1, 1)
        finer[1::2, ::2] = along / 4 + height * draws.uniform(size, size, low=-1, high=1)
        clouds, height = finer, height / decay**2
    clouds = clouds - clouds.min()
    return clouds / clouds.max()


def _luma(image: np.ndarray) -> np.ndarray:
    """Returns the brightness [H, W, 1] of an image, of ITU-R BT.601."""
    return image if image.shape[-1] == 1 else image @ np.array([[0.299], [0.587], [0.114]])
