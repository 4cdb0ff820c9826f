"""What a run knows besides its state, and how fast it is."""

from collections.abc import Sequence
from concurrent.futures import Future, wait
import math
import time
from typing import Any
import zlib

import jax
import numpy as np

from zoo.tasks.task import Best
from zoo.training.totals import Totals


class Progress:
    """What is saved with a state so that a resumed run is the uninterrupted one.

    Args:
      best: by what evaluations are compared.
      min_delta: by how much a result must be better, to be the best.
      record: of an earlier run. What was best by another metric is not so by this one.

    Attributes:
      best_step: of the best evaluation so far; None before the first.
      best_value: its result.
      order: CRC-32 of the indices of all examples trained on, in order.
      totals: training metrics since the last log line.
    """

    def __init__(self, best: Best, min_delta: float = 0.0, record: dict[str, Any] | None = None):
        record = record or {"best_step": None, "best_value": None, "order": 0, "sums": {}}
        self._best, self._min_delta = best, min_delta
        same = record.get("metric") == best.metric
        self.best_step: int | None = record["best_step"] if same else None
        self.best_value: float | None = record["best_value"] if same else None
        self.order: int = record["order"]
        self.totals = Totals(record["sums"])

    def record(self) -> dict[str, Any]:
        """Returns all this as JSON values, having waited for the devices."""
        return {
            "metric": self._best.metric,
            "best_step": self.best_step,
            "best_value": self.best_value,
            "order": self.order,
            "sums": self.totals.record(),
        }

    def trained_on(
        self, indices: Sequence[np.ndarray], metrics: Any, steps: int | None = None
    ) -> None:
        """Notes some steps: the examples of each, and metrics still on the devices.

        Args:
          indices: of each step.
          metrics: as `Totals.add` takes them.
          steps: likewise.
        """
        for each in indices:
            self.order = zlib.crc32(each.tobytes(), self.order)
        self.totals.add(metrics, steps)

    def validated(self, step: int, value: float) -> bool:
        """Notes the result of an evaluation; returns whether it is the best so far."""
        better = self._best.improves(value, self.best_value, self._min_delta)
        if better:
            self.best_step, self.best_value = step, value
        return better

    def is_stuck(self, step: int, patience: int | None) -> bool:
        """Returns whether the best is `patience` steps old, or more; never for None."""
        if patience is None or self.best_step is None:
            return False
        return step - self.best_step >= patience


class Stopwatch:
    """Seconds and steps of training alone: stopped while saving and evaluating."""

    def __init__(self):
        self._seconds, self._steps, self._since = 0.0, 0, time.perf_counter()
        self._waited = 0.0

    def step(self, count: int = 1, waited: float = 0.0) -> None:
        """Counts steps, and of their seconds those in which the devices waited for data."""
        self._steps += count
        self._waited += waited

    def restart(self) -> float:
        """Forgets all so far and returns how many seconds that was."""
        seconds = time.perf_counter() - self._since
        self._seconds, self._steps, self._since = 0.0, 0, time.perf_counter()
        self._waited = 0.0
        return seconds

    def pause(self) -> None:
        """Stops the clock."""
        self._seconds += time.perf_counter() - self._since

    def resume(self) -> None:
        """Starts the clock again."""
        self._since = time.perf_counter()

    def lap(self) -> tuple[float, float]:
        """Returns steps per second and the part of the time that went in waiting for data.

        Both are since the last lap, NaN without a step; the clock must be stopped.
        """
        rate = self._steps / self._seconds if self._steps else math.nan
        part = self._waited / self._seconds if self._steps else math.nan
        self._seconds, self._steps, self._waited = 0.0, 0, 0.0
        return rate, part


class DataWait:
    """Measures for how long the devices have nothing to do because a batch is not there yet.

    The host runs ahead of the devices. That it waits for a batch costs nothing while they work on
    what it gave them before, so only what comes after that counts.
    """

    INTERVAL = 0.001  # seconds from one look at the devices to the next

    def __init__(self):
        self._seconds, self._result = 0.0, None

    def working_on(self, result: Any) -> None:
        """Notes the result of what the devices were given last, a tree of arrays."""
        self._result = jax.tree.leaves(result)[0]

    def __call__(self, batch: Future) -> None:
        """Waits for a batch."""
        while self._result is not None and not self._result.is_ready():
            if wait([batch], self.INTERVAL).done:
                return
        began = time.perf_counter()
        wait([batch])
        self._seconds += time.perf_counter() - began

    def lap(self) -> float:
        """Returns the seconds since the last lap."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
