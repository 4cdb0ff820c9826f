"""Ends a run in which nothing advances any more, instead of waiting for ever.

A process that dies is noticed by the others. One that lives and hangs, in a file system, a
driver or a collective that not all have joined, is noticed by nobody: all wait for it.
"""

from collections import deque
from collections.abc import Iterator
import contextlib
import faulthandler
import statistics
import sys
import threading
import time
from typing import Any

import jax

from zoo.errors import TemporaryError
from zoo.training import hosts

LIMIT = 300.0  # seconds, where several processes train and no limit is given
FIRST = 10  # times as long may take what is done for the first time, for it compiles
STEPS = 10  # times as long as the median step may take a step


class Watchdog:
    """Measures the time since something last advanced, in a thread of its own.

    What the devices were told to do advances when they have done it: a program that runs
    ahead of devices that hang does not count.

    Args:
      limit: seconds; inf for no limit.
    """

    def __init__(self, limit: float):
        self._limit = limit
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._doing, self._step = "starting", 0
        self._done: set[str] = set()  # kinds of work of which something was done
        self._on_devices: deque[tuple[str, jax.Array]] = deque()
        self._seconds: deque[float] = deque([0.0], maxlen=100)  # of the last steps

    def note(self, doing: str, step: int, result: Any = None) -> None:
        """Says that something advanced.

        Args:
          doing: what goes on from here, such as "training".
          step: of the run.
          result: arrays that are there only when the devices have come so far.
        """
        with self._lock:
            self._look()
            if doing != self._doing:
                self._done.add(self._doing)
            self._doing, self._step = doing, step
            if not self._on_devices:
                self._since = time.monotonic()
            self._on_devices.extend((doing, array) for array in jax.tree.leaves(result)[:1])

    def _look(self) -> None:
        """Notes what the devices have done since the last look."""
        done = 0
        while self._on_devices and _is_ready(self._on_devices[0][1]):
            self._done.add(self._on_devices.popleft()[0])
            done += 1
        if done:
            self._seconds.append((time.monotonic() - self._since) / done)
            self._since = time.monotonic()

    def overdue(self) -> str | None:
        """Returns what has been going on for too long, in words; None if nothing has."""
        with self._lock:
            self._look()
            # Until something of its kind is done here, another process may still compile it.
            limit = self._limit * (1 if self._doing in self._done else FIRST)
            limit = max(limit, STEPS * statistics.median(self._seconds))
            seconds = time.monotonic() - self._since
            if seconds <= limit:
                return None
            return f"{self._doing}, step {self._step}: nothing advanced for {seconds:.0f} s"

    def run(self, over: threading.Event) -> None:
        """Ends the process as soon as something is overdue, unless it is over before."""
        while not over.wait(min(1.0, self._limit / 10)):
            if what := self.overdue():
                bark(what)


def _is_ready(array: Any) -> bool:
    try:
        return array.is_ready()
    except RuntimeError:  # it was given to a later computation
        return True


def bark(what: str) -> None:
    """Says what hangs, prints the stack of every thread, and ends all processes."""
    error = TemporaryError(
        f"{what} (config.parallel.watchdog). Start it again to go on from the newest checkpoint"
    )
    text = f"zoo: {hosts.place()}: {error}\nzoo: this is where each thread is:"
    print(text, file=sys.stderr, flush=True)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    hosts.end(error.exit_code, because=error, stuck=True)


@contextlib.contextmanager
def watch_progress(limit: float | None) -> Iterator[Watchdog]:
    """Gives a Watchdog that watches for as long as the block runs.

    Args:
      limit: seconds, 0 for no limit; None: LIMIT if there are several processes, else no limit.
    """
    if limit is None:
        limit = LIMIT if hosts.several() else 0
    watchdog = Watchdog(limit or float("inf"))
    over = threading.Event()
    if limit:
        thread = threading.Thread(target=watchdog.run, args=[over], name="zoo-watch", daemon=True)
        thread.start()
    try:
        yield watchdog
    finally:
        over.set()
