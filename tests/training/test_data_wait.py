"""Waiting for data is what the devices do, not what the host does."""

from concurrent.futures import Future, ThreadPoolExecutor
import time
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from zoo.data.loader import map_ahead
from zoo.training.epochs import StepByStep
from zoo.training.progress import DataWait, Stopwatch


class Busy:
    """A result that is there after some seconds."""

    def __init__(self, seconds: float):
        self._until = time.perf_counter() + seconds

    def is_ready(self) -> bool:
        return time.perf_counter() >= self._until


@pytest.mark.parametrize(
    ("busy", "least", "most"), [(0.0, 0.25, 9), (0.15, 0.1, 9), (60.0, 0.0, 0.0)]
)
def test_only_idle_devices_wait(busy, least, most):
    wait = DataWait()
    wait.working_on({"loss": Busy(busy)})
    with ThreadPoolExecutor(1) as pool:
        wait(pool.submit(time.sleep, 0.3))
    assert least <= wait.lap() <= most
    assert wait.lap() == 0


def test_before_the_first_step_everything_waits():
    wait = DataWait()
    with ThreadPoolExecutor(1) as pool:
        wait(pool.submit(time.sleep, 0.1))
    assert wait.lap() >= 0.09


def test_what_is_there_is_not_waited_for():
    told: list[Future] = []
    results = map_ahead(str, range(3), 1, 1, told.append)
    assert next(results) == "0"
    time.sleep(0.2)
    before = len(told)
    assert next(results) == "1" and len(told) == before  # had been ready since long
    assert list(results) == ["2"]

    slow = map_ahead(lambda i: time.sleep(0.1) or i, range(2), 1, 0, told.append)
    assert list(slow) == [0, 1] and len(told) >= before + 2


def test_a_trainer_says_how_long_its_steps_waited():
    def read(waiting: Any) -> Any:
        return map_ahead(lambda i: time.sleep(0.1) or jnp.ones(()) * i, range(3), 1, 0, waiting)

    setup: Any = SimpleNamespace(
        train_step=lambda state, batch, key: (state + batch, {"loss": batch}),
        make_key=lambda: None,
    )
    feed: Any = SimpleNamespace(train=lambda steps, waiting: read(waiting))
    trainer = StepByStep(setup, feed, range(3))
    state: Any = 0
    for step in range(3):
        state, _, _ = trainer.advance(state, step)
        assert 0.08 <= trainer.waited() < 5
    assert trainer.waited() == 0 and int(state) == 3


def test_the_part_of_the_time():
    watch = Stopwatch()
    watch.step(4, 60.0)
    watch.restart()  # forgets that
    time.sleep(0.1)
    watch.step(2, 0.05)
    watch.pause()
    rate, part = watch.lap()
    assert part == pytest.approx(rate * 0.05 / 2)
    assert 0 < part <= 0.5
