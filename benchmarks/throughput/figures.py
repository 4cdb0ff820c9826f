"""What becomes of measured times: medians, rates, shares of what the chip could do, a table."""

from collections.abc import Mapping, Sequence
import statistics
from typing import Any

import numpy as np

from benchmarks.hardware import Accelerator

# A training step is counted as three forward passes: one forward, and two products of the same
# size backward, for the inputs and for the weights. Auxiliary heads are left out.
PASSES = {"infer": 1, "train": 3}


def steady(seconds: Sequence[float]) -> dict[str, float]:
    """Returns what is said of the times of steps, in milliseconds, and how they drift.

    Args:
      seconds: of each step, in their order; two or more.

    Returns:
      "median", "p10", "p90" and "mean", ms; and "drift", by which part the median of the second
      half is longer than that of the first.

    Example:
      >>> steady([0.010, 0.010, 0.012, 0.012])["drift"]
      0.2
    """
    half = len(seconds) // 2
    first, second = statistics.median(seconds[:half]), statistics.median(seconds[-half:])
    low, median, high = np.percentile(seconds, [10, 50, 90])
    return {
        "median": round(1e3 * float(median), 4),
        "p10": round(1e3 * float(low), 4),
        "p90": round(1e3 * float(high), 4),
        "mean": round(1e3 * statistics.fmean(seconds), 4),
        "drift": round(second / first - 1, 4),
    }


def rates(
    ms: Mapping[str, float], *, batch: int, chips: float, feeds: str
) -> dict[str, float | str]:
    """Returns images per second, in total and per chip, and what they follow from.

    Batches that are read ahead arrive in bursts, and so do the ends of steps that wait for
    them: there all time counts. With data on the device the median does, which a moment's
    disturbance leaves alone.

    Args:
      ms: of `steady`.
      batch: images in a step, over all devices of all processes.
      chips: on which it runs.
      feeds: "device", "host" or "real".
    """
    by = "median" if feeds == "device" else "mean"
    total = batch / (ms[by] / 1e3)
    return {
        "images_per_second": round(total, 2),
        "images_per_second_per_chip": round(total / chips, 2),
        "images_per_second_by": by,
    }


def shares(
    accelerator: Accelerator | None,
    *,
    mode: str,
    dtype: str,
    flops_per_image: float,
    images_per_second_per_chip: float,
    bytes_per_image: float | None,
) -> dict[str, float | None]:
    """Returns the shares of the chip's two roofs, None where they are not known.

    Args:
      accelerator: the chip.
      mode: "infer" or "train".
      dtype: that is computed in.
      flops_per_image: of the network, one forward pass.
      images_per_second_per_chip: measured.
      bytes_per_image: that the compiled program reads and writes, by the compiler's account.

    Returns:
      "mfu", the network's operations (see `PASSES`) by the dense peak, and "memory_roof", the
      program's bytes by the bandwidth of the chip's memory.
    """
    if accelerator is None:
        return {"mfu": None, "memory_roof": None}
    work = PASSES[mode] * flops_per_image * images_per_second_per_chip
    moved = bytes_per_image and bytes_per_image * images_per_second_per_chip
    return {
        "mfu": round(work / accelerator.peak(dtype), 4),
        "memory_roof": moved and round(moved / accelerator.bandwidth, 4),
    }


def scaling(rows: Sequence[dict[str, Any]]) -> None:
    """Adds to each row how much of the rate per chip is left, against the fewest devices.

    Args:
      rows: results; those that differ in nothing but the number of devices are compared, and a
        row without another one gets nothing. What had to halve its batch is no match.
    """
    same = ("model", "mode", "input", "batch_per_device")
    for row in rows:
        others = [r for r in rows if "error" not in r and all(r[k] == row.get(k) for k in same)]
        if "error" in row or len({r["devices"] for r in others}) < 2:
            continue
        base = min(others, key=lambda r: r["devices"])
        ratio = row["images_per_second_per_chip"] / base["images_per_second_per_chip"]
        row["scaling_efficiency"] = round(ratio, 4)
        row["scaling_base_devices"] = base["devices"]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


_COLUMNS = {
    "model": lambda r: r["model"] + (" folded" if r["folded"] else ""),
    "mode": lambda r: r["mode"],
    "devices": lambda r: str(r["devices"]),
    "batch": lambda r: str(r["batch"]),
    "images/s": lambda r: _number(r["images_per_second"]),
    "per chip": lambda r: _number(r["images_per_second_per_chip"]),
    "ms/step": lambda r: _number(r["ms_per_step"]["median"]),
    "p10 to p90": lambda r: (
        f"{_number(r['ms_per_step']['p10'])} to {_number(r['ms_per_step']['p90'])}"
    ),
    "drift": lambda r: f"{r['ms_per_step']['drift']:+.1%}",
    "trace s": lambda r: f"{r['trace_seconds']:.2f}",
    "lower s": lambda r: f"{r['lower_seconds']:.2f}",
    "compile s": lambda r: f"{r['compile_seconds']:.2f}" + ("" if r["step_compiled"] else " kept"),
    "first s": lambda r: f"{r['first_step_seconds']:.2f}",
    "memory MiB": lambda r: f"{r['peak_memory_bytes'] / 2**20:,.0f}",
    "GFLOP/image": lambda r: f"{r['flops_per_image'] * PASSES[r['mode']] / 1e9:.3g}",
    "MFU": lambda r: _percent(r["mfu"]),
    "memory roof": lambda r: _percent(r["memory_roof"]),
    "input wait": lambda r: _percent(r["input_wait"]),
    "scaling": lambda r: _percent(r.get("scaling_efficiency")),
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns results as a table of text, and what failed below it."""
    good = [row for row in rows if "error" not in row]
    cells = [list(_COLUMNS), *([cell(row) for cell in _COLUMNS.values()] for row in good)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = 2  # columns of names
    lines = [
        "  ".join(
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (cells if good else [])
    ]
    lines += [f"FAILED {r['model']} {r['mode']}: {r['error']}" for r in rows if "error" in r]
    return "\n".join(lines)


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a result as one row of a CSV file; what is nested has its names joined by dots.

    Example:
      >>> flat({"model": "lenet5", "ms_per_step": {"median": 1.5}})
      {'model': 'lenet5', 'ms_per_step.median': 1.5}
    """
    values = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values
