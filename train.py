"""Trains a model of the zoo: python train.py --config=configs/x.py --workdir=runs/x

Any key of the config can be changed behind it: --config.batch_size=256. Run the same
command again to go on after an interruption. Exit codes: zoo/errors.py.
"""

from collections.abc import Sequence
import logging
import sys

from absl import app, flags
from absl import logging as absl_logging
import jax
from ml_collections import config_flags

from configs import default
from zoo.errors import ConfigError, ZooError
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
    try:
        with explain_flags(argv, default.get_config()):
            rest = app.parse_flags_with_usage(list(argv))
            if not WORKDIR.value:
                raise ConfigError("--workdir=FOLDER is missing; it is where the run is kept")
            check_keys(CONFIG.value, default.get_config())
    except ZooError as error:
        sys.exit(report(error))
    return rest


def report(error: ZooError) -> int:
    """Prints an error as one line and returns its exit code."""
    print(f"zoo: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def main(argv: Sequence[str]) -> int:
    """Runs one training; returns the exit code."""
    absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax and TFDS tell what they do
    logging.getLogger("jax").setLevel(logging.ERROR)
    try:
        if len(argv) > 1:
            raise ConfigError(f"{argv[1]!r} is not a flag; flags begin with --")
        initialize_distributed()
        fit(CONFIG.value, WORKDIR.value)
    except ZooError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main, flags_parser=parse)
