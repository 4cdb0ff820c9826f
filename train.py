"""Trains a model of the zoo.

    python train.py --config=configs/x.py --workdir=runs/x

Any key of the config can be changed behind it: --config.batch_size=256. Run the same
command again to go on after an interruption. Exit codes: zoo/errors.py.
"""

from collections.abc import Sequence
import errno
import sys
import traceback

from absl import app, flags, logging
import jax
from ml_collections import config_flags

from configs import default
from zoo.errors import ConfigError, TemporaryError, ZooError
from zoo.training.config import check_keys, check_values, explain_flags
from zoo.training.hosts import join, lost_process, several
from zoo.training.loop import fit
from zoo.training.startup import start

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe: a file of configs/, with :variant behind it if it has any."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of this run: checkpoints, metrics, plots. Made if need be."
)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags, turning whatever is wrong with them into one clear line."""
    if any(flag.lstrip("-").startswith("help") for flag in argv):
        return app.parse_flags_with_usage(list(argv))
    try:
        reference = default.get_config()
        with explain_flags(argv, reference):
            rest = flags.FLAGS(list(argv))
            config = CONFIG.value
        if not (WORKDIR.value or config.dry_run or config.check_gradients):
            raise ConfigError("--workdir=FOLDER is missing; it is where the run is kept")
        check_keys(config, reference)
        check_values(config)
    except ZooError as error:
        sys.exit(report(error))
    return rest


def report(error: ZooError) -> int:
    """Prints an error as one line and returns its exit code."""
    print(f"zoo: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def main(argv: Sequence[str]) -> int:
    """Runs one training; returns the exit code."""
    logging.set_verbosity(logging.ERROR)  # Orbax and TFDS tell all they do
    try:
        if len(argv) > 1:
            raise ConfigError(f"{argv[1]!r} is not a flag; flags begin with --")
        config = CONFIG.value
        start(config.compilation_cache, on_cpu=config.parallel.simulate_devices > 0)
        company = join(config)
    except ZooError as error:
        return report(error)
    error = train()
    if error is not None:
        report(error)
    return company.leave(error)


def train() -> ZooError | None:
    """Runs the training; returns what ended it before its end."""
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    origin = [config_flags.get_config_filename(flags.FLAGS["config"])]
    origin += [f"--config.{key}={value!r}" for key, value in overrides.items()]
    try:
        fit(CONFIG.value, WORKDIR.value or "", origin=" ".join(origin))
    except Exception as error:
        known = explain(error)
        if known is None:
            if not several():
                raise
            traceback.print_exc()
            known = ZooError(f"{type(error).__name__}: {error}")
        return known
    return None


def explain(error: Exception) -> ZooError | None:
    """Returns what to tell of an error that a person can do something about, else None."""
    lost = lost_process(error)
    if lost is not None:
        return lost
    if isinstance(error, ZooError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TemporaryError(f"{error}; make room, then run the same command again")
    return None


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main, flags_parser=parse)
