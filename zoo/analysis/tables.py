"""Rows as a file that other programs read: CSV, JSON lines or Parquet, all with the same values."""

from collections.abc import Iterable, Mapping
import csv
import itertools
from pathlib import Path
from typing import Any

from zoo.analysis.journal import Row, dump, writing
from zoo.analysis.replacing import replacing
from zoo.errors import ConfigError

ROWS_AT_ONCE = 65_536  # of a row group of Parquet


def check_format(out: Path) -> None:
    """Raises ConfigError unless a file's name says a format that can be written there."""
    if out.suffix not in WRITERS:
        raise ConfigError(f"--out={out}: must end with {', '.join(WRITERS)}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out={out}: there is no folder {out.parent}")
    if out.is_dir():
        raise ConfigError(f"--out={out}: is a folder")
    if out.suffix == ".parquet":
        _import_pyarrow()


def write_table(rows: Iterable[Row], columns: Mapping[str, type], out: Path) -> None:
    """Writes a file, whole or not at all.

    What is missing is empty in CSV and null elsewhere. CSV is in UTF-8 with a header, and what
    holds commas, quotes or line breaks in double quotes, as RFC 4180 has it.

    Args:
      rows: each with a value or None for every column.
      columns: their names and types, `str` or `float`.
      out: the file, whose ending says the format.

    Raises:
      TemporaryError: if there is no room for it.
    """
    with writing(out), replacing(out) as scratch:
        WRITERS[out.suffix](rows, columns, scratch)


def _write_csv(rows: Iterable[Row], columns: Mapping[str, type], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(columns)
        table.writerows([row[name] for name in columns] for row in rows)


def _write_json_lines(rows: Iterable[Row], columns: Mapping[str, type], file: Path) -> None:
    with file.open("wb") as out:
        out.writelines(dump({name: row[name] for name in columns}) for row in rows)


def _write_parquet(rows: Iterable[Row], columns: Mapping[str, type], file: Path) -> None:
    arrow, parquet = _import_pyarrow()
    types = {str: arrow.string(), float: arrow.float64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
    rest = iter(rows)
    with parquet.ParquetWriter(file, schema) as out:
        while group := list(itertools.islice(rest, ROWS_AT_ONCE)):
            out.write_table(arrow.Table.from_pylist(group, schema))


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"Parquet is written with pyarrow ({error}): pip install 'zoo[parquet]', or let --out "
            "end with .csv or .jsonl"
        ) from error
    return pyarrow, pyarrow.parquet


WRITERS = {".csv": _write_csv, ".jsonl": _write_json_lines, ".parquet": _write_parquet}
