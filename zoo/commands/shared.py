"""What several commands do before and after their own work."""

import argparse
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError


def begin() -> None:
    """Sets up the compiler, as train.py does, and quiets libraries that tell all they do."""
    from absl import logging

    from zoo.training.startup import start

    logging.set_verbosity(logging.ERROR)
    start(None)


def check_counts(arguments: argparse.Namespace, *names: str) -> None:
    """Raises ConfigError for one of these flags that is given and less than 1."""
    for name in names:
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')}={value}: must be 1 or more")


def check_png(out: Path) -> None:
    """Raises ConfigError unless a picture can be written there, as far as one can tell before."""
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise ConfigError(f"--out={out}: give a file that ends with .png, in a folder that exists")


def write_png(picture: Any, out: Path, what: str) -> None:
    """Writes a picture of Pillow, whole or not at all, and says so.

    Args:
      picture: of Pillow.
      out: the file.
      what: is to be seen.

    Raises:
      ConfigError: if it cannot be written.
    """
    from zoo.analysis.replacing import replacing

    try:
        with replacing(out) as scratch:
            picture.save(scratch, format="PNG")
    except OSError as error:
        raise ConfigError(f"--out={out}: cannot be written to ({error.strerror})") from error
    print(f"written to {out}: {what}")
