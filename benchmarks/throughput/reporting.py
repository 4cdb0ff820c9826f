"""What is printed of results, and where they are written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
from typing import Any

from benchmarks.record import surroundings, write, write_csv
from benchmarks.throughput.figures import flat, scaling, table
from benchmarks.throughput.running import say
from zoo.training.startup import describe_compiler


def progress(row: Mapping[str, Any]) -> str:
    """Returns one result as a line.

    Example:
      >>> progress({"model": "lenet5", "mode": "train", "error": "no"})
      'lenet5 train: FAILED: no'
    """
    what = f"{row['model']} {row['mode']}"
    if "error" in row:
        return f"{what}: FAILED: {row['error']}"
    simulated = " (simulated devices)" if row["simulated"] else ""
    return (
        f"{what} on {row['devices']} x {row['device_kind']}{simulated}: "
        f"{row['images_per_second']:,.1f} images/s"
    )


def title(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns what is printed above the table: what all rows have in common."""
    row = next((row for row in rows if "error" not in row), None)
    if row is None:
        return "nothing was measured"
    lines = []
    if row["simulated"]:
        lines.append("SIMULATED: these devices are one CPU; for trying, not for speed")
    shape = "x".join(map(str, row["image_shape"]))
    lines.append(
        f"{row['device_kind']}, {row['processes']} process(es), input {row['input']} "
        f"({row['data']}), {row['dtype']}, images {shape} or as published, "
        f"memory as the {row['peak_memory_by']} tells, times of {row['steps']} steps"
    )
    return "\n".join(lines)


def name_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the name of the files for these results."""
    row = next(row for row in rows if "error" not in row)
    kind = "simulated" if row["simulated"] else row["device_kind"]
    return "throughput_" + re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_")


def report(rows: list[dict[str, Any]], load: Mapping[str, Any], out: str | None) -> None:
    """Prints and writes results, if this is the process that has them."""
    good = [row for row in rows if "error" not in row]
    if any(row["process"] for row in good):
        say(f"process {good[0]['process']} of {good[0]['processes']}: process 0 has the results")
        return
    scaling(rows)
    say(f"\n{title(rows)}\n\n{table(rows)}")
    if not good:
        return
    name = str(Path(out).absolute()) if out else name_of(rows)
    result = surroundings("benchmarks.throughput", device=good[0]["device_kind"])
    result |= {"simulated": good[0]["simulated"], **describe_compiler(), "load_average": load}
    note = "a training step counts as three forward passes, without auxiliary heads"
    say(f"\n{write(name, result | {'flops': note, 'rows': rows})}")
    say(str(write_csv(name, [flat(row) for row in rows])))
