"""What every result in benchmarks/results/ carries, and how it is written."""

from collections.abc import Mapping, Sequence
import csv
import datetime
import json
import os
from pathlib import Path
import shlex
import subprocess
import sys
from typing import Any

import jax

from zoo.training.report import versions

RESULTS = Path(__file__).parent / "results"


def surroundings(program: str, *, device: str | None = None, **packages: str) -> dict[str, Any]:
    """Returns when, where and with what a result was made.

    Args:
      program: the module's name, benchmarks.x.
      device: its kind; None to ask JAX, which takes the devices then.
      **packages: versions of what the program needs besides zoo's own requirements.
    """
    return {
        "command": shlex.join(["python", "-m", program, *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "device": jax.devices()[0].device_kind if device is None else device,
        "cores": os.cpu_count(),
        "niceness": os.nice(0),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {**packages, **versions()},
    }


def _commit() -> str:
    """Returns the commit, "-dirty" where files differ from it; results may, of earlier programs."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS}")
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=RESULTS.parent.parent, capture_output=True, text=True, check=True
    ).stdout.strip()


def write(name: str, result: Mapping[str, Any]) -> Path:
    """Writes results/NAME.json, a line for each key, and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    # One line for each key: lists of numbers stay in it.
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items()]
    file.write_text("{\n  " + ",\n  ".join(lines) + "\n}\n")
    return file


def write_csv(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes results/NAME.csv, a line for each row, and returns its path.

    Args:
      name: of the file.
      rows: values by column; a row need not have all columns.
    """
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.csv"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return file
