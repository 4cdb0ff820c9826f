"""The rows of a long job, kept so that a kill at any moment costs little and harms nothing.

While a job for FILE runs, its rows are appended to `.FILE.job`: a line that says which job it is,
then one JSON object per line, batch by batch. FILE itself is made of them at the end, whole, and
its journal is then a line or two that tell the same job from another.

A row counts if its line is whole, valid, and of the input that belongs there. What comes after the
last such row of a whole batch is cut off and computed again, in the same batches, so that the rows
are those of a job that was left alone. A killed process loses nothing that it has written; rows are
not forced to the disk one by one, so that a power cut may lose the last half minute's, as the
kernel's settings have it, which is then noticed and computed again. FILE is on the disk before it
gets its name.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import fcntl
import io
import json
import os
from pathlib import Path
from typing import Any

from zoo.analysis.replacing import replacing
from zoo.errors import ConfigError, TemporaryError
from zoo.training.report import warn

Row = dict[str, Any]


class Journal:
    """The journal of a job that this process holds; see `open_journal`.

    Attributes:
      finished: what `finish` was told, if the job has nothing left to do; else None.
      fresh: whether nothing had been begun.
    """

    def __init__(self, file: Path, handle: io.FileIO, out: Path, job: Mapping[str, Any], on: str):
        self._file, self._handle, self._out = file, handle, out
        self._header = dump({"job": job, "on": on})
        self.finished: dict[str, Any] | None = None
        with file.open("rb") as lines:
            first, second = lines.readline(), lines.readline()
        held, end = read_line(first) or {}, read_line(second) or {}
        kept = held.get("job")
        finished = end.get("finished") if "file" not in end else None
        if kept is None and out.exists():
            raise ConfigError(f"--out={out} exists, and is not from here; name another file")
        # A journal whose job is done and whose FILE is gone has nothing to lose.
        self.fresh = kept is None or (finished is not None and not out.exists())
        if kept is not None and not self.fresh:
            self._check_same(kept, job, finished is not None)
            self.finished, self._header = finished, first
            if finished is None and held.get("on") != on:
                warn(f"{out} was begun on other devices, so that last digits may differ")

    def _check_same(self, kept: Mapping[str, Any], job: Mapping[str, Any], done: bool) -> None:
        changes = [
            f"{name} was {kept.get(name)!r} and is {job.get(name)!r}"
            for name in {**kept, **job}
            if kept.get(name) != job.get(name)
        ]
        if changes:
            raise ConfigError(
                f"--out={self._out} {'is' if done else 'was begun as'} the result of another job: "
                f"{'; '.join(changes)}. Name another file, or delete "
                f"{self._out if done else self._file} to begin anew"
            )

    def resume(self, inputs: Sequence[str], batch_size: int) -> tuple[int, int]:
        """Begins the job, or cuts off what is not whole of it, to go on from there.

        Args:
          inputs: what the rows' "file" must be.
          batch_size: of whose multiples so many rows are kept, or all.

        Returns:
          How many rows are there, and of how many of them "error" is not None.
        """
        if self.fresh:
            self._handle.truncate(0)
            self._write(self._header)
        length, bad, kept = len(self._header), 0, (0, 0, len(self._header))
        with self._file.open("rb") as lines:
            lines.seek(length)
            for count, name in enumerate(inputs, 1):
                line = lines.readline()
                row = read_line(line)
                if row is None or row.get("file") != name or "error" not in row:
                    break
                length, bad = length + len(line), bad + (row["error"] is not None)
                if count % batch_size == 0 or count == len(inputs):
                    kept = count, bad, length
        self._handle.truncate(kept[2])
        return kept[0], kept[1]

    def append(self, rows: Sequence[Row]) -> None:
        """Adds rows; when it returns they survive the end of this process.

        Raises:
          TemporaryError: if there is no room for them.
        """
        self._write(b"".join(map(dump, rows)))

    def rows(self) -> Iterator[Row]:
        """Yields all rows."""
        with self._file.open("rb") as lines:
            lines.seek(len(self._header))
            yield from map(json.loads, lines)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Lets go of the rows, once FILE is there, and keeps the job and what it came to."""
        with writing(self._out), replacing(self._file) as scratch:
            scratch.write_bytes(self._header + dump({"finished": summary}))

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        with writing(self._out):
            while rest:
                rest = rest[self._handle.write(rest) :]


@contextlib.contextmanager
def open_journal(out: Path, job: Mapping[str, Any], on: str) -> Iterator[Journal]:
    """Holds the journal of a job, a new one or that of the same job begun before.

    Args:
      out: FILE.
      job: all that the rows depend on, as JSON holds it.
      on: the devices, on which their last digits depend.

    Raises:
      ConfigError: if FILE is something else's, or cannot be written to.
      TemporaryError: if another process is at it.
    """
    file = out.with_name(f".{out.name}.job")
    with _hold(file, out) as handle:
        try:
            yield Journal(file, handle, out, json.loads(json.dumps(job)), on)
        finally:
            if file.exists() and not file.stat().st_size:  # refused before it had begun
                file.unlink()


def _hold(file: Path, out: Path) -> io.FileIO:
    """Returns a file, opened for appending and locked for as long as it is open."""
    while True:
        try:
            handle = file.open("ab", buffering=0)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.close()
                raise TemporaryError(
                    f"--out={out} is being written by another process; wait for it, or name "
                    "another file"
                ) from None
            # The process before may have replaced it in the meantime.
            if file.exists() and os.path.samestat(os.fstat(handle.fileno()), file.stat()):
                return handle
            handle.close()
        except OSError as error:
            raise ConfigError(f"--out={out}: cannot be written to ({error.strerror})") from error


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Makes of a disk that is full, or fails, an error that says to start again."""
    try:
        yield
    except OSError as error:
        raise TemporaryError(
            f"--out={out}: cannot be written to ({error.strerror or error}); the rows so far are "
            "kept. See to it and start the same command again"
        ) from error


def dump(row: Mapping[str, Any]) -> bytes:
    """Returns a row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_line(line: bytes) -> Row | None:
    """Returns what a line holds, None if it is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
