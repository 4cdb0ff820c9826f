"""Sums of metrics on the host, exact across batches, devices and restarts."""

import math
from typing import Any

import jax

Sums = dict[str, tuple[float, float]]  # name -> (sum, count)


class Totals:
    """Adds up (sum, count) metrics; the division happens once, in `means`.

    What the devices hold is fetched late and all at once, so that the loop does not wait
    for each step. Addition happens in step order in double precision, so the totals are
    the same bits whether or not a run was interrupted (save `sums`, give them back).
    """

    def __init__(self, sums: Sums | None = None):
        self._sums: Sums = dict(sums or {})
        self._pending: list[Any] = []

    def add(self, metrics: Any) -> None:
        """Adds one batch's metrics, still on the devices."""
        self._pending.append(metrics)

    def sums(self) -> Sums:
        """Returns the totals so far, having waited for the devices."""
        for metrics in jax.device_get(self._pending):
            for name, (total, count) in metrics.items():
                old_total, old_count = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = (old_total + float(total), old_count + float(count))
        self._pending.clear()
        return dict(self._sums)

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric, NaN where nothing was counted."""
        return {
            name: total / count if count else math.nan
            for name, (total, count) in self.sums().items()
        }

    def clear(self) -> None:
        """Forgets everything."""
        self._sums.clear()
        self._pending.clear()
