"""Trains a model of the zoo.

    python train.py --config=configs/x.py --workdir=runs/x

Any key of the config can be changed behind it: --config.batch_size=256. Run the same
command again to go on after an interruption. Exit codes: zoo/errors.py.
"""

from collections.abc import Sequence
import errno
import sys

from absl import app, flags, logging
import jax
from ml_collections import config_flags

from configs import default
from zoo.errors import ConfigError, TemporaryError, ZooError
from zoo.training.config import check_keys, explain_flags
from zoo.training.loop import fit
from zoo.training.mesh import initialize_distributed

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
        initialize_distributed()
        overrides = config_flags.get_override_values(flags.FLAGS["config"])
        origin = [config_flags.get_config_filename(flags.FLAGS["config"])]
        origin += [f"--config.{key}={value!r}" for key, value in overrides.items()]
        fit(CONFIG.value, WORKDIR.value or "", origin=" ".join(origin))
    except ZooError as error:
        return report(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return report(TemporaryError(f"{error}; make room, then run the same command again"))
    return 0


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main, flags_parser=parse)
