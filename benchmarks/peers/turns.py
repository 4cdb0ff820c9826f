"""Turns: who works when, for how long, and what is written down of it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import os
from pathlib import Path
import time
from typing import Any

from benchmarks.peers.contenders import network_of
from benchmarks.peers.processes import ContenderError, Process

STABLE = 0.1  # two steps that differ by no more end the warm-up
SHORT = 0.25  # seconds; steps below are preceded, in each turn, by one that is not timed
LEAST_ROUNDS = 2  # of a contender that uses up its time, so that there is a spread


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long things may take.

    Attributes:
      rounds: that each contender works in, if it is fast enough.
      turn: seconds of steps in a turn; one step at least.
      warm_up: seconds of steps before the first round; one step at least.
      time: seconds of warm-up and turns after which a contender has no more rounds.
      start: seconds to import, build, compile and do the first step.
    """

    rounds: int = 5
    turn: float = 1.5
    warm_up: float = 6.0
    time: float = 30.0
    start: float = 900.0


Entry = dict[str, Any]  # what is written of one contender


def begin(
    processes: Mapping[str, Process], work: str, model: str, size: int, limits: Limits
) -> dict[str, Entry]:
    """Lets all contenders build their work and do its first step, two at a time.

    Args:
      processes: by contender.
      work: "train" or "infer".
      model: of `contenders.MODELS`.
      size: height and width of the images.
      limits: of time.

    Returns:
      By contender what is known of it; "error" is in it if it failed, or if its network does
      not have the number of parameters that it must have.
    """

    def one(process: Process) -> Entry:
        network = network_of(model, process.contender.family, size)
        entry: Entry = {"macs": network.macs, "differs": network.differs}
        try:
            entry |= process.ask({"begin": work}, limits.start)
        except ContenderError as error:
            return entry | {"error": str(error)}
        if entry["parameters"] != network.parameters:
            entry["error"] = (
                f"its network has {entry['parameters']:,} parameters; the same one in zoo has "
                f"{network.parameters:,}"
            )
        return entry

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(processes, pool.map(one, processes.values()), strict=True))


def warm_up(process: Process, entry: Entry, limits: Limits) -> None:
    """Does steps until two take about as long; writes "warm_up_seconds" into the entry."""
    seconds = entry["warm_up_seconds"] = []
    while True:
        seconds.append(round(process.ask({"steps": 1}, limits.start)["seconds"], 5))
        last = seconds[-1]
        stable = len(seconds) > 1 and abs(last - seconds[-2]) <= STABLE * last
        if stable or sum(seconds) + last > limits.warm_up:
            return


def take_turn(process: Process, steps: int, untimed: int, limits: Limits) -> dict[str, Any]:
    """Lets one contender work and returns the turn's figures.

    Args:
      process: of the contender; all others are stopped.
      steps: to time.
      untimed: steps before.
      limits: of time.

    Returns:
      "seconds" and "processor_seconds" of a step; "others", the part of the processors that
      programs outside of this comparison took meanwhile.
    """
    own, busy, began = time.process_time(), busy_seconds(), time.perf_counter()
    reply = process.ask({"steps": steps, "untimed": untimed}, limits.start)
    wall = time.perf_counter() - began
    known = reply["all_processor_seconds"] + time.process_time() - own
    others = max(0.0, busy_seconds() - busy - known) / (wall * (os.cpu_count() or 1))
    return {
        "seconds": round(reply["seconds"] / steps, 6),
        "processor_seconds": round(reply["processor_seconds"] / steps, 6),
        "others": round(others, 3),
    }


def busy_seconds() -> float:
    """Returns for how long the processors have been busy with anything, in all."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = [int(field) for field in fields[:8]]
    idle, waiting = ticks[3], ticks[4]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def compare(processes: Mapping[str, Process], entries: Mapping[str, Entry], limits: Limits) -> None:
    """Warms up all contenders that have begun, and lets them take turns.

    Args:
      processes: by contender.
      entries: of `begin`; gets "turns", a list of what `take_turn` returns with the number of
        the round, "steps_per_turn", and "error" where one fails.
      limits: of time.
    """
    able = {name: p for name, p in processes.items() if "error" not in entries[name]}
    for name, process in able.items():
        entry = entries[name]
        try:
            warm_up(process, entry, limits)
        except ContenderError as error:
            entry["error"] = str(error)
            continue
        step = min(entry["warm_up_seconds"])
        entry["steps_per_turn"] = max(1, round(limits.turn / step))
        entry["untimed_steps_per_turn"] = int(step < SHORT)
        entry["turns"] = []
    for number in range(limits.rounds):
        for name, process in able.items():
            entry = entries[name]
            if "error" in entry or not _has_time(entry, limits):
                continue
            steps, untimed = entry["steps_per_turn"], entry["untimed_steps_per_turn"]
            try:
                turn = take_turn(process, steps, untimed, limits)
            except ContenderError as error:
                entry["error"] = str(error)
                continue
            entry["turns"].append({"round": number, **turn, "load": os.getloadavg()[0]})


def _has_time(entry: Entry, limits: Limits) -> bool:
    """Returns whether one more turn fits into a contender's time."""
    if len(entry["turns"]) < LEAST_ROUNDS:
        return True
    steps = entry["steps_per_turn"]
    taken = [steps * turn["seconds"] for turn in entry["turns"]]
    return sum(entry["warm_up_seconds"]) + sum(taken) + taken[-1] <= limits.time


def end(processes: Mapping[str, Process], entries: Mapping[str, Entry]) -> None:
    """Lets all contenders let go of their work; writes "peak_bytes" of memory."""
    for name, process in processes.items():
        if "error" in entries[name]:
            process.close()
            continue
        try:
            entries[name].update(process.ask({"end": True}, 60))
        except ContenderError as error:
            entries[name]["error"] = f"at the end: {error}"
