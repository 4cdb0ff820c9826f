"""A contender's process: does steps when told to, and tells how long they took.

The other side is `benchmarks.peers.processes`. Commands come as lines of JSON on stdin and
each is answered by one line of JSON:

    {"begin": "train"}            builds the work and does the first step, which compiles
    {"steps": 4, "untimed": 1}    does five steps and times the last four
    {"end": true}                 lets go of the work

Whatever libraries print goes to stderr.
"""

from collections.abc import Callable
import ctypes
import dataclasses
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Job:
    """What a contender is to do.

    Attributes:
      module: whose `load` makes the work.
      model: of `contenders.MODELS`.
      batch: images in a step.
      size: their height and width.
      cores: to run on.
      threads: to compute with.
      rate: of learning.
      aux_weight: what the loss of an auxiliary head counts.
      options: see `Contender`.
    """

    module: str
    model: str
    batch: int
    size: int
    cores: tuple[int, ...]
    threads: int
    rate: float
    aux_weight: float
    options: dict[str, Any]


class Work(Protocol):
    """One kind of work of one contender.

    Attributes:
      parameters: how many train.
      notes: what is worth knowing of how it is done, as JSON values.
    """

    parameters: int
    notes: dict[str, Any]

    def run(self, steps: int) -> None:
        """Does so many steps and returns when all is computed.

        Raises:
          AssertionError: if the outcome is not finite.
        """
        ...


Load = Callable[[Job, str], Work]


def answer(job: Job, load: Load, state: dict[str, Work], command: dict[str, Any]) -> Any:
    """Does what a command says and returns what to answer.

    Args:
      job: of the process.
      load: makes the work of a kind.
      state: holds the work that was begun, as "work".
      command: see the module.
    """
    if "begin" in command:
        began = time.perf_counter()
        state["work"] = load(job, command["begin"])
        built = time.perf_counter()
        state["work"].run(1)
        return {
            "parameters": state["work"].parameters,
            "notes": state["work"].notes,
            "build_seconds": round(built - began, 2),
            "first_step_seconds": round(time.perf_counter() - built, 2),
            "threads": job.threads,
            "cores": sorted(os.sched_getaffinity(0)),
        }
    if "end" in command:
        state.clear()
        gc.collect()
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    work, untimed = state["work"], command.get("untimed", 0)
    first = time.process_time()
    if untimed:
        work.run(untimed)
    began, worked = time.perf_counter(), time.process_time()
    work.run(command["steps"])
    ended = time.process_time()
    return {
        "seconds": time.perf_counter() - began,
        "processor_seconds": ended - worked,
        "all_processor_seconds": ended - first,  # with the steps that are not timed
    }


def end_with_parent() -> None:
    """Asks Linux to end this process with its parent, which may have stopped it."""
    set_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    ctypes.CDLL(None).prctl(set_signal, signal.SIGKILL)


def main() -> None:
    """Answers commands until stdin ends."""
    fields = json.loads(sys.argv[1])
    job = Job(**{**fields, "cores": tuple(fields["cores"])})
    end_with_parent()
    os.sched_setaffinity(0, job.cores)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not answer
    state: dict[str, Work] = {}
    for line in sys.stdin:
        try:
            # Imported when first asked, so that an import that fails is answered as well.
            load = importlib.import_module(job.module).load
            reply = answer(job, load, state, json.loads(line))
        except Exception as error:
            traceback.print_exc()
            text = str(error).strip().splitlines() or [""]
            reply = {"error": f"{type(error).__name__}: {text[0]}"[:500]}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
