"""A contender's process seen from outside: asked over a pipe, stopped while it is not asked."""

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import os
from pathlib import Path
import select
import signal
import subprocess
import sys
import time
from typing import Any

from benchmarks.peers.contenders import Contender
from benchmarks.peers.worker import Job

ROOT = Path(__file__).parent.parent.parent
# Of these the contenders have their own, or none: what the caller has set must not reach them.
HIDDEN = ("XLA_", "JAX_", "KERAS_", "OMP_", "KMP_", "MKL_", "GOMP_", "TORCH", "TF_", "ORT_")


class ContenderError(Exception):
    """What a contender could not do."""


def environment(contender: Contender, threads: int, cache: Path) -> dict[str, str]:
    """Returns the variables of a contender's process.

    Args:
      contender: whose they are.
      threads: for the libraries that read their number from the environment.
      cache: folder in which compiled programs are kept from run to run.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN)}
    numbers = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    caches = {
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": str(threads),
    }
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    return {**kept, **numbers, **caches, **quiet, **contender.environment}


class Process:
    """A contender at work on a model.

    Args:
      contender: of the table.
      job: what it is to do.
      variables: of its environment.
      log: file for what its libraries print.
    """

    def __init__(self, contender: Contender, job: Job, variables: Mapping[str, str], log: Path):
        self.contender, self._log = contender, log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "benchmarks.peers.worker"),
                    json.dumps(dataclasses.asdict(job)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=ROOT,
                env=dict(variables),
                start_new_session=True,  # so that its helpers stop and end with it
            )
        self._rest = b""

    @property
    def pid(self) -> int:
        """Of the process, and of the group of it and its helpers."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, command: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Lets the process do something and returns its answer; it is stopped before and after.

        Args:
          command: see `benchmarks.peers.worker`.
          seconds: to wait for the answer.

        Raises:
          ContenderError: if it reports an error, ends, or does not answer in time. After the
            latter two it is gone.
        """
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            line = self._read_line(seconds)
        except BrokenPipeError:
            line = None
        if line is None:
            code = self._process.wait()
            self.close()
            raise ContenderError(f"its process ended with code {code}: {self._last_words()}")
        self._signal(signal.SIGSTOP)
        reply = json.loads(line)
        if "error" in reply:
            raise ContenderError(reply["error"])
        return reply

    def _read_line(self, seconds: float) -> bytes | None:
        """Returns the next line, or None if there will be none."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select(
                [self._process.stdout], [], [], max(0, deadline - time.monotonic())
            )
            if not ready:
                self.close()
                raise ContenderError(f"no answer within {seconds:.0f} s")
            part = os.read(self._process.stdout.fileno(), 2**16)
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return (lines or ["it said nothing"])[-1][:300]

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may be gone; reading tells
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Ends the process and its helpers."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
