"""Running train.py as a person or a supervisor does: as a program."""

import os
from pathlib import Path
import subprocess
import sys
import time

from tests.conftest import ROOT
from zoo.training.report import read_metrics

QUICK = [
    "--config=configs/lenet_digits.py",
    "--config.train_for=12 steps",
    "--config.evaluate_every=6 steps",
    "--config.checkpoint.every=3 steps",
    "--config.log_every=1 step",
    "--config.optimizer.warmup=0 steps",
]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with one device and these changes."""
    return {**os.environ, "XLA_FLAGS": "", **changes}


def start(arguments: list[str], workdir: Path, **env: str) -> subprocess.Popen:
    """Starts train.py with its output in pipes."""
    command = [sys.executable, "train.py", *arguments, f"--workdir={workdir}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment(**env), **pipes)


def train(arguments: list[str], workdir: Path, **env: str) -> subprocess.CompletedProcess:
    """Runs train.py to its end."""
    process = start(arguments, workdir, **env)
    out, err = process.communicate(timeout=180)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Returns when a run has logged that step, or has ended, or after two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        lines = read_metrics(workdir / "metrics.jsonl")
        if lines and lines[-1]["step"] >= step:
            return
        time.sleep(0.02)
