"""Features in a folder: arrays, an index, and what they are of.

features.json     model, preprocessing, data, endpoints with their files, versions
index.csv         row, example (its position in the source), place, target
labels.npy        targets [N], or [N, K]; not of images without labels
ENDPOINT.npy      [N, …], row i that of line i of the index; several where it is large
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import csv
import dataclasses
import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from zoo.analysis.arrays import ArrayWriter, open_arrays
from zoo.analysis.features import feature_rows, features_of, shapes_of
from zoo.analysis.running import Rows, examples_of
from zoo.analysis.trained import Trained
from zoo.data.files import to_text
from zoo.data.source import Source
from zoo.errors import ConfigError, DataError
from zoo.training.report import versions, write_json

VERSION = 1
ABOUT, INDEX, LABELS = "features.json", "index.csv", "labels.npy"
GIGABYTE = 10**9


def write_features(
    folder: Path,
    trained: Trained,
    source: Source,
    data: Mapping[str, str],
    endpoints: Sequence[str] = ("pre_logits",),
    *,
    pool: bool = False,
    dtype: str = "float32",
    file_size: float = 4.0,
    batch_size: int = 64,
    threads: int = 2,
    max_bad: int = 0,
) -> dict[str, Any]:
    """Writes endpoints of every example of a source into a new folder: whole, or not at all.

    Args:
      folder: to make.
      trained: the model.
      source: the data, whatever their classes.
      data: what to call them: "name" and "split".
      endpoints: of the model.
      pool: whether to average maps over all positions.
      dtype: "float32" or "float16".
      file_size: of an array's file at most, in GB; what is larger goes into several.
      batch_size: over all devices.
      threads: that decode.
      max_bad: how many images that cannot be decoded to leave out.

    Returns:
      what features.json says.

    Raises:
      ConfigError: for a folder that exists already or cannot be made, or an endpoint that the
        model does not have.
      DataError: for features that are not finite, and see `zoo.data.loader.Examples`.
    """
    endpoints = tuple(dict.fromkeys(endpoints))
    compute = features_of(trained, *endpoints, pool=pool, dtype=dtype)
    shapes = shapes_of(trained, compute)
    examples = examples_of(trained, source, max_bad=max_bad)
    rows = feature_rows(trained, examples, compute, batch_size=batch_size, threads=threads)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(new_folder(folder))
        writers = {
            name: ArrayWriter(scratch / name, shapes[name], dtype, file_size * GIGABYTE)
            for name in endpoints
        }
        for writer in writers.values():
            stack.callback(writer.abandon)
        targets = _write_rows(scratch, source, rows, writers)
        arrays = {
            name: {"files": writer.close(), "shape": [len(targets), *shapes[name]], "dtype": dtype}
            for name, writer in writers.items()
        }
        if targets.size:
            np.save(scratch / LABELS, targets)
        about = _describe(trained, source, data, arrays, pool, len(targets), examples.bad)
        write_json(scratch / ABOUT, about)
    return about


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a scratch folder that takes the place of a new one at the end, or else is removed.

    Raises:
      ConfigError: if the new one exists already, or cannot be written to.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists already; give a new folder, or remove it")
    if not folder.parent.is_dir():
        raise ConfigError(f"{folder}: there is no folder {folder.parent} to make it in")
    scratch = folder.with_name(f".{folder.name}.tmp")
    try:
        if scratch.exists():
            shutil.rmtree(scratch)  # of one that was killed
        scratch.mkdir()
        yield scratch
        scratch.replace(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written to ({error.strerror})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_rows(
    folder: Path, source: Source, rows: Iterator[Rows], writers: Mapping[str, ArrayWriter]
) -> np.ndarray:
    """Writes the arrays and the index, and returns the targets."""
    names = source.class_names
    numbers = getattr(source, "target_shape", ())
    columns = (names if numbers[0] else ()) if numbers else ("label", "class")
    targets, count = [], 0
    with (folder / INDEX).open("w", newline="", encoding="utf-8") as file:
        index = csv.writer(file)
        index.writerow(("row", "example", "place", *columns))
        for batch in rows:
            for name, writer in writers.items():
                writer.append(batch.outputs[name])
            for i, target in zip(batch.indices.tolist(), batch.targets, strict=True):
                said = target.tolist() if numbers else (int(target), names[target])
                index.writerow((count, i, to_text(source.describe(i)), *said))
                count += 1
            targets.append(batch.targets)
    if not count:
        raise DataError("no image could be read; there is nothing to write")
    return np.concatenate(targets)


def _describe(
    trained: Trained,
    source: Source,
    data: Mapping[str, str],
    arrays: Mapping[str, Any],
    pool: bool,
    count: int,
    bad: Mapping[int, str],
) -> dict[str, Any]:
    prepared = dataclasses.asdict(trained.preprocessing)
    del prepared["class_names"]  # of the model
    return {
        "version": VERSION,
        "model": trained.label,
        "architecture": type(trained.model).__name__,
        "preprocessing": prepared,
        "endpoints": arrays,
        "pool": pool,
        "data": {**data, "fingerprint": source.fingerprint},
        "classes": list(source.class_names),
        "examples": count,
        "left_out": [to_text(why) for why in bad.values()],
        "versions": versions(),
    }


def load_features(folder: str | Path, endpoint: str | None = None) -> tuple[np.ndarray, Any]:
    """Returns features and targets of a folder that `write_features` made.

    Args:
      folder: where.
      endpoint: which one; None where there is one only.

    Returns:
      [N, …], mapped from the disk if it is one file, and the targets [N] or [N, K], None if the
      images had none.

    Raises:
      ConfigError: for an endpoint that is not there.
      DataError: for a folder without features, or with damaged ones.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text())
        if about["version"] != VERSION:
            raise ValueError("of another version of zoo")
        arrays = about["endpoints"]
        if endpoint is None and len(arrays) == 1:
            endpoint = next(iter(arrays))
        if endpoint not in arrays:
            raise ConfigError(f"{folder}: endpoint {endpoint!r} is not among {', '.join(arrays)}")
        features = open_arrays([folder / name for name in arrays[endpoint]["files"]])
        targets = np.load(folder / LABELS) if (folder / LABELS).exists() else None
        if list(features.shape) != arrays[endpoint]["shape"]:
            raise ValueError(f"{endpoint} is {list(features.shape)}, not as {ABOUT} says")
        return features, targets
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(
            f"{folder}: no features can be read from it ({error}); make them with "
            "python -m zoo features"
        ) from error
