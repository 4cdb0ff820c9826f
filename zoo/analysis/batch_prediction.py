"""A trained model put to work on files: a row for each, in order, once, whatever happens."""

from collections.abc import Iterator, Sequence
import dataclasses
import math
from pathlib import Path
import sys
import time
from typing import Any, NamedTuple

import jax

from zoo.analysis.journal import Journal, Row, open_journal
from zoo.analysis.running import examples_of, logits_of, run_over, track
from zoo.analysis.sorting import Sorter, check_is_empty
from zoo.analysis.tables import write_table
from zoo.analysis.trained import Trained
from zoo.analysis.wording import Wording
from zoo.data.files import FilesSource, to_text
from zoo.data.source import digest
from zoo.errors import Interrupted
from zoo.folding import fold_batchnorm
from zoo.registry import identify
from zoo.training.report import warn
from zoo.training.signals import StopRequest, watch_signals

SHOWN = 20  # bad files, of a job whose table tells them all


class Summary(NamedTuple):
    """What a job came to.

    Attributes:
      files: how many.
      bad: how many of them have an error instead of an answer.
      done_now: how many were not done by an earlier start.
      seconds: that this took, compilation included, but not what came before.
    """

    files: int
    bad: int
    done_now: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Sorting:
    """How images are sorted into a folder for each class; see `zoo.analysis.sorting.Sorter`.

    Attributes:
      folder: FOLDER.
      min_probability: what is less probable goes to FOLDER/_unsure.
      link: make links instead of copies.
    """

    folder: Path
    min_probability: float = 0.0
    link: bool = False


def columns_of(wording: Wording) -> dict[str, type]:
    """Returns names and types of the columns of a table of wording."""
    return {"file": str, **wording.columns, "error": str}


def predict_files(
    trained: Trained,
    wording: Wording,
    paths: Sequence[str],
    *,
    batch_size: int = 64,
    threads: int = 2,
) -> Iterator[list[Row]]:
    """Yields a row for each file, in order, batch by batch.

    A row has the columns of `columns_of`. "file" is the path as `zoo.data.files.to_text` writes it.
    Of a file that cannot be read, or of which the model says what is not finite, "error" says so
    and the answer is None; else "error" is None.

    Args:
      trained: the model; its BatchNorm is folded.
      wording: of `wording_of`.
      paths: of the files.
      batch_size: a multiple of the number of devices, see `zoo.analysis.running.whole_batch`.
      threads: that decode.
    """
    model, variables = fold_batchnorm(trained.model, trained.variables)
    trained = dataclasses.replace(trained, model=model, variables=variables)
    examples = examples_of(trained, FilesSource(paths), max_bad=len(paths))
    logits = logits_of(trained)

    def compute(variables: Any, images: jax.Array) -> tuple[jax.Array, ...]:
        return wording.compute(logits(variables, images))

    batches = run_over(trained, examples, compute, batch_size=batch_size, threads=threads)
    for start, batch in zip(range(0, len(paths), batch_size), batches, strict=True):
        found = dict(zip(batch.indices.tolist(), zip(*batch.outputs, strict=True), strict=True))
        yield [
            _row(wording, paths[i], found.get(i), examples.bad.get(i, ""))
            for i in range(start, min(start + batch_size, len(paths)))
        ]


def _row(wording: Wording, path: str, outputs: Any, error: str) -> Row:
    row: Row = {"file": to_text(path), **dict.fromkeys(wording.columns), "error": None}
    if outputs is None:
        return row | {"error": to_text(error.removeprefix(f"{path}: "))}
    values = wording.values(outputs)
    if not all(math.isfinite(value) for value in values if isinstance(value, float)):
        return row | {"error": "the model's answer is not finite"}
    return row | dict(zip(wording.columns, values, strict=True))


def show(
    trained: Trained, wording: Wording, paths: Sequence[str], *, batch_size: int, threads: int
) -> Summary:
    """Prints a line for each file; what cannot be read goes to stderr."""
    bad, began, out = 0, time.monotonic(), sys.stdout
    batches = predict_files(trained, wording, paths, batch_size=batch_size, threads=threads)
    with watch_signals() as stop:
        # A bar and lines would disturb each other on one terminal.
        for rows in batches if out.isatty() else track(batches, len(paths), "predicting", len):
            for row in rows:
                if row["error"] is not None:
                    warn(f"{_printable(row['file'])}: {row['error']}")
                    bad += 1
                    continue
                words = wording.words([row[name] for name in wording.columns])
                print(f"{_printable(row['file'])}  {_printable(words)}", file=out)
            out.flush()
            if stop.pending:
                raise Interrupted(stop.pending, "stopped; what is on stdout is all there is")
    return Summary(len(paths), bad, len(paths), time.monotonic() - began)


def write(
    trained: Trained,
    wording: Wording,
    paths: Sequence[str],
    out: Path,
    *,
    batch_size: int,
    threads: int,
    sorting: Sorting | None = None,
) -> Summary:
    """Writes a table with a row for each file, or goes on where this was stopped.

    The table has the same bytes whether it was stopped or not, on the same devices; see
    `zoo.analysis.journal`.

    Args:
      trained: the model.
      wording: of `wording_of`.
      paths: of the files, of which none is twice the same.
      out: the table; see `zoo.analysis.tables`.
      batch_size: over all devices; how files are put into batches depends on nothing else.
      threads: that decode.
      sorting: where to put the images; None leaves them where they are. The answers need a
        "class".

    Raises:
      ConfigError: if the table is another job's, or cannot be written to.
      TemporaryError: if another process writes it, or there is no room.
      Interrupted: by SIGTERM or Ctrl-C, with all rows kept.
    """
    inputs, began = [to_text(path) for path in paths], time.monotonic()
    job = _job(trained, wording, paths, batch_size, sorting)
    on = f"{jax.device_count()} {jax.devices()[0].device_kind}, jax {jax.__version__}"
    with open_journal(out, job, on) as journal:
        if journal.finished is not None:
            return Summary(journal.finished["files"], journal.finished["bad"])
        if journal.fresh and sorting is not None:
            check_is_empty(sorting.folder)
        done, bad = journal.resume(inputs, batch_size)
        rest = predict_files(trained, wording, paths[done:], batch_size=batch_size, threads=threads)
        with watch_signals() as stop:
            bad += _append(journal, rest if done < len(paths) else iter(()), done, len(paths), stop)
            seconds = time.monotonic() - began
            if sorting is not None:
                _sort(journal, paths, trained, sorting, stop)
        write_table(journal.rows(), columns_of(wording), out)
        journal.finish({"files": len(paths), "bad": bad})
    return Summary(len(paths), bad, len(paths) - done, seconds)


def _append(
    journal: Journal, batches: Iterator[list[Row]], done: int, total: int, stop: StopRequest
) -> int:
    """Adds all rows to the journal; returns how many are bad."""
    bad = 0
    for rows in track(batches, total - done, "predicting", len):
        journal.append(rows)
        done += len(rows)
        for row in rows:
            if row["error"] is not None:
                bad += 1
                if bad <= SHOWN:
                    warn(f"{_printable(row['file'])}: {row['error']}")
                if bad == SHOWN + 1:
                    warn("further ones are only in the table, in its column error")
        if stop.pending and done < total:
            _interrupt(stop.pending, f"after {done:,} of {total:,} files")
    return bad


def _sort(
    journal: Journal, paths: Sequence[str], trained: Trained, sorting: Sorting, stop: StopRequest
) -> None:
    """Puts every image that has a class where it belongs."""
    names = [to_text(name) for name in trained.class_names]
    sorter = Sorter(sorting.folder, paths, names, sorting.min_probability, sorting.link)
    rows = track(enumerate(journal.rows()), len(paths), "sorting", lambda _: 1)
    for index, row in rows:
        if row["error"] is None:
            sorter.place(index, row["class"], row["probability"])
        if stop.pending:
            _interrupt(stop.pending, f"while sorting, at {index + 1:,} of {len(paths):,} files")


def _interrupt(signum: int, when: str) -> None:
    raise Interrupted(signum, f"stopped {when}; all is kept, start the same command again to go on")


def _job(
    trained: Trained,
    wording: Wording,
    paths: Sequence[str],
    batch_size: int,
    sorting: Sorting | None,
) -> dict[str, Any]:
    """Returns all that the rows depend on."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(trained.variables))[0]
    weights = digest(
        *(part for path, leaf in leaves for part in (jax.tree_util.keystr(path), leaf))
    )
    name, fields = identify(trained.model)
    placed: Any = None
    if sorting is not None:
        placed = [str(sorting.folder), sorting.min_probability, sorting.link]
    return {
        "model": f"{name} {fields} {trained.model.dtype}",
        "weights": weights,
        "preprocessing": repr(dataclasses.replace(trained.preprocessing, class_names=None)),
        "task": repr(trained.task),
        "classes": digest(trained.class_names),
        "columns": list(columns_of(wording)),
        "number of files": len(paths),
        "names and sizes of files": FilesSource(paths).fingerprint,
        "batch size": batch_size,
        "sorting": placed,
    }


def _printable(text: str) -> str:
    """Returns a text of one line that leaves a terminal as it is."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
