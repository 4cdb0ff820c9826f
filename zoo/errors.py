"""The ways a run can fail that a person can do something about.

Every error here carries the exit code with which `train.py` ends, so that a supervisor
can tell "start me again" (75) from "fix me first" (everything else). The codes are those
of BSD's sysexits.h where one fits, and 128 + signal for signals.
"""

from collections.abc import Iterable
import difflib


class ZooError(Exception):
    """Base of all errors whose message is meant for the person running the program."""

    exit_code = 1


class ConfigError(ZooError):
    """A flag, a config file or the combination of both cannot work."""

    exit_code = 78


class DataError(ZooError):
    """A dataset, an image or a label is missing, damaged or not what was promised."""

    exit_code = 65


class WeightsError(ZooError, ValueError):
    """A file of weights is missing, damaged, hostile, or of another network."""

    exit_code = 65


class CheckpointError(ZooError):
    """There are checkpoints but none of them can be used."""

    exit_code = 74


class NonFiniteError(ZooError):
    """Loss, gradients or weights were NaN or infinite in more steps than are allowed."""

    exit_code = 70


class GradientError(ZooError):
    """A gradient is not the slope of the loss."""


class TemporaryError(ZooError):
    """Nothing is wrong with the run itself: disk full, workdir in use. Start it again."""

    exit_code = 75


class Interrupted(ZooError):
    """SIGTERM or Ctrl-C arrived; everything is saved.

    Args:
      signum: the signal's number; the exit code is 128 + signum.
      message: what was saved and where.
    """

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signum


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the close matches of a name, or nothing.

    Example:
      >>> suggest("lenet_5", ["lenet5", "vgg16"])
      " Did you mean 'lenet5'?"
    """
    close = difflib.get_close_matches(name, list(allowed), n=3, cutoff=0.7)
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(match) for match in close)}?"
