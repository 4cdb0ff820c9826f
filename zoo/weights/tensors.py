"""What every reader of weight files gives: tensors by name, not read yet."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """An array in a file: what the file says of it, and how to get it.

    Attributes:
      shape: as declared.
      dtype: NumPy's name of it, or "bfloat16".
      read: returns the array; not to be called before the shape is known to be the one wanted,
        and not after the file is closed.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


Tensors = Mapping[str, Tensor]
