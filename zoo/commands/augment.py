"""`python -m zoo augment`: a picture of what a recipe's augmentation makes of the data."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.commands.parsing import Commands, add_command
from zoo.commands.shared import check_png, write_png
from zoo.errors import ConfigError

DESCRIPTION = """\
Draws what a recipe's augmentation makes of examples, by the functions that training uses.
Each row is an example: first as evaluation sees it, then in one epoch after the other. What is
mixed is mixed with the other rows. Any key of the recipe can be changed: --config.KEY=VALUE.
"""

EXAMPLE = """\
python -m zoo augment --config=configs/lenet_digits.py --out=grid.png --rows=4 \\
        --config.augment.images="(('rand_augment', {'num_ops': 2}),)"
"""


def add(commands: Commands) -> None:
    """Declares the command."""
    command = add_command(
        commands,
        "augment",
        run,
        "a picture of what a recipe's augmentation makes of the data",
        DESCRIPTION,
        EXAMPLE,
    )
    command.set_defaults(takes=("--config.", "--noconfig."))
    command.add_argument("--config", required=True, help="FILE or FILE:VARIANT of configs/")
    command.add_argument("--out", type=Path, required=True, help="the .png to write")
    command.add_argument("--rows", type=int, default=8, help="examples of the batch (default: 8)")
    command.add_argument("--columns", type=int, default=8, help="epochs and one (default: 8)")
    command.add_argument("--step", type=int, default=0, help="of training, whose batch is shown")
    command.add_argument("--split", choices=("train", "validation", "test"), default="train")


def run(arguments: argparse.Namespace) -> None:
    """Draws what a recipe's augmentation makes of examples."""
    check_png(arguments.out)
    if arguments.rows < 1 or arguments.columns < 1 or arguments.step < 0:
        raise ConfigError("--rows and --columns must be 1 or more, --step 0 or more")
    config = read_config(arguments.config, arguments.rest)
    from zoo.training.preview import preview
    from zoo.training.startup import start

    start(config.compilation_cache, onednn=config.onednn)
    grid = preview(
        config, arguments.split, step=arguments.step, rows=arguments.rows, columns=arguments.columns
    )
    write_png(grid, arguments.out, f"examples of step {arguments.step}")


def read_config(name: str, overrides: Sequence[str]) -> Any:
    """Returns a recipe, changed and checked as `train.py` does it.

    Args:
      name: of its file, with :variant behind it if it has any.
      overrides: what the command line has besides, as in `--config.seed=1`.

    Raises:
      ConfigError: for whatever is wrong with it.
    """
    try:
        from absl import flags, logging
        from ml_collections import config_flags

        from configs import default
        from zoo.training.config import check_keys, check_values, explain_flags
    except ImportError as error:
        raise ConfigError(
            f"{error}: recipes need zoo[train], and a clone of the repository to run in"
        ) from error
    logging.set_verbosity(logging.ERROR)  # TFDS tells all it does
    argv = ["zoo", f"--config={name}", *overrides]
    reference, values = default.get_config(), flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    with explain_flags(argv, reference):
        rest = values(argv)[1:]
        config: Any = holder.value
    if rest:
        raise ConfigError(f"{rest[0]!r} is not a flag; flags begin with --")
    check_keys(config, reference)
    check_values(config)
    return config
