"""When it barks, and when it must not."""

import subprocess
import sys
import threading
import time

import pytest

from tests.conftest import ROOT
from zoo.training import watchdog as module
from zoo.training.watchdog import Watchdog, watch_progress


class Clock:
    """Stands in for the module `time`."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Result:
    """Stands in for an array that the devices are still computing."""

    def __init__(self):
        self.done = False

    def is_ready(self) -> bool:
        return self.done


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def trained(clock, limit=10.0):
    """A watchdog that has seen two steps of a second, the first of them in time 1."""
    watchdog = Watchdog(limit)
    watchdog.note("training", 0)
    for step in (1, 2):
        result = Result()
        watchdog.note("training", step, result)
        clock.now += 1
        result.done = True
        assert watchdog.overdue() is None
    return watchdog


def test_it_barks_when_nothing_advances(clock):
    watchdog = trained(clock)
    clock.now += 9.9
    assert watchdog.overdue() is None
    clock.now += 0.2
    assert watchdog.overdue() == "training, step 2: nothing advanced for 10 s"


def test_a_program_running_ahead_of_devices_that_hang_is_no_progress(clock):
    watchdog = trained(clock)
    for step in range(3, 15):
        watchdog.note("training", step, Result())
        clock.now += 1
    assert watchdog.overdue() == "training, step 14: nothing advanced for 12 s"


def test_devices_that_advance_are_progress_though_the_program_waits_for_them(clock):
    watchdog = trained(clock)
    results = [Result() for _ in range(30)]
    for step, result in enumerate(results):
        watchdog.note("training", 3 + step, result)
    for result in results:
        clock.now += 9
        result.done = True
        assert watchdog.overdue() is None


def test_slow_steps_have_ten_times_their_median(clock):
    watchdog = trained(clock)
    for step in range(3, 30):
        result = Result()
        watchdog.note("training", step, result)
        clock.now += 8
        result.done = True
        assert watchdog.overdue() is None
    clock.now += 79
    assert watchdog.overdue() is None
    clock.now += 2
    assert watchdog.overdue() is not None


def test_what_is_done_for_the_first_time_may_take_long(clock):
    watchdog = trained(clock)
    watchdog.note("evaluating val", 2)
    first = Result()
    watchdog.note("evaluating val", 2, first)  # another process is still compiling it
    clock.now += 99
    assert watchdog.overdue() is None
    first.done = True
    assert watchdog.overdue() is None
    watchdog.note("evaluating val", 2, Result())
    clock.now += 11
    assert watchdog.overdue() == "evaluating val, step 2: nothing advanced for 11 s"


def test_slow_work_that_advances_is_let_be(clock):
    watchdog = trained(clock)
    for doing in ("evaluating val", "saving"):
        for _ in range(20):
            watchdog.note(doing, 2)
            clock.now += 9
            assert watchdog.overdue() is None


def test_one_process_is_watched_only_if_asked():
    def watching() -> bool:
        return "zoo-watch" in [thread.name for thread in threading.enumerate()]

    with watch_progress(None):
        assert not watching()
    with watch_progress(0):
        assert not watching()
    with watch_progress(60.0):
        assert watching()
    deadline = time.monotonic() + 5
    while watching() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not watching()


HANGS = """
import threading, time
from zoo.training.watchdog import watch_progress
with watch_progress(0.5) as watchdog:
    watchdog.note("training", 1)
    watchdog.note("saving", 2)
    watchdog.note("training", 3)
    def somewhere_in_a_file_system():
        time.sleep(60)
    somewhere_in_a_file_system()
"""


def test_the_program_ends_with_75_and_says_where_it_hangs():
    done = subprocess.run(
        [sys.executable, "-c", HANGS], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 75, done.stderr
    assert "training, step 3: nothing advanced for" in done.stderr
    assert "somewhere_in_a_file_system" in done.stderr
