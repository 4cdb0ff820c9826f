"""Running measurements, a process for each."""

from collections.abc import Iterator, Mapping
import dataclasses
import itertools
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.throughput.job import OUT_OF_MEMORY, Job
from zoo.training.clusters import ADDRESS

ROOT = Path(__file__).parents[2]
PORT = "JAX_COORDINATOR_PORT"
FIRST_PORT = 8482  # JAX's own on Cloud TPU


def ports(env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yields, for one measurement after the other, the variables that give each its port.

    All hosts count alike. So nobody meets the process 0 of the measurement before, which may
    not have left yet.
    """
    host, _, port = env.get(ADDRESS, "").rpartition(":")
    for i in itertools.count():
        if host and port.isdigit():
            yield {ADDRESS: f"{host}:{int(port) + i}"}
        else:
            yield {PORT: str(int(env.get(PORT) or FIRST_PORT) + i)}


class Runner:
    """Runs measurements, one process each, and halves what does not fit.

    Args:
      timeout: seconds for one.
      alone: whether there are no other processes than this one.
    """

    def __init__(self, timeout: float, *, alone: bool):
        self._timeout, self._alone, self._ports = timeout, alone, ports(os.environ)

    def run(self, job: Job) -> dict[str, Any]:
        """Returns the result, or {"error": …} and what it was of."""
        asked = job.batch_per_device
        while True:
            code, result, text = self._once(job)
            if result is not None and code == 0:
                return result | {"batch_per_device_asked": asked}
            # A CPU's memory ends with the process.
            full = code == OUT_OF_MEMORY or (self._alone and code == -signal.SIGKILL)
            if not full or job.batch_per_device == 1:
                more = " with a batch of 1" if full else ""
                return {"model": job.model, "mode": job.mode, "error": f"{text}{more}"}
            half = job.batch_per_device // 2
            say(f"{job.model} {job.mode}: no room for {job.batch_per_device} images, trying {half}")
            job = dataclasses.replace(job, batch_per_device=half)

    def _once(self, job: Job) -> tuple[int | None, dict[str, Any] | None, str]:
        """Returns exit code, result if there is one, and the last line of its errors."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.json"
            command = [sys.executable, "-m", "benchmarks.throughput.measuring"]
            command += [json.dumps(dataclasses.asdict(job)), str(path)]
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env={**os.environ, **next(self._ports)},
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=self._timeout,
                )
            except subprocess.TimeoutExpired:
                return None, None, f"not done in {self._timeout:g} s (--timeout)"
            sys.stderr.write(done.stderr)
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            own = [line for line in lines if line.startswith(("throughput: ", "zoo: "))]
            text = (own or lines)[-1].removeprefix("throughput: ")
            result = json.loads(path.read_text()) if path.exists() else None
            return done.returncode, result, text


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)
