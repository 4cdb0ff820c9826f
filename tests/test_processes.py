"""Real processes: killed at random, asked to stop, and two training as one."""

import collections
import json
from pathlib import Path
import random
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
from tests.programs import QUICK, environment, start, train
from tests.training.test_loop import assert_same_bits, final_state, log_of
from zoo.data.source import open_splits
from zoo.training.report import read_metrics

LONG = [
    "--config=configs/lenet_digits.py",
    "--config.train_for=400 steps",
    "--config.log_every=1 step",
    "--config.evaluate_every=40 steps",
    "--config.checkpoint.every=10 steps",
    "--config.average.ema_decay=0.99",
]


def load(workdir: Path):
    """Returns the final state and record of a run made with LONG."""
    config = lenet_digits.get_config()
    config.average.ema_decay = 0.99
    digits = open_splits("digits", train="train", validation="validation", test="test")
    return final_state(config, digits, workdir)


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        lines = read_metrics(workdir / "metrics.jsonl")
        if lines and lines[-1]["step"] >= step:
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_ten_kills_change_not_one_bit(tmp_path):
    """SIGKILL at ten random moments against a run that nobody touched."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    done = train(LONG, straight)
    assert done.returncode == 0, done.stderr
    rng = random.Random(0)
    seen = collections.defaultdict(set)  # (step, kind of line) -> what was logged there
    kills = 0
    for _ in range(10):
        lines = read_metrics(killed / "metrics.jsonl")
        target = (lines[-1]["step"] if lines else 0) + rng.randrange(1, 30)
        process = start(LONG, killed)
        wait_for_step(process, killed, target)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        for line in log_of(killed):
            kind = "val" if "val/loss" in line else "train"
            seen[line["step"], kind].add(json.dumps(line, sort_keys=True))
    assert kills == 10
    done = train(LONG, killed)
    assert done.returncode == 0, done.stderr
    assert "going on after step" in done.stdout
    assert log_of(killed) == log_of(straight)
    for line in log_of(straight):
        kind = "val" if "val/loss" in line else "train"
        seen[line["step"], kind].add(json.dumps(line, sort_keys=True))
    conflicts = [key for key, lines in seen.items() if len(lines) > 1]
    assert conflicts == []
    (state, record), (expected, expected_record) = load(killed), load(straight)
    assert_same_bits(state, expected)
    assert record == expected_record


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_asked_to_stop_it_saves_and_says_so(tmp_path, signum, code):
    process = start(LONG, tmp_path)
    wait_for_step(process, tmp_path, 13)
    process.send_signal(signum)
    time.sleep(0.05)
    process.send_signal(signum)  # a second one changes nothing
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    last = log_of(tmp_path)[-1]["step"]
    assert f"stopped after step {last}, saved in {tmp_path}" in err
    assert (tmp_path / "checkpoints" / str(last)).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["lenet_digits", "mlp_digits", "resnet_digits"])
def test_short_version_of_each_recipe_trains(tmp_path, recipe):
    done = train([f"--config=configs/{recipe}.py:smoke"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results.json").exists()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_two(arguments: list[str], workdir: Path) -> list[subprocess.Popen]:
    """Starts two processes of one run, each with one device and its own list of reads."""
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.reading", str(workdir / f"reads{i}.json")),
                *(*arguments, f"--workdir={workdir / 'run'}"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(
                JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(i)
            ),
        )
        for i in range(2)
    ]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    errors = [process.communicate(timeout=180)[1] for process in processes]
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 0, error
    return errors


def assert_same_training(workdir: Path, other: Path) -> None:
    """Compares the final states, up to rounding, and what was trained on."""
    config = lenet_digits.get_config()
    digits = open_splits("digits", train="train", validation="validation", test="test")
    states = [final_state(config, digits, folder)[0] for folder in (workdir, other)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(log_of(workdir), log_of(other), strict=True):
        assert a["step"] == b["step"]
        assert a.get("data/order") == b.get("data/order")


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Two processes on loopback against one process with two devices."""
    finish(start_two(QUICK, tmp_path))
    flags = "--xla_force_host_platform_device_count=2"
    done = train(QUICK, tmp_path / "one", XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "run", tmp_path / "one")
    # Each read only its share, together everything, nothing twice.
    reads = [json.loads((tmp_path / f"reads{i}.json").read_text()) for i in range(2)]
    for split, size in (("train", 12 * 64), ("validation", 180), ("test", 359)):
        mine, yours = (set(r[split]) for r in reads)
        assert not mine & yours
        assert len(mine | yours) == size
        assert abs(len(mine) - len(yours)) <= 64


@pytest.mark.slow
def test_two_processes_that_hold_all_data_train_as_one(tmp_path):
    finish(start_two([*QUICK, "--config.data.resident=True"], tmp_path))
    flags = "--xla_force_host_platform_device_count=2"
    done = train([*QUICK, "--config.data.resident=False"], tmp_path / "one", XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "run", tmp_path / "one")
    for i in range(2):  # each has read everything
        reads = json.loads((tmp_path / f"reads{i}.json").read_text())
        assert {split: len(indices) for split, indices in reads.items()} == {
            "train": 1258,
            "validation": 180,
            "test": 359,
        }


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_go_on(tmp_path):
    processes = start_two(LONG, tmp_path)
    wait_for_step(processes[0], tmp_path / "run", 13)
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], errors
    steps = sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert f"stopped after step {steps[-1]}" in errors[0]
    more = [*LONG, f"--config.train_for={steps[-1] + 3} steps"]
    finish(start_two([*more, "--config.checkpoint.allow_changes=True"], tmp_path))
    assert log_of(tmp_path / "run")[-1]["step"] == steps[-1] + 3
