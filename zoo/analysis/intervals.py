"""How far a figure of so many examples can be trusted: 95 % intervals."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

RESAMPLES = 1000
Interval = tuple[float, float]


def resamples(count: int, *, number: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields how often each of `count` examples is drawn, float64 [N], in one resample each."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)


def bootstrap(
    figures: Callable[[np.ndarray], Mapping[str, float]],
    count: int,
    *,
    number: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns percentile intervals of figures (Efron 1979): of 95 % of resamples of the examples.

    Resamples in which a figure is undefined do not count; it has no interval, (NaN, NaN), if
    those are more than one in twenty.

    Args:
      figures: given the weights [N] of a resample, its figures by name.
      count: N.
      number: of resamples.
      seed: of what is drawn; the same for the same interval.
    """
    drawn = [figures(weights) for weights in resamples(count, number=number, seed=seed)]
    return {name: percentiles(np.array([f[name] for f in drawn])) for name in drawn[0]}


def percentiles(values: np.ndarray) -> Interval:
    """Returns the interval that holds the middle 95 % of values [R]; see `bootstrap`."""
    defined = values[np.isfinite(values)]
    if len(defined) < 0.95 * len(values):
        return np.nan, np.nan
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)
