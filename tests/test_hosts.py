"""Real processes on loopback: they train as one, and end together, however one ends."""

import collections
from collections.abc import Iterator
import contextlib
import json
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import lenet_digits
from tests.conftest import ROOT
from tests.programs import environment, train, wait_for_step
from tests.training.test_loop import assert_same_bits, final_state, log_of
from zoo.data.source import open_splits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 90
FLAGS = [
    "--config=configs/lenet_digits.py",
    f"--config.train_for={STEPS} steps",
    "--config.log_every=1 step",
    "--config.evaluate_every=30 steps",
    "--config.checkpoint.every=5 steps",
    "--config.optimizer.warmup=5 steps",
    "--config.average.ema_decay=0.99",
    "--config.parallel.heartbeat=30",
    "--config.parallel.watchdog=8",
]
KILLED = (75, -signal.SIGABRT)  # by our own hand, or JAX's where it is faster


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Running:
    """The processes of one run.

    Args:
      folder: for the workdir, `run`, and for what they print.
      count: of processes.
      modules: to run instead of train.py, by process.
      flags: further ones, by process.
      workdirs: other ones, by process.
    """

    def __init__(self, folder, count=2, modules=None, flags=None, workdirs=None):
        self.workdir, self._folder = folder / "run", folder
        folder.mkdir(exist_ok=True)
        address = free_address()
        self.processes = []
        for i in range(count):
            program = (modules or {}).get(i, ["train"])
            workdir = (workdirs or {}).get(i, self.workdir)
            command = [sys.executable, "-m", *program, *FLAGS, *(flags or {}).get(i, [])]
            variables = environment(
                JAX_COORDINATOR_ADDRESS=address,
                JAX_NUM_PROCESSES=str(count),
                JAX_PROCESS_ID=str(i),
            )
            with (folder / f"out{i}").open("w") as out, (folder / f"err{i}").open("w") as err:
                self.processes.append(
                    subprocess.Popen(
                        [*command, f"--workdir={workdir}"],
                        cwd=ROOT,
                        stdout=out,
                        stderr=err,
                        env=variables,
                    )
                )

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def wait(self, seconds: float = 200) -> list[int]:
        """Returns the exit codes."""
        deadline = time.monotonic() + seconds
        return [p.wait(max(0.1, deadline - time.monotonic())) for p in self.processes]

    def wait_for_step(self, step: int) -> None:
        """Returns when this run has logged that step; lines of an earlier one do not count."""
        deadline = time.monotonic() + 120
        while "first step" not in self.out(0) and time.monotonic() < deadline:
            assert [p.poll() for p in self.processes] == [None] * len(self.processes), self.err(0)
            time.sleep(0.02)
        wait_for_step(self.processes[0], self.workdir, step)

    def out(self, index: int) -> str:
        return (self._folder / f"out{index}").read_text()

    def err(self, index: int) -> str:
        return (self._folder / f"err{index}").read_text()


def train_together(folder: Path, count: int = 2, **kwargs) -> Running:
    """Runs to the end."""
    with Running(folder, count, **kwargs) as running:
        codes = running.wait()
    assert codes == [0] * count, [running.err(i) for i in range(count)]
    return running


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The folder of a run of two processes that nobody touched, each noting what it reads."""
    folder = tmp_path_factory.mktemp("undisturbed")
    reading = {i: ["tests.reading", str(folder / f"reads{i}.json")] for i in range(2)}
    running = train_together(folder, modules=reading)
    assert "processes=2  joined_by=variables  coordinator=127.0.0.1:" in running.out(0)
    assert "step " not in running.out(1)
    return folder


def load(workdir: Path):
    config = lenet_digits.get_config()
    config.average.ema_decay = 0.99
    digits = open_splits("digits", train="train", validation="validation", test="test")
    return final_state(config, digits, workdir)


def simulate(folder: Path, count: int) -> Path:
    """Returns the workdir of the same run in one process with so many devices."""
    workdir = folder / "simulated"
    done = train([*FLAGS, f"--config.parallel.simulate_devices={count}"], workdir)
    assert done.returncode == 0, done.stderr
    assert f"note={count} simulated devices on one CPU: for trying, not for speed" in done.stdout
    return workdir


def test_two_processes_train_as_two_simulated_devices_to_the_bit(undisturbed, tmp_path):
    workdir, simulated = undisturbed / "run", simulate(tmp_path, 2)
    assert_same_bits(load(workdir)[0], load(simulated)[0])
    assert log_of(workdir) == log_of(simulated)


def assert_close(workdir: Path, simulated: Path) -> None:
    """Sums of four numbers depend on their order, which is another between processes.

    After 90 steps the largest difference was 9e-7 of the largest number in an array.
    """
    pairs = zip(*(jax.tree.leaves(load(w)[0]) for w in (workdir, simulated)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(b), initial=1e-9))
    for a, b in zip(log_of(workdir), log_of(simulated), strict=True):
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("flag", ["parallel.fsdp=2", "parallel.mode=pmap", "data.resident=True"])
def test_each_mode_trains_over_processes(undisturbed, tmp_path, flag):
    running = train_together(tmp_path, flags={i: [f"--config.{flag}"] for i in range(2)})
    assert_close(running.workdir, undisturbed / "run")
    assert (running.workdir / "weights" / "model.safetensors").exists()


def test_each_process_reads_its_share_and_no_more(undisturbed):
    reads = [json.loads((undisturbed / f"reads{i}.json").read_text()) for i in range(2)]
    for split, size in (("train", 1258), ("validation", 180), ("test", 359)):
        mine, yours = (set(r[split]) for r in reads)
        assert len(mine | yours) == size
        if split != "train":  # several epochs, each shuffled anew
            assert not mine & yours
            assert abs(len(mine) - len(yours)) <= 64


def test_four_processes_stop_at_one_step_and_go_on_as_one(tmp_path):
    """SIGTERM to one of four; then the same four against one process with four devices."""
    with Running(tmp_path, 4) as running:
        running.wait_for_step(33)
        running.processes[2].send_signal(signal.SIGTERM)
        codes = running.wait()
    assert codes == [143] * 4, [running.err(i) for i in range(4)]
    step = newest(running.workdir)
    assert step < STEPS
    for i in range(4):
        assert f"stopped after step {step}, saved in {running.workdir}" in running.err(i)
    train_together(tmp_path, 4)
    assert_close(running.workdir, simulate(tmp_path, 4))


def test_an_evaluation_is_finished_before_all_stop(tmp_path):
    with Running(tmp_path, modules={1: ["tests.faulty", "evaluates"]}) as running:
        running.wait_for_step(30)
        running.processes[1].send_signal(signal.SIGTERM)
        assert running.wait() == [143, 143], running.err(0)
    lines = log_of(running.workdir)
    assert [line["step"] for line in lines if "val/loss" in line] == [30]
    step = newest(running.workdir)
    assert 30 < step < 60
    assert f"stopped after step {step}" in running.err(1)


def newest(workdir: Path) -> int:
    steps = [int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit()]
    return max(steps, default=0)


@contextlib.contextmanager
def run_to(folder: Path, further: int, **kwargs) -> Iterator[Running]:
    """Starts a run and waits until it is so many steps further than its newest checkpoint."""
    begun = newest(folder / "run")
    with Running(folder, **kwargs) as running:
        running.wait_for_step(begun + further)
        yield running


def one_dies(folder: Path, victim: int) -> None:
    with run_to(folder, 7) as running:
        running.processes[victim].kill()
        left = running.processes[1 - victim]
        assert left.wait(40) in KILLED, running.err(1 - victim)


def one_dies_in_a_save(folder: Path, victim: int) -> None:
    with run_to(folder, 3) as running:
        deadline = time.monotonic() + 60
        while not list(running.workdir.glob("checkpoints/*tmp*")):
            assert time.monotonic() < deadline
        running.processes[victim].kill()
        assert running.processes[1 - victim].wait(40) in KILLED, running.err(1 - victim)


def one_is_stopped(folder: Path, victim: int) -> None:
    with run_to(folder, 7) as running:
        running.processes[victim].send_signal(signal.SIGSTOP)
        other = 1 - victim
        assert running.processes[other].wait(30) == 75, running.err(other)
        assert_barked(running, other)


def one_sleeps(folder: Path, victim: int) -> None:
    modules = {victim: ["tests.faulty", "sleep:7"]}
    with run_to(folder, 5, modules=modules) as running:
        assert running.wait(40) == [75, 75], running.err(0)
        text = running.err(0) + running.err(1)
        assert "nothing advanced for" in text
        assert "faulty.py" in running.err(victim)  # the stack says where it hangs


def assert_barked(running: Running, index: int) -> None:
    text = running.err(index)
    assert f"process {index} of 2: training, step " in text
    assert "nothing advanced for" in text
    assert "most recent call first" in text
    assert "loop.py" in text


def test_whatever_ends_one_process_ends_all_and_changes_not_one_bit(undisturbed, tmp_path):
    """Six ways to end, one after the other, in one run; then to its end."""
    seen = collections.defaultdict(set)  # (step, kind of line) -> what was logged there

    def look(workdir: Path) -> None:
        for line in log_of(workdir):
            kind = "val" if "val/loss" in line else "train"
            seen[line["step"], kind].add(json.dumps(line, sort_keys=True))

    for way, victim in (
        (one_dies, 1),
        (one_dies, 0),
        (one_dies_in_a_save, 0),
        (one_is_stopped, 1),
        (one_is_stopped, 0),
        (one_sleeps, 1),
    ):
        way(tmp_path, victim)
        look(tmp_path / "run")
    running = train_together(tmp_path)
    assert "going on after step" in running.out(0)
    assert not list(running.workdir.glob("checkpoints/*tmp*"))
    look(running.workdir)
    look(undisturbed / "run")
    assert [key for key, lines in seen.items() if len(lines) > 1] == []
    assert log_of(running.workdir) == log_of(undisturbed / "run")
    (state, record), (expected, expected_record) = load(running.workdir), load(undisturbed / "run")
    assert_same_bits(state, expected)
    assert record == expected_record


@pytest.mark.parametrize(
    ("odd", "texts"),
    [
        (
            {"flags": {1: ["--config.seed=7"]}},
            ["process 1: config.seed is 7, on process 0 it is 0"],
        ),
        ({"modules": {1: ["tests.faulty", "data"]}}, ["process 1: data train split is"]),
        ({"modules": {0: ["tests.faulty", "code"]}}, ["process 1: zoo/layers.py is", "'edited'"]),
    ],
    ids=["config", "data", "code"],
)
def test_processes_that_differ_are_refused(tmp_path, odd, texts):
    with Running(tmp_path, **odd) as running:
        assert running.wait() == [78, 78], running.err(0)
    for i in range(2):
        for text in texts:
            assert text in running.err(i)
    assert not (running.workdir / "metrics.jsonl").exists()


def test_another_workdir_is_refused(tmp_path):
    with Running(tmp_path, workdirs={1: tmp_path / "mine"}) as running:
        assert running.wait() == [78, 78], running.err(0)
    text = f"process 1: --workdir={tmp_path / 'mine'} is not the folder that process 0 sees"
    assert text in running.err(0)
    assert text in running.err(1)


def test_an_error_in_one_process_ends_the_others_with_its_code(tmp_path):
    with Running(tmp_path, modules={1: ["tests.faulty", "broken"]}) as running:
        assert running.wait(100) == [1, 1], running.err(0)
    assert "AssertionError: nobody thought of this" in running.err(1)
    assert "ended with process 1 of 2: AssertionError: nobody thought of this" in running.err(0)


@pytest.mark.parametrize("index", [0, 1])
def test_who_waits_in_vain_says_for_whom(tmp_path, index):
    address = free_address()
    done = train(
        [*FLAGS, "--config.parallel.join_within=4"],
        tmp_path,
        JAX_COORDINATOR_ADDRESS=address,
        JAX_NUM_PROCESSES="3",
        JAX_PROCESS_ID=str(index),
    )
    assert done.returncode == 75, done.stderr
    assert f"all 3 processes did not meet at {address} in 4 s" in done.stderr
