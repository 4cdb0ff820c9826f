"""Files that are there whole or not at all."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a scratch file to write; it takes the file's name, on the disk, or goes.

    Its name follows from the file's, so that one left behind by a kill is written over.
    """
    scratch = file.with_name(f"{'' if file.name.startswith('.') else '.'}{file.name}.tmp")
    try:
        yield scratch
        with scratch.open("rb") as written:
            os.fsync(written.fileno())
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)
