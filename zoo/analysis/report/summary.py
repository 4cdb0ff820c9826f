"""The beginning of the page: what was trained, on what, and how good it is."""

from collections.abc import Mapping, Sequence
import math
import shlex
import time
from typing import Any

import jax

from zoo.analysis.report.evidence import Evidence
from zoo.analysis.report.words import ROLES, form_of, title_of
from zoo.tasks.binary import Binary
from zoo.tasks.classification import Classification
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.task import Task

HEADLINES = {
    Classification: ("top1", "macro_f1", "ece"),
    Binary: ("accuracy", "roc_auc", "ece"),
    MultiLabel: ("exact_match", "f1", "ece"),
    Regression: ("r2", "rmse", "mae"),
}
COLUMNS = {
    Classification: ("top1", "top5", "macro_f1", "loss"),
    Binary: ("accuracy", "precision", "recall", "f1", "loss"),
    MultiLabel: ("exact_match", "f1", "macro_f1", "loss"),
    Regression: ("r2", "rmse", "mae", "loss"),
}
KINDS = {
    Classification: "classification",
    Binary: "binary classification",
    MultiLabel: "multi-label classification",
    Regression: "regression",
}
WHAT = {MultiLabel: ("label", "labels"), Regression: ("number", "numbers")}

Measured = Mapping[str, Mapping[str, Any]]  # of each role, what `measure` returns


def title(evidence: Evidence) -> str:
    """Returns the title of the page."""
    config = evidence.trained.config
    return f"{config['model.name']} on {str(config['data.name']).rstrip('/').split('/')[-1]}"


def summary(evidence: Evidence, measured: Measured) -> dict[str, Any]:
    """Returns the first section.

    Args:
      evidence: of the run.
      measured: the figures of each role.
    """
    task = evidence.trained.task
    figures = measured[evidence.focus]["figures"]
    names = [name for name in HEADLINES[type(task)] if name in figures]
    role = ROLES[evidence.focus]
    return {
        "kicker": f"{KINDS[type(task)].capitalize()} · zoo",
        "lede": _lede(evidence),
        "headline": [
            {**_figure(name, figures[name]), "title": f"{title_of(name)}, {role}"} for name in names
        ],
        "splits": _splits(evidence, measured),
        "further": [_figure(name, value) for name, value in figures.items()],
        "facts": _facts(evidence),
    }


def _figure(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    return {"title": title_of(name), "form": form_of(name), **figure}


def _splits(evidence: Evidence, measured: Measured) -> dict[str, Any]:
    columns = _columns(evidence.trained.task, measured[evidence.focus]["figures"])
    rows = []
    for role, look in evidence.looks.items():
        sample = len(look.source) < look.size
        figures = measured[role]["figures"]
        rows.append(
            {
                "split": f"{ROLES[role]}{', a sample' * sample}",
                "examples": measured[role]["examples"],
                "values": [figures.get(name, {"value": None}) for name in columns],
            }
        )
    caption = "Without augmentation; below a figure is its 95\u202f% interval"
    heads = [{"title": title_of(name), "form": form_of(name)} for name in columns]
    return {"columns": heads, "rows": rows, "caption": caption}


def _columns(task: Task, figures: Mapping[str, Any]) -> list[str]:
    """Returns the figures to compare splits by, of several targets those of each."""
    known = [name for name in COLUMNS[type(task)] if name in figures]
    if isinstance(task, Regression) and len(task.names) > 1:
        known += [f"rmse_{name}" for name in task.names]
    return known


def _lede(evidence: Evidence) -> str:
    look, trained = evidence.look, evidence.trained
    parameters = sum(x.size for x in jax.tree.leaves(trained.variables["params"]))
    one, many = WHAT.get(type(trained.task), ("class", "classes"))
    names = _shown(trained.class_names, one if len(trained.class_names) == 1 else many)
    count = f"{len(look.predictions.logits):,} {ROLES[evidence.focus]} examples"
    return f"{parameters:,} parameters, {names}. What follows is about {count}."


def _shown(names: Sequence[str], what: str) -> str:
    listed = ", ".join(names[:6]) + ", …" * (len(names) > 6)
    return f"{len(names):,} {what} ({listed})"


def _facts(evidence: Evidence) -> list[tuple[str, str, bool]]:
    """Returns (name, value, whether it is code) of what belongs to the run."""
    trained, results, env = evidence.trained, evidence.results, evidence.environment
    config, lines = trained.config, evidence.lines
    versions = env.get("versions", {})
    devices = env.get("devices", {})
    facts = [
        ("Weights", _weights(evidence), False),
        ("Data", str(config["data.name"]), True),
        ("Splits", _sizes(evidence), False),
        ("Images", "{} x {} x {}".format(*trained.image_shape), False),
        ("Trained for", _duration(evidence), False),
        ("Optimiser", f"{config['optimizer.name']}, batches of {config['batch_size']}", False),
        ("Ended", str(results.get("finished", "not yet: the run has not ended")), False),
        ("Time", _time(lines), False),
        ("Command", shlex.join(env.get("command", [])), True),
        ("Versions", ", ".join(f"{name} {v}" for name, v in versions.items()), False),
        ("Code", str(env.get("commit", "")), True),
        ("Devices", f"{devices['count']} x {devices['kind']}" if devices else "", False),
        ("Left out", _left_out(evidence), False),
    ]
    return [fact for fact in facts if fact[1]]


def _weights(evidence: Evidence) -> str:
    best, metric = evidence.results.get("best_step"), evidence.results.get("best_metric")
    chosen = f", the best by {metric} at step {best:,}" if best and metric else ""
    return f"{evidence.trained.label}{chosen}"


def _sizes(evidence: Evidence) -> str:
    return ", ".join(
        f"{ROLES[role]} {look.predictions.data['split']} ({look.size:,})"
        for role, look in evidence.looks.items()
    )


def _duration(evidence: Evidence) -> str:
    if not evidence.lines:
        return ""
    last = evidence.lines[-1]
    early = ", stopped early" if evidence.results.get("stopped_early") else ""
    return f"{last['step']:,} steps, {last['epoch']:.4g} epochs{early}"


def _time(lines: Sequence[Mapping[str, Any]]) -> str:
    times = [line["time"] for line in lines if math.isfinite(line.get("time", math.nan))]
    if len(times) < 2:
        return ""
    seconds = round(max(times) - min(times))
    clock = time.strftime("%H:%M:%S", time.gmtime(seconds % 86400))
    days = f"{seconds // 86400} days " if seconds >= 86400 else ""
    return f"{days}{clock} from the first line of the log to the last"


def _left_out(evidence: Evidence) -> str:
    counts = {ROLES[role]: len(look.predictions.bad) for role, look in evidence.looks.items()}
    return ", ".join(
        f"{count} undecodable {role} image{'s' * (count > 1)}"
        for role, count in counts.items()
        if count
    )
