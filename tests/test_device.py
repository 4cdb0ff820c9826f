"""What only an accelerator can show: `pytest -m device`, on whatever JAX finds there.

`JAX_PLATFORMS=cpu pytest -m device` tries the tests themselves.
"""

import json
import os
from pathlib import Path
import re
import signal

import pytest

from tests.programs import start, train, wait_for_step
from tests.training.test_loop import log_of

pytestmark = [pytest.mark.device, pytest.mark.timeout(900)]

PLATFORMS = os.environ["ZOO_TESTS_PLATFORMS"]
ENVIRONMENT = {"JAX_PLATFORMS": PLATFORMS, "XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
FLAGS = [
    "--config=configs/resnet_digits.py",  # BatchNorm and augmentation
    "--config.train_for=60 steps",
    "--config.log_every=1 step",
    "--config.evaluate_every=20 steps",
    "--config.checkpoint.every=10 steps",
    "--config.average.ema_decay=0.9",
    "--config.augment.mix={'mixup_alpha': 0.2, 'cutmix_alpha': 1.0}",
]


def run(workdir: Path, *flags: str) -> str:
    """Trains to the end, on an accelerator; returns what was printed."""
    done = train([*FLAGS, *flags], workdir, **ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    kind = re.search(r"kind=(\S+)", done.stdout)
    assert PLATFORMS == "cpu" or (kind and kind[1] != "cpu"), "JAX finds no accelerator here"
    return done.stdout


def weights(workdir: Path, name: str = "weights") -> bytes:
    return (workdir / name / "model.safetensors").read_bytes()


def assert_close_logs(workdir: Path, other: Path, rel: float) -> None:
    for a, b in zip(log_of(workdir), log_of(other), strict=True):
        assert a.get("data/order") == b.get("data/order")
        for name in {"train/loss", "val/loss"} & b.keys():
            assert a[name] == pytest.approx(b[name], rel=rel)


@pytest.mark.parametrize("held", [False, True])
def test_stopped_and_started_again_it_ends_with_the_same_bits(tmp_path, held):
    flags = [f"--config.data.resident={held}"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run(straight, *flags)
    process = start([*FLAGS, *flags], stopped, **ENVIRONMENT)
    wait_for_step(process, stopped, 13)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    run(stopped, *flags)
    for name in ("weights", "weights_ema"):
        assert weights(stopped, name) == weights(straight, name)
    assert log_of(stopped) == log_of(straight)


def test_data_on_the_device_give_the_same_training(tmp_path):
    for held in (True, False):
        run(tmp_path / str(held), f"--config.data.resident={held}", "--config.train_for=20 steps")
    assert_close_logs(tmp_path / "True", tmp_path / "False", rel=1e-2)


def test_two_seeds_at_once_are_two_runs(tmp_path):
    short = "--config.train_for=20 steps"
    run(tmp_path / "both", short, "--config.seeds=2")
    both = json.loads((tmp_path / "both" / "results.json").read_text())
    for seed in (0, 1):
        run(tmp_path / str(seed), short, f"--config.seed={seed}")
        alone = json.loads((tmp_path / str(seed) / "results.json").read_text())
        together = both["seeds"][str(seed)]["val"]["loss"]
        assert together == pytest.approx(alone["metrics"]["val"]["loss"], rel=5e-2)


@pytest.mark.parametrize("mode", ["pmap", "jax.pmap"])
def test_each_mode_trains(tmp_path, mode):
    short = "--config.train_for=20 steps"
    run(tmp_path / "jit", short)
    run(
        tmp_path / mode,
        short,
        f"--config.parallel.mode={mode}",
        "--config.parallel.batch_norm=global",
    )
    assert_close_logs(tmp_path / mode, tmp_path / "jit", rel=1e-2)
