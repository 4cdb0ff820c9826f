"""A real process: killed at random, asked to stop."""

import collections
import json
from pathlib import Path
import random
import signal
import time

import pytest

from configs import lenet_digits
from tests.programs import start, train, wait_for_step
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
