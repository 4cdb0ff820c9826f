"""The command line; `benchmarks.peers` says what it does."""

from collections.abc import Sequence
import os
from pathlib import Path
import sys
import time

from absl import app, flags
import jax

from benchmarks.peers.contenders import CONTENDERS, choose
from benchmarks.peers.models import MODELS, WORKS
from benchmarks.peers.plot import draw
from benchmarks.peers.run import Results, Settings, measure_all, prepare
from benchmarks.peers.summary import rates_table, ratios_table
from benchmarks.peers.turns import Limits
from benchmarks.record import RESULTS
from zoo.errors import ZooError

USUAL = Limits()

flags.DEFINE_list("models", ["*"], "Names, with wildcards.")
flags.DEFINE_list("work", list(WORKS), "train, infer or both.")
flags.DEFINE_list("contenders", ["*"], "Names, with wildcards.")
flags.DEFINE_integer("batch", 8, "Images in a step.", lower_bound=2)
flags.DEFINE_integer("size", None, "Height and width of images, to try the program with.")
flags.DEFINE_integer("threads", 2, "Of each contender, on as many cores.", lower_bound=1)
flags.DEFINE_integer("rounds", USUAL.rounds, "Turns of each contender.", lower_bound=1)
flags.DEFINE_float("turn", USUAL.turn, "Seconds of a turn; one step at least.")
flags.DEFINE_float("warm_up", USUAL.warm_up, "Seconds of warm-up; one step at least.")
flags.DEFINE_float(
    "time_limit",
    USUAL.time,
    "Seconds of warm-up and turns of a contender for a model; it has two rounds at least.",
)
flags.DEFINE_float("start_limit", USUAL.start, "Seconds to build, compile and do a first step.")
flags.DEFINE_string("xla_flags", None, "For zoo and Keras at its best, instead of zoo's own.")
flags.DEFINE_string("cache", "~/.cache/zoo_peers", "Folder for compiled programs.")
flags.DEFINE_string("name", "peers", "Of the result and the plot in benchmarks/results/.")
flags.DEFINE_bool("resume", False, "Go on with that result.")
flags.DEFINE_bool("prepare", False, "Compile everything, measure nothing.")
flags.DEFINE_bool("show", False, "Print and plot the result that is there, measure nothing.")


def settings() -> Settings:
    """Returns what the flags say.

    Raises:
      ConfigError: for names that do not exist.
    """
    given = flags.FLAGS
    limits = Limits(given.rounds, given.turn, given.warm_up, given.time_limit, given.start_limit)
    return Settings(
        models=choose(given.models, MODELS, "models"),
        works=choose(given.work, dict.fromkeys(WORKS), "work"),
        contenders=choose(given.contenders, CONTENDERS, "contenders"),
        batch=given.batch,
        size=given.size,
        threads=min(given.threads, len(os.sched_getaffinity(0))),
        xla_flags=given.xla_flags,
        limits=limits,
        cache=Path(given.cache).expanduser(),
        name=given.name,
    )


def say(*lines: str) -> None:
    """Prints lines at once."""
    print(*lines, sep="\n", flush=True)


def compile_all(wanted: Settings) -> None:
    """Lets every contender do a first step of everything."""
    for model, work, entries in prepare(wanted):
        say(f"{model}, {work}")
        for name, entry in entries.items():
            seconds = [entry.get(f"{k}_seconds", 0.0) for k in ("build", "first_step")]
            note = entry.get("error", f"built in {seconds[0]} s, first step in {seconds[1]} s")
            say(f"  {name:20} {note}")


def main(argv: Sequence[str]) -> None:
    """Measures, prints, writes and draws."""
    if len(argv) > 1:
        sys.exit(f"{argv[1]!r} is not a flag; flags begin with --")
    began = time.monotonic()
    jax.config.update("jax_platforms", "cpu")  # as all contenders have it
    try:
        wanted = settings()
        if flags.FLAGS.prepare:
            compile_all(wanted)
            return
        results = Results(wanted, resume=flags.FLAGS.resume or flags.FLAGS.show)
        if not flags.FLAGS.show:
            for result, file in measure_all(wanted, results):
                passed = f"{time.monotonic() - began:.0f} s so far; {file}"
                say(*rates_table(result), passed, "")
    except ZooError as error:
        sys.exit(f"peers: {error}")
    for work in WORKS:
        if any(result["work"] == work for result in results.done.values()):
            say(*ratios_table(results.done.values(), work), "")
    if results.done:
        say(str(draw(results.done.values(), RESULTS / f"{wanted.name}.png")))


if __name__ == "__main__":
    app.run(main)
