"""Arrays on disk that are longer than the memory: .npy files that grow row by row."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np


class ArrayWriter:
    """Writes an array [N, …] as one .npy file, or several where it is large.

    Call `append` and at last `close`, which gives the files their names: STEM.npy, or
    STEM-00000-of-00003.npy and so on.

    Args:
      stem: the files' path without its end.
      shape: of one row.
      dtype: of the array.
      most_bytes: of one file; it has at least one row.
    """

    def __init__(self, stem: Path, shape: Sequence[int], dtype: str, most_bytes: float):
        self._stem, self._shape, self._dtype = stem, tuple(shape), np.dtype(dtype)
        row_bytes = int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize
        self._most_rows = max(1, int(most_bytes // max(row_bytes, 1)))
        self._file: IO[bytes] | None = None
        self._rows = 0  # in the file that is open
        self._done: list[Path] = []

    def append(self, rows: np.ndarray) -> None:
        """Adds rows [B, …] of the array."""
        rows = np.ascontiguousarray(rows, self._dtype)
        while len(rows):
            if self._rows == self._most_rows:
                self._end_file()
            if self._file is None:
                self._begin_file()
            assert self._file is not None
            part = rows[: self._most_rows - self._rows]
            self._file.write(part.data)
            self._rows += len(part)
            rows = rows[len(part) :]

    def close(self) -> list[str]:
        """Returns the names of all files, which are then complete."""
        if self._file is None and not self._done:
            self._begin_file()  # of no rows
        self._end_file()
        count = len(self._done)
        for i, path in enumerate(self._done):
            end = "" if count == 1 else f"-{i:05}-of-{count:05}"
            self._done[i] = path.rename(path.with_name(f"{self._stem.name}{end}.npy"))
        return [path.name for path in self._done]

    def abandon(self) -> None:
        """Closes what is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin_file(self) -> None:
        path = self._stem.with_name(f"{self._stem.name}.{len(self._done)}.part")
        self._done.append(path)
        self._file = path.open("wb")
        self._write_header()

    def _end_file(self) -> None:
        if self._file is None:
            return
        self._file.seek(0)
        self._write_header()  # now that the number of rows is known; NumPy leaves room for it
        self._file.close()
        self._file, self._rows = None, 0

    def _write_header(self) -> None:
        assert self._file is not None
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


def open_arrays(paths: Sequence[Path]) -> np.ndarray:
    """Returns the array of one or several .npy files: mapped if it is one, else in memory.

    Raises:
      OSError, ValueError, EOFError: for files that are no arrays, or do not fit.
    """
    parts = [np.load(path, mmap_mode="r") for path in paths]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
