"""A contender that only pretends to work, without any library: see `options`."""

import os
from pathlib import Path
import threading
import time
from typing import Any

from benchmarks.peers.worker import Job, Work


class Pretend:
    parameters = 1234

    def __init__(self, job: Job, kind: str):
        self.notes: dict[str, Any] = {"kind": kind}
        self._options, self._done = job.options, 0
        if kind in self._options.get("cannot", ()):
            raise ValueError(f"there is no {kind} here")
        if "spins" in self._options:
            threading.Thread(target=self._spin, daemon=True).start()

    def _spin(self) -> None:
        while True:
            pass

    def run(self, steps: int) -> None:
        print("a library talks")
        for _ in range(steps):
            self._done += 1
            if self._done == self._options.get("dies_at"):
                print("something terrible", flush=True)
                os._exit(7)
            if self._done == self._options.get("hangs_at"):
                time.sleep(60)
            time.sleep(self._options.get("sleeps", 0.0))
        if "diary" in self._options:
            with Path(self._options["diary"]).open("a") as file:
                file.write(f"{self._options['name']} {steps}\n")


def load(job: Job, kind: str) -> Work:
    return Pretend(job, kind)
