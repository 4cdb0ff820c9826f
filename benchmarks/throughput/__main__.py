"""How many images per second models train on, or classify, and where the time goes.

    python -m benchmarks.throughput --models='resnet*,vgg16' --mode=both --batch=64
    python -m benchmarks.throughput --models=resnet50 --mode=train --dtype=bfloat16 \
        --input=real --data=folder:/path --threads=8
    python -m benchmarks.throughput --models=resnet50 --devices=1,2,4,8

Each model is measured in a process of its own, each mode and number of devices likewise; one
that fails is told and the others go on. With several processes, on all hosts of a pod or by
JAX_COORDINATOR_ADDRESS, the same command runs on each, and process 0 has the results.

Training is the compiled step of train.py, the whole of it, by SGD with momentum. Inference
takes pixels and returns logits. Printed are a table and where JSON and CSV were written:
benchmarks/results/. benchmarks/README.md tells how to read the numbers.
"""

from collections.abc import Sequence
import os
import sys

from absl import app, flags
import jax

from benchmarks.throughput.job import make_jobs
from benchmarks.throughput.reporting import progress, report
from benchmarks.throughput.running import Runner, say
from zoo.errors import ConfigError, ZooError
from zoo.training.clusters import find_cluster
from zoo.training.config import DTYPES
from zoo.training.parallel import MODES
from zoo.training.startup import describe_compiler, start

flags.DEFINE_list("models", None, "Names or wildcards, as in 'resnet*,vgg16'.")
flags.DEFINE_enum("mode", "both", ["infer", "train", "both"], "What to measure.")
flags.DEFINE_enum(
    "input",
    "device",
    ["device", "host", "real"],
    "Batches: one of noise that stays on the devices, noise sent from the host, or --data.",
)
flags.DEFINE_string("data", None, "Of --input=real, a config.data.name: digits, folder:/path, …")
flags.DEFINE_integer("threads", 2, "That read it, per process.", lower_bound=1)
flags.DEFINE_integer("prefetch", 2, "Batches to read or send ahead.", lower_bound=0)
flags.DEFINE_integer(
    "batch", 64, "Images per device; halved when memory does not suffice.", lower_bound=1
)
flags.DEFINE_integer("image_size", None, "Default: as published.", lower_bound=1)
flags.DEFINE_enum("dtype", "float32", DTYPES, "To compute in.")
flags.DEFINE_bool("fold", False, "Fold BatchNorm into the convolutions, for inference.")
flags.DEFINE_list("devices", [], "How many, of all processes, one after the other; default all.")
flags.DEFINE_enum("parallel", "jit", MODES, "config.parallel.mode of training.")
flags.DEFINE_integer("steps", 30, "That are timed.", lower_bound=2)
flags.DEFINE_integer("warmup", 5, "Steps before those, besides the first.", lower_bound=0)
flags.DEFINE_integer("simulate_devices", 0, "On this CPU, to try what many do.", lower_bound=0)
flags.DEFINE_string("compilation_cache", None, "As config.compilation_cache: '' for none.")
flags.DEFINE_float("timeout", 3600, "Seconds for one measurement.", lower_bound=1)
flags.DEFINE_string("out", None, "Where results go, without .json; default by device.")


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags, turning what is wrong with them into one line."""
    if any(flag.lstrip("-").startswith("help") for flag in argv):
        return app.parse_flags_with_usage(list(argv))
    try:
        return flags.FLAGS(list(argv))
    except flags.Error as error:
        sys.exit(f"throughput: {error}; --help lists all")


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes; returns 1 if anything failed, 78 for flags that cannot work."""
    values = flags.FLAGS.flag_values_dict()
    try:
        if len(argv) > 1:
            raise ConfigError(f"{argv[1]!r} is not a flag; flags begin with --")
        jobs = make_jobs(values)
        platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
        alone = find_cluster(os.environ, platforms or "") is None
    except ZooError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return error.exit_code
    # The processes below find the flags set; this one never starts JAX, which would hold the
    # devices.
    start(values["compilation_cache"], on_cpu=values["simulate_devices"] > 0)
    for name, value in describe_compiler().items():
        say(f"{name}: {value}")
    runner, rows, before = Runner(values["timeout"], alone=alone), [], os.getloadavg()
    for job in jobs:
        rows.append(runner.run(job))
        say(progress(rows[-1]))
    report(rows, {"before": before, "after": os.getloadavg()}, values["out"])
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
