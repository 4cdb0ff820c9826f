"""The 15 common corruptions, each in 5 severities: what a model meets outside its data set.

Paper: "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261, section 3.1.

The code is our own, the parameters are the authors'; see `parameters`. They give three tables,
for images of 32, 64 and 224 pixels. The one that is nearest to the shorter side is taken, and
its lengths in pixels are scaled to that side.

All functions have the same signature: an image, float64 [H, W, C] from 0 to 1, draws, the scale of
lengths, then their own parameters. What they return may pass 0 and 1; `corrupt` cuts it off.

Differs from the paper: frost is drawn, not photographed, so that its figures are not comparable
with published ones (see `weather.frost`); noise is the same at all severities of a seed, only
stronger; grey images are grey throughout.
"""

from collections.abc import Callable
import math
from typing import Any

import numpy as np

from zoo.data.corruptions import blur, digital, noise, weather
from zoo.data.corruptions.draws import SEEDS, Draws
from zoo.data.corruptions.parameters import PARAMETERS, SIDES
from zoo.errors import ConfigError, suggest

FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
NAMES = tuple(FUNCTIONS)
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 8  # pixels of a side


def corrupt(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """Returns a corrupted image, uint8 [H, W, C].

    Args:
      image: uint8 [H, W, 1 or 3], no side shorter than `SMALLEST`; as a network sees it, that is
        after it was cut to its size.
      name: one of `NAMES`.
      severity: 1 to 5.
      seed: 0 or more: another seed is another noise, another direction, other snow.

    Raises:
      ConfigError: for anything else.

    Example:
      >>> grey = np.full((8, 8, 1), 100, np.uint8)
      >>> int(corrupt(grey, "brightness", 1, seed=0)[0, 0, 0])
      112
    """
    _check(image, name, severity, seed)
    side = min(image.shape[:2])
    table, its_side = nearest_table(name, side)
    draws = Draws(seed, NAMES.index(name))
    x = FUNCTIONS[name](image / 255, draws, side / its_side, *table[severity - 1])
    levels = 255 * blur.cut_off(np.clip(x, 0, 1))  # as the published program does it
    return np.round(levels).astype(np.uint8)


def nearest_table(name: str, side: int) -> tuple[tuple[tuple[Any, ...], ...], int]:
    """Returns the parameters of five severities and the side of the images they are for.

    Args:
      name: of the corruption.
      side: of the image, in pixels; the table whose side has the nearest ratio to it is taken.
    """
    nearest = min(SIDES, key=lambda known: abs(math.log(side / known)))
    return PARAMETERS[name][SIDES.index(nearest)], nearest


def _check(image: np.ndarray, name: str, severity: int, seed: int) -> None:
    if name not in FUNCTIONS:
        raise ConfigError(
            f"corruption {name!r}: there is none of that name.{suggest(str(name), NAMES)} "
            f"Allowed: {', '.join(NAMES)}"
        )
    if not isinstance(severity, int | np.integer) or severity not in SEVERITIES:
        raise ConfigError(f"severity {severity!r} of {name}: give a whole number from 1 to 5")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < SEEDS:
        raise ConfigError(f"seed {seed!r} of {name}: give a whole number from 0 to 2**64 - 1")
    right = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    if not right or image.shape[-1] not in (1, 3) or min(image.shape[:2]) < SMALLEST:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else image
        raise ConfigError(
            f"image for {name}: must be an array uint8 [H, W, 1 or 3] with sides of {SMALLEST} "
            f"pixels or more, got {found}"
        )
