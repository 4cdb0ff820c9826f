"""How much faster small data are that the devices hold, and several seeds at once.

    python -m benchmarks.resident --config=configs/lenet_digits.py
    python -m benchmarks.resident --config=configs/mlp_digits.py --seeds=8

The first compares images per second of the same training, read ahead by the host and held by
the devices: compiled steps, order of the examples and metrics, without evaluating and saving.
Both take turns, `--rounds` times, and the medians count. With `--seeds` it compares also, in
turns, a step of all replicas with one step of as many single runs, and the wall time of
train.py with `--config.seeds` with that of single runs, one after the other.

One line is printed for each, and benchmarks/results/ gets a JSON file.
"""

from collections.abc import Callable, Sequence
import contextlib
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags
import jax
from ml_collections import config_flags

from benchmarks.record import surroundings, write
from zoo.errors import ZooError
from zoo.training.config import Config
from zoo.training.epochs import make_trainer
from zoo.training.feeds import make_feed
from zoo.training.replicas import replicate
from zoo.training.setup import Setup, build, open_data
from zoo.training.startup import start
from zoo.training.totals import Totals

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe, as of train.py.")
SECONDS = flags.DEFINE_float("seconds", 5.0, "About how long a turn is.", lower_bound=0.1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "How many turns each has.", lower_bound=1)
SEEDS = flags.DEFINE_integer("seeds", 1, "How many replicas; 1 leaves them out.", lower_bound=1)

ROOT = Path(__file__).parent.parent


class Course:
    """A training that goes on, a turn at a time.

    Args:
      setup: of the run.
    """

    def __init__(self, setup: Setup):
        self._feed, self._state, self._step = make_feed(setup), setup.init(), 0
        self._trainer = make_trainer(setup, self._feed, 0)
        self._totals = Totals()
        self.begin()

    def begin(self) -> None:
        """Makes the first steps, which compile."""
        began = time.perf_counter()
        self.run(1)
        self.first_seconds = round(time.perf_counter() - began, 2)

    def run(self, steps: int) -> int:
        """Makes so many steps, or a few more, waits for them and returns how many they were."""
        done = 0
        while done < steps:
            self._state, metrics, count = self._trainer.advance(self._state, self._step)
            self._totals.add(metrics, count)
            self._step, done = self._step + (count or 1), done + (count or 1)
        self._totals.sums()
        self._totals.clear()
        jax.block_until_ready(self._state)
        return done

    def close(self) -> None:
        """Lets go of what reads ahead."""
        self._trainer.close()


def take_turns(courses: dict[str, Callable[[int], int]], size: int) -> dict[str, Any]:
    """Returns seconds per step of each, turn by turn, wall and processor, and their medians.

    Args:
      courses: by name, what makes a number of steps and returns how many it made.
      size: how many steps a turn is at least.
    """
    wall: dict[str, list[float]] = {name: [] for name in courses}
    processor: dict[str, list[float]] = {name: [] for name in courses}
    for _ in range(ROUNDS.value):
        for name, run in courses.items():
            began, worked = time.perf_counter(), time.process_time()
            steps = run(size)
            wall[name].append((time.perf_counter() - began) / steps)
            processor[name].append((time.process_time() - worked) / steps)
    result: dict[str, Any] = {"steps_per_turn": size}
    for name in courses:
        result[name] = {
            "seconds_per_step": round(statistics.median(wall[name]), 6),
            "processor_seconds_per_step": round(statistics.median(processor[name]), 6),
            "turns": [round(seconds, 6) for seconds in wall[name]],
        }
    return result


def steps_in(seconds: float, run: Callable[[int], int]) -> int:
    """Returns about how many steps are made in some seconds."""
    began = time.perf_counter()
    steps = run(5)
    return max(1, int(seconds * steps / (time.perf_counter() - began)))


def endless(config: Config, **changes: Any) -> Config:
    """Returns a copy of a configuration with changes, which does not end while it is timed."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({"train_for": "1000000 epochs", **changes})
    return config


def compare_feeds(config: Config) -> dict[str, Any]:
    """Returns the speed of data read by the host and of those that the devices hold."""
    with contextlib.ExitStack() as stack:
        courses = {}
        for name, held in (("host", False), ("devices", True)):
            changed = endless(config, **{"data.cache": True, "data.resident": held})
            splits = open_data(changed)
            courses[name] = Course(build(changed, splits))
            # An epoch, so that the host has all images in its cache.
            courses[name].run(len(splits.train) // config.batch_size + 1)
            stack.callback(courses[name].close)
        runs = {name: course.run for name, course in courses.items()}
        result = take_turns(runs, steps_in(SECONDS.value, runs["host"]))
    for name, course in courses.items():
        result[name]["first_seconds"] = course.first_seconds
        result[name]["images_per_second"] = round(
            config.batch_size / result[name]["seconds_per_step"]
        )
    result["ratio"] = _ratio(result, "host", "devices", "seconds_per_step")
    result["processor_ratio"] = _ratio(result, "host", "devices", "processor_seconds_per_step")
    return result


def compare_seeds(config: Config, seeds: int) -> dict[str, Any]:
    """Returns the time of a step of all replicas and of single runs, one after the other."""
    single = endless(config, **{"data.resident": True})
    several = endless(config, **{"data.resident": True, "seeds": seeds})
    one = Course(build(single, open_data(single)))
    all_ = Course(replicate(build(several, open_data(several))))

    def singly(steps: int) -> int:
        one.run(seeds * steps)
        return steps

    with contextlib.closing(one), contextlib.closing(all_):
        runs = {"singly": singly, "at_once": all_.run}
        result = take_turns(runs, steps_in(SECONDS.value, singly))
    result["ratio"] = _ratio(result, "singly", "at_once", "seconds_per_step")
    result["processor_ratio"] = _ratio(result, "singly", "at_once", "processor_seconds_per_step")
    return result


def compare_programs(seeds: int) -> dict[str, Any]:
    """Returns the wall time of train.py with several seeds, and of as many runs of it."""
    given = [a for a in sys.argv[1:] if a.startswith("--config")]
    given.append("--config.compilation_cache=")  # each compiles what it needs

    def seconds(arguments: Sequence[str]) -> float:
        with tempfile.TemporaryDirectory() as workdir:
            command = [sys.executable, "train.py", *given, *arguments, f"--workdir={workdir}"]
            began = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            return round(time.perf_counter() - began, 1)

    first = CONFIG.value.seed
    half = seeds // 2
    singles = [seconds([f"--config.seed={first + i}"]) for i in range(half)]
    at_once = seconds([f"--config.seeds={seeds}"])  # in the middle, as the load may change
    singles += [seconds([f"--config.seed={first + i}"]) for i in range(half, seeds)]
    return {
        "single_runs_seconds": singles,
        "single_runs_together_seconds": round(sum(singles), 1),
        "at_once_seconds": at_once,
        "ratio": round(sum(singles) / at_once, 2),
    }


def _ratio(result: dict[str, Any], slow: str, fast: str, key: str) -> float:
    return round(result[slow][key] / result[fast][key], 2)


def main(argv: Sequence[str]) -> None:
    """Measures, prints and writes."""
    if len(argv) > 1:
        sys.exit(f"{argv[1]!r} is not a flag; flags begin with --")
    config, seeds = CONFIG.value, SEEDS.value
    start("")  # nothing is kept: what compiles is told
    recipe = Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem
    result = {"recipe": recipe, **surroundings("benchmarks.resident")}
    before = os.getloadavg()
    try:
        result["feeds"] = feeds = compare_feeds(config)
        print(
            f"{recipe}: {feeds['host']['images_per_second']:,} images/s read by the host, "
            f"{feeds['devices']['images_per_second']:,} held by the devices: {feeds['ratio']} "
            f"times as many ({feeds['processor_ratio']} by processor time)",
            flush=True,
        )
        if seeds > 1:
            result["steps_of_seeds"] = steps = compare_seeds(config, seeds)
            result["programs_of_seeds"] = programs = compare_programs(seeds)
            print(
                f"{recipe}, {seeds} seeds: steps one after the other take {steps['ratio']} times "
                f"as long as at once ({steps['processor_ratio']} by processor time), whole runs "
                f"{programs['ratio']} times ({programs['single_runs_together_seconds']} s and "
                f"{programs['at_once_seconds']} s)"
            )
    except ZooError as error:
        sys.exit(f"resident: {error}")
    # Of 1, 5 and 15 minutes; processor time depends less on other programs.
    result["load_average"] = {"before": before, "after": os.getloadavg()}
    print(write(f"resident_{recipe}", result))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
