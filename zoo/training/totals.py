"""Sums of metrics on the host, exact across batches, devices and restarts."""

import functools
from typing import Any

import jax
import numpy as np

from zoo.tasks.task import Sums, add


class Totals:
    """Adds up (sum, count) metrics, which may be vectors; a task makes figures of them.

    What the devices hold is fetched late and all at once, so that the loop does not wait
    for each step. Addition happens in step order in double precision, so the totals are
    the same bits whether or not a run was interrupted (save `record`, give it back).

    Args:
      record: of an earlier run.
    """

    def __init__(self, record: dict[str, Any] | None = None):
        self._sums: Sums = {
            name: (np.asarray(total, np.float64), np.asarray(count, np.float64))
            for name, (total, count) in (record or {}).items()
        }
        self._pending: list[tuple[Any, int | None]] = []

    def add(self, metrics: Any, steps: int | None = None) -> None:
        """Adds one batch's metrics, still on the devices.

        Args:
          metrics: of the batch.
          steps: the metrics are of so many batches, one after the other: a list, or arrays
            with a further axis in front, which may be longer.
        """
        self._pending.append((metrics, steps))

    def sums(self) -> Sums:
        """Returns the totals so far, having waited for the devices."""
        for metrics, steps in jax.device_get(self._pending):
            rows = metrics if isinstance(metrics, list) else [metrics]
            if steps is not None and not isinstance(metrics, list):
                rows = [_row(metrics, i) for i in range(steps)]
            self._sums = functools.reduce(add, rows, self._sums)
        self._pending.clear()
        return self._sums

    def record(self) -> dict[str, Any]:
        """Returns the totals as JSON values."""
        return {name: [x.tolist() for x in pair] for name, pair in self.sums().items()}

    def clear(self) -> None:
        """Forgets everything."""
        self._sums = {}
        self._pending.clear()


def _row(metrics: Any, index: int) -> Any:
    return jax.tree.map(lambda x: x[index], metrics)
