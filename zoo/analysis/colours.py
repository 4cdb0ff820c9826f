"""Numbers as colours."""

from collections.abc import Sequence

import matplotlib
import numpy as np


def heat(values: np.ndarray) -> np.ndarray:
    """Returns numbers from 0 (dark) to 1 (bright) as colours, uint8 [..., 3]."""
    return np.round(matplotlib.colormaps["inferno"](values)[..., :3] * 255).astype(np.uint8)


def stretch(values: np.ndarray, axes: Sequence[int] | None = None) -> np.ndarray:
    """Returns numbers from 0 (the least) to 1 (the largest); all 0 if they are equal.

    Args:
      values: of any shape.
      axes: over which to look for both; None for all.
    """
    over = None if axes is None else tuple(axes)
    low, high = values.min(over, keepdims=True), values.max(over, keepdims=True)
    return (values - low) / np.where(high > low, high - low, 1)


def overlay(image: np.ndarray, values: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Returns an image, grey, under colours of some heat, uint8 [H, W, 3].

    Args:
      image: uint8 [H, W, 1 or 3].
      values: [H, W], from 0 to 1.
      share: of the colours.
    """
    grey = image.mean(-1, keepdims=True)
    return np.round((1 - share) * grey + share * heat(values)).astype(np.uint8)
