"""What the contenders' modules share."""

import math
import os
from typing import Any

import numpy as np


def xla_flags() -> str:
    """Returns XLA's flags of this process."""
    return os.environ.get("XLA_FLAGS", "")


def check_finite(outcome: Any) -> None:
    """Raises AssertionError if the first number of an array is not finite."""
    first = float(np.asarray(outcome).flat[0])
    assert math.isfinite(first), f"the outcome is {first}"
