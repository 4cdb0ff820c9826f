"""Targets from a table: FOLDER/metadata.csv says which numbers belong to which image.

The layout is that of Hugging Face's ImageFolder
(https://huggingface.co/docs/datasets/image_dataset): a header, then a line for each image.
The column `file_name` holds paths relative to the table's folder, with forward slashes; every
other column holds numbers and its header names them. Or there is one other column, `label`,
with the names of classes. The order of the lines does not matter.
"""

from collections.abc import Iterator, Sequence
import csv
import math
import os
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import DataError, suggest

TABLE = "metadata.csv"
FILE_NAME, LABEL = "file_name", "label"
LARGEST = float(np.finfo(np.float32).max)


class Table(NamedTuple):
    """A table as it is written, its N lines sorted by path.

    Attributes:
      path: of the table itself.
      columns: the K headers other than `file_name`.
      lines: the number of each line in the file.
      images: [N], paths of files that are there.
      cells: [N][K], without the spaces around them.
    """

    path: Path
    columns: tuple[str, ...]
    lines: tuple[int, ...]
    images: tuple[Path, ...]
    cells: tuple[tuple[str, ...], ...]


def read_table(path: Path) -> Table:
    """Reads a table: UTF-8 with or without a byte order mark, with any ends of lines.

    Raises:
      DataError: with file and line, for a table that is damaged or empty, for lines of
        another length than the header's, and for images that are missing, outside the
        table's folder, or there twice.
    """
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path}: the file is empty; wanted a header such as {FILE_NAME},age")
    header = [name.strip() for name in rows[0][1]]
    _check_header(header, f"{path}, line {rows[0][0]}")
    if len(rows) == 1:
        raise DataError(f"{path}: there is a header and no line for any image")
    place = header.index(FILE_NAME)
    found: dict[Path, tuple[int, tuple[str, ...]]] = {}
    for line, row in rows[1:]:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} column(s), but the header has {len(header)}")
        image = _image(row[place], path.parent, where)
        if image in found:
            raise DataError(f"{where}: {row[place]!r} is already in line {found[image][0]}")
        found[image] = line, tuple(cell.strip() for cell in row[:place] + row[place + 1 :])
    images = tuple(sorted(found))
    lines, cells = zip(*(found[image] for image in images), strict=True)
    return Table(path, tuple(h for h in header if h != FILE_NAME), lines, images, cells)


def targets_of(table: Table, train: Table) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of numbers or classes, and the targets of a table's N images.

    The targets are float32 [N, K], or labels, int64 [N].

    Args:
      table: of any split.
      train: the training split's, which says whether there are numbers or classes and which.

    Raises:
      DataError: with file and line, for other columns than training has, for what is no
        finite number, and for a class without a name or that training does not have.
    """
    if table.columns != train.columns:
        raise DataError(
            f"{table.path}: the columns are {', '.join(table.columns)}, but those of "
            f"{train.path} are {', '.join(train.columns)}; wanted the same ones in the same order"
        )
    if train.columns == (LABEL,) and all(math.isnan(_number(row[0])) for row in train.cells):
        names = tuple(sorted({row[0] for row in train.cells}))
        return names, _labels(table, names)
    numbers = np.array([list(map(_number, row)) for row in table.cells])
    wrong = np.argwhere(np.isnan(numbers))
    if len(wrong):
        row, column = min(wrong.tolist(), key=lambda place: table.lines[place[0]])
        raise DataError(
            f"{table.path}, line {table.lines[row]}: {table.columns[column]}="
            f"{table.cells[row][column]!r} is no finite number. Correct it, leave the line or the "
            f"column out; names of classes go into one column {LABEL!r}, without numbers"
        )
    return train.columns, numbers.astype(np.float32)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Returns the lines that are not empty, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_numbered(csv.reader(file, strict=True), path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _numbered(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a line of CSV ({error})") from error


def _check_header(header: Sequence[str], where: str) -> None:
    if FILE_NAME not in header:
        raise DataError(
            f"{where}: wanted a header with a column {FILE_NAME}, got {header}."
            f"{suggest(FILE_NAME, header)} Columns are separated by commas"
        )
    if "" in header:
        raise DataError(
            f"{where}: column {header.index('') + 1} has no name (pandas writes its index there, "
            "unless told index=False)"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{where}: there are several columns {twice[0]!r}")
    if len(header) == 1:
        raise DataError(
            f"{where}: no column besides {FILE_NAME}; wanted one for each number to predict, "
            f"or {LABEL!r} with the names of classes"
        )


def _image(name: str, folder: Path, where: str) -> Path:
    """Returns the path of a file, having checked that it is there."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{where}: {name!r} leads out of {folder}; write paths relative to it")
    if not os.path.isfile(folder / relative):  # Path's own fails at names that are too long
        raise DataError(f"{where}: there is no file {name!r} in {folder}")
    return folder / relative


def _number(text: str) -> float:
    """Returns the number that a cell holds, NaN if there is none or float32 has none for it."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    # Python's own notation, 1_000, is nobody's way to write a number in a table.
    return value if abs(value) <= LARGEST and "_" not in text else math.nan


def _labels(table: Table, names: Sequence[str]) -> np.ndarray:
    """Returns the labels of a table of classes, int64 [N]."""
    label_of = {name: label for label, name in enumerate(names)}
    for line, (name,) in sorted(zip(table.lines, table.cells, strict=True)):
        if not name:
            raise DataError(f"{table.path}, line {line}: the {LABEL} is empty")
        if name not in label_of:
            raise DataError(
                f"{table.path}, line {line}: class {name!r} is not among the {len(names)} of the "
                f"training split.{suggest(name, names)}"
            )
    return np.array([label_of[name] for (name,) in table.cells], np.int64)
