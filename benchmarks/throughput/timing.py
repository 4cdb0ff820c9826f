"""Stages of compilation, times of steps and memory, of one compiled function."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import time
from typing import Any

import jax

from zoo.data.loader import Batch


@dataclasses.dataclass
class Clock:
    """Times of steps, each from the end of the one before to its own.

    A step is sent to the device while the one before is computed, as in training, and then
    that one is waited for: the device never waits for the clock. Two independent ones would
    share a CPU, though, so there each is waited for.

    Attributes:
      ahead: whether to send a step before the last one is done.
      seconds: of each step.
      waited: seconds in which the host waited for a batch, at all of them together. The
        device may have been busy meanwhile.
    """

    ahead: bool
    seconds: list[float] = dataclasses.field(default_factory=list)
    waited: float = 0.0

    def run(self, step: Callable[[Batch], Any], feed: Iterator[Batch], count: int) -> None:
        """Makes one step that does not count, and `count` that do."""
        before = step(next(feed))
        jax.block_until_ready(before)
        ended = time.perf_counter()
        for i in range(count + self.ahead):
            began = time.perf_counter()
            batch = next(feed)
            got = time.perf_counter()
            after = step(batch)
            jax.block_until_ready(before if self.ahead else after)
            before, now = after, time.perf_counter()
            if i or not self.ahead:  # else nothing new is done
                self.waited += got - began
                self.seconds.append(now - ended)
            ended = now
        jax.block_until_ready(before)


def compile_by_stages(function: Any, arguments: tuple[Any, ...]) -> tuple[dict[str, float], Any]:
    """Returns seconds by stage and the compiled program, which `function` will use, too."""
    times = [time.perf_counter()]
    stage = function
    for name in ("trace", "lower", "compile"):
        stage = getattr(stage, name)(*(arguments if name == "trace" else ()))
        times.append(time.perf_counter())
    names = ("trace_seconds", "lower_seconds", "compile_seconds")
    return {n: round(b - a, 4) for n, a, b in zip(names, times, times[1:], strict=False)}, stage


def memory_of(compiled: Any, devices: Sequence[Any]) -> dict[str, Any]:
    """Returns the peak of memory on the fullest device of this process, and who says so."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    known = [peak for peak in peaks if peak is not None]
    if known:
        return {"peak_memory_bytes": max(known), "peak_memory_by": "device"}
    found = compiled.memory_analysis()
    together = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    total = together - found.alias_size_in_bytes  # donated: argument and output at once
    return {"peak_memory_bytes": total, "peak_memory_by": "compiler"}
