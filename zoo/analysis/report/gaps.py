"""Bias and variance: which part of the error to work on."""

from collections.abc import Mapping
import math
from typing import Any

from zoo.analysis.diagnosis import Diagnosis, Error, Part, diagnose
from zoo.analysis.report.evidence import Evidence
from zoo.analysis.report.words import ROLES, title_of
from zoo.errors import ConfigError
from zoo.tasks.regression import Regression
from zoo.tasks.task import PROPORTIONS, Task

NAMES = {"human": "people", **ROLES}


def check_human(task: Task, error: float | None) -> None:
    """Raises ConfigError unless it can be the error of people at a task."""
    limit = math.inf if isinstance(task, Regression) else 1.0
    if error is not None and not 0 <= error < limit:
        raise ConfigError(f"--human-error={error}: must be 0 or more, and less than {limit:g}")


def gaps(
    evidence: Evidence, measured: Mapping[str, Mapping[str, Any]], human: float | None
) -> dict[str, Any] | None:
    """Returns the way from human error to the last one, and what helps; None of a lone split.

    Args:
      evidence: of the run.
      measured: the figures of each role, as `zoo.analysis.measuring.measure` returns them.
      human: of a person; None if it is not known.
    """
    figures = {role: own["figures"] for role, own in measured.items()}
    if len(figures) < 2:
        return None
    metric = next((name for name in PROPORTIONS if name in figures["train"]), "loss")
    proportion = metric != "loss"
    errors = {r: Error.of(own[metric], proportion=proportion) for r, own in figures.items()}
    found = diagnose(errors, human or 0.0)
    values = {"human": human or 0.0} | {role: error.value for role, error in errors.items()}
    return {
        "text": f"The error is {_meaning(metric)}. That of each split is the one before plus a gap "
        "that has a cause, and cures, of its own.",
        "form": "fixed" if metric == "loss" else "percent",
        "rungs": _rungs(found, values),
        "gaps": [_gap(part, found) for part in found.parts],
        "advice": _advice(found),
        "notes": _notes(evidence, human),
    }


def _meaning(metric: str) -> str:
    if metric == "loss":
        return "the loss"
    return f"what the {title_of(metric)} lacks to 100\u202f%"


def _rungs(found: Diagnosis, values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Returns the errors, each with the one before it and whether the gap between is largest."""
    rungs = [{"title": NAMES["human"], "error": values["human"], "before": values["human"]}]
    for part in found.parts:
        before, after = part.between
        rungs.append(
            {
                "title": NAMES[after],
                "error": values[after],
                "before": values[before],
                "largest": part.name == found.largest,
            }
        )
    return rungs


def _gap(part: Part, found: Diagnosis) -> dict[str, Any]:
    before, after = part.between
    return {
        "title": part.name,
        "between": f"{NAMES[before]} → {NAMES[after]}",
        "size": part.value,
        "interval": part.interval,
        "largest": part.name == found.largest,
    }


def _advice(found: Diagnosis) -> dict[str, Any] | None:
    part = next((part for part in found.parts if part.name == found.largest), None)
    if part is None:
        return None
    sure = part.interval[0] > 0
    text = "What usually makes it smaller, the most usual first:"
    if not sure:
        text = f"Its interval includes 0: with so few examples it may be chance. {text}"
    return {"title": f"The largest gap is {part.name}", "text": text, "steps": list(part.advice)}


def _notes(evidence: Evidence, human: float | None) -> list[str]:
    notes = []
    if human is None:
        notes.append(
            "What people get wrong on these images is not known and counts as 0, so that bias is "
            "avoidable at most to that extent; --human-error=0.01 says otherwise."
        )
    train = evidence.looks["train"]
    if len(train.source) < train.size:
        notes.append(
            f"Training error is that of {len(train.source):,} of {train.size:,} training images, "
            "drawn at random, without augmentation."
        )
    if "train-dev" not in evidence.looks:
        notes.append(
            "All of the difference between training and the next split counts as variance. If they "
            "are not from one distribution, --train-dev=SPLIT, images like those trained on, tells "
            "variance from mismatch."
        )
    return notes
