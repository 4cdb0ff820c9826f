"""Noise: each value by itself. Images are float64 [H, W, C] from 0 to 1."""

import numpy as np

from zoo.data.corruptions.draws import Draws


def gaussian_noise(image: np.ndarray, draws: Draws, scale: float, deviation: float) -> np.ndarray:
    """Adds normal noise of a deviation, as in low light."""
    return image + deviation * draws.normal(*image.shape)


def shot_noise(image: np.ndarray, draws: Draws, scale: float, photons: float) -> np.ndarray:
    """Counts photons, of which a white pixel gets so many on average."""
    levels = np.round(image * 255).astype(np.uint8)
    return draws.poisson(levels, photons) / photons


def impulse_noise(image: np.ndarray, draws: Draws, scale: float, amount: float) -> np.ndarray:
    """Sets a part of all values to 0 or 1, as often the one as the other."""
    chosen, value = draws.uniform(*image.shape), draws.uniform(*image.shape)
    return np.where(chosen < amount, np.round(value), image)
