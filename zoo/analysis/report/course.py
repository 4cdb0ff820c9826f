"""Learning curves, from metrics.jsonl."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from zoo.analysis.report.words import form_of, title_of
from zoo.training.plots import LABELS

MOST = 800  # points of a curve; of more, means of neighbours are drawn

Lines = Sequence[Mapping[str, Any]]


def course(lines: Lines, metric: str, best_step: int | None) -> dict[str, Any] | None:
    """Returns loss, another figure and the learning rate over epochs; None of an empty log.

    Args:
      lines: of metrics.jsonl.
      metric: by which the best was chosen, as "val/top1"; for a loss R^2 is drawn instead.
      best_step: where it was.
    """
    name = metric.partition("/")[2]
    names = ["loss", "r2" if name == "loss" else name, "learning_rate"]
    charts = [chart for name in names if (chart := _chart(lines, name)) is not None]
    if not charts:
        return None
    best = next((line for line in lines if line["step"] == best_step and metric in line), None)
    marked = next((chart for chart in charts if chart["name"] == name), None)
    if best is not None and marked is not None:
        marked["best"] = {"x": best["epoch"], "text": f"best, step {best_step:,}"}
    text = "Training figures are means since the line before, of augmented images if there was "
    text += "augmentation, and with dropout if there is any: they may be worse than validation's."
    return {"text": text, "charts": charts}


def _chart(lines: Lines, name: str) -> dict[str, Any] | None:
    series = []
    for colour, (group, label) in enumerate(LABELS.items()):
        own = _series(lines, f"{group}/{name}")
        if own is not None:
            label = "" if name == "learning_rate" else label  # there is but one
            series.append({"label": label, "colour": colour, **own})
    if not series:
        return None
    values = [y for one in series for y in one["y"]]
    wide = min(values) > 0 and max(values) > 5 * min(values)
    log = wide and name == "loss"
    title, form = title_of(name), form_of(name)
    return {"name": name, "title": title, "form": form, "log": log, "series": series}


def _series(lines: Lines, key: str) -> dict[str, list[float]] | None:
    """Returns "x" and "y", and "sd" of several seeds, of at most `MOST` points."""
    own = [line for line in lines if math.isfinite(line.get(key) or math.nan) or line.get(key) == 0]
    if not own:
        return None
    columns = {"x": [line["epoch"] for line in own], "y": [line[key] for line in own]}
    if all(f"{key}_std" in line for line in own):
        columns["sd"] = [line[f"{key}_std"] for line in own]
    return {
        name: [float(np.mean(part)) for part in np.array_split(values, min(len(own), MOST))]
        for name, values in columns.items()
    }
