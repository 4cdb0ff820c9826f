"""The MNIST family's own files: IDX, plain or gzipped.

A folder holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-…` and
`t10k-labels-…`, each also as `.gz` (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
from pathlib import Path
import zlib

import numpy as np

from zoo.data.source import ArraySource, parse_split, slice_bounds
from zoo.errors import ConfigError, DataError

PREFIXES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Returns the uint8 array of one IDX file, of the shape its header gives.

    Raises:
      DataError: for a damaged file, naming it and what is wrong.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or not 1 <= data[3] <= 4:
        raise DataError(f"{path}: not an IDX file of unsigned bytes (header {data[:4].hex()})")
    header = 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
    if len(data) != header + math.prod(shape):
        raise DataError(
            f"{path}: the header promises {list(shape)}, {math.prod(shape)} bytes; "
            f"{len(data) - header} follow. Is the file cut short?"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def open_idx(folder: str, split: str) -> ArraySource:
    """Returns one split of a folder of IDX files, in file order.

    Args:
      folder: where the four files are.
      split: `train` or `test`, with an optional slice: `train[:55000]`.

    Raises:
      ConfigError: for another split.
      DataError: for missing or damaged files.
    """
    name, start, stop = parse_split(split)
    if name not in PREFIXES:
        raise ConfigError(
            f"split {split!r} of idx:{folder}: IDX folders have {list(PREFIXES)}; for a "
            "validation split take a slice, as in --config.data.train_split='train[:55000]' "
            "--config.data.validation_split='train[55000:]'"
        )

    def read(kind: str) -> np.ndarray:
        file = Path(folder) / f"{PREFIXES[name]}-{kind}-ubyte"
        found = [f for f in (file, file.with_name(file.name + ".gz")) if f.is_file()]
        if not found:
            raise DataError(f"{file}[.gz]: no such file; idx:/path names the folder it is in")
        return read_idx(found[0])

    images, labels = read("images-idx3"), read("labels-idx1")
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"idx:{folder} {name}: images {list(images.shape)} and labels {list(labels.shape)} "
            "do not belong together"
        )
    # The classes are those of the whole file, whatever the slice happens to hold.
    class_names = [str(i) for i in range(int(labels.max(initial=0)) + 1)]
    low, high = slice_bounds(start, stop, len(labels))
    return ArraySource(images[low:high], labels[low:high], class_names, f"idx:{folder} {split}")
