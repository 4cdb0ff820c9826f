"""Random numbers that are the same on every machine and under every version of NumPy."""

import functools
from typing import Any

import numpy as np
from scipy import special

SEEDS = 2**64  # how many there are


class Draws:
    """A stream of random numbers.

    It begins with the raw bits of Philox: their order is part of its definition, while the
    distributions of `np.random.Generator` may change with NumPy.

    Args:
      seed: from 0 to `SEEDS` - 1.
      stream: which of the seed's streams.
    """

    def __init__(self, seed: int, stream: int):
        self._bits = np.random.Philox(key=np.array([seed, stream], np.uint64))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Any:
        """Returns numbers in (low, high), evenly spread: an array, or a number without a shape."""
        raw = self._bits.random_raw(int(np.prod(shape, dtype=np.int64)))
        numbers = ((np.asarray(raw) >> np.uint64(11)) + 0.5) * 2.0**-53
        return low + (high - low) * numbers.reshape(shape)[()]

    def normal(self, *shape: int) -> np.ndarray:
        """Returns numbers of mean 0 and deviation 1."""
        return special.ndtri(self.uniform(*shape))

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Returns whole numbers from `low` to `high` - 1."""
        return np.floor(self.uniform(*shape, low=low, high=high)).astype(np.int64)

    def poisson(self, levels: np.ndarray, most: float) -> np.ndarray:
        """Returns how many photons arrive at each pixel.

        Args:
          levels: uint8, of whatever shape: 255 where `most` are expected, and so on down.
          most: the mean at level 255.
        """
        table = _poisson_table(most)
        # All rows are one ascending list: row k lies between k and k + 1.
        places = np.searchsorted(table.ravel(), levels + self.uniform(*levels.shape))
        return places - levels.astype(np.int64) * table.shape[1]


@functools.lru_cache(maxsize=8)
def _poisson_table(most: float) -> np.ndarray:
    """Returns k + (the chance of n photons or fewer at level k), float64 [256, N]."""
    means = np.arange(256)[:, None] * (most / 255)
    counts = np.arange(int(most + 9 * np.sqrt(most) + 20))  # more have no chance in float64
    table = np.where(means > 0, special.pdtr(counts, means), 1.0)
    table[:, -1] = 1.0
    return table + np.arange(256)[:, None]
