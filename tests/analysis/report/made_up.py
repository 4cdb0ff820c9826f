"""Evidence of runs that never were: any task, any number of classes, names of any kind."""

from collections.abc import Sequence
import dataclasses
from pathlib import Path

import numpy as np

from zoo.analysis.predictions import Predictions
from zoo.analysis.report.evidence import Evidence, Look
from zoo.analysis.trained import Trained
from zoo.data.source import ArraySource
from zoo.registry import create_model
from zoo.tasks.binary import Binary
from zoo.tasks.classification import Classification
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.task import Task
from zoo.weights.preprocessing import Preprocessing

NASTY = ("<script>alert(1)</script>", "a & b", '"><img src=x onerror=alert(2)>', "</script>ü\u2028")
SPREADS = {"train": 1.2, "validation": 1.6, "test": 1.7}  # of noise: how far from perfect


def made_up(
    task: Task,
    names: Sequence[str],
    *,
    count: int = 300,
    roles: Sequence[str] = ("train", "validation", "test"),
    side: int = 12,
) -> Evidence:
    """Returns evidence of a task, with errors among neighbouring classes.

    Args:
      task: of any kind.
      names: of the classes, labels or targets.
      count: of examples in each split.
      roles: of the splits that the run has.
      side: of the images, in pixels.
    """
    looks = {role: _look(task, names, role, count, side) for role in roles}
    config = {
        **{"model.name": "lenet5", "data.name": "folder:/data/made up", "batch_size": 32},
        **{"optimizer.name": "adam", "data.train_split": "train"},
    }
    prepared = Preprocessing(side, (0.5,) * 3, (0.5,) * 3)
    model = create_model("lenet5", num_classes=len(names))
    variables = {"params": {"kernel": np.zeros((10, 10))}}
    trained = Trained(
        "runs/x", model, variables, prepared, task, tuple(names), Path("runs/x"), config
    )
    metric = f"val/{task.best.metric}"
    focus = "test" if "test" in roles else roles[-1]
    results = {"best_step": 30, "best_metric": metric, "finished": "2026-11-26T16:00:00+0000"}
    return Evidence(
        trained, looks, focus, lines_of(task, roles), results, {"command": ["x", "y z"]}
    )


def lines_of(task: Task, roles: Sequence[str]) -> list[dict]:
    """Returns a log of 40 steps."""
    groups = ["train", *["val", "val_ema"] * ("validation" in roles)]
    name = "r2" if task.best.metric == "loss" else task.best.metric
    return [
        {"step": step, "epoch": step / 10, "time": 1.7e9 + step}
        | {f"{group}/loss": 2 / step + 0.1 * i for i, group in enumerate(groups)}
        | {f"{group}/{name}": 1 - 1 / step - 0.02 * i for i, group in enumerate(groups)}
        | {"train/learning_rate": 0.1 / step}
        for step in range(1, 41)
    ]


def _look(task: Task, names: Sequence[str], role: str, count: int, side: int) -> Look:
    rng = np.random.default_rng([len(names), count, len(role)])
    logits, targets = _answers(rng, task, len(names), count, SPREADS[role])
    images = np.clip(rng.normal(120, 60, (count, side, side, 3)), 0, 255).astype(np.uint8)
    labels = targets if targets.ndim == 2 else targets.astype(np.int64)
    source = ArraySource(images, labels, names)
    places = [
        f"/data/made up/{role}/{names[int(t.flat[0]) % len(names)]}/{i:04}.png"
        for i, t in enumerate(np.asarray(targets))
    ]
    task_words = {"name": type(task).__name__.lower(), "arguments": dataclasses.asdict(task)}
    predictions = Predictions(
        logits.astype(np.float32),
        labels,
        np.arange(count),
        places,
        tuple(names),
        task_words,
        "runs/x",
        {"name": "made up", "split": role, "fingerprint": source.fingerprint},
    )
    return Look(source, predictions, 10 * count if role == "train" else count)


def _answers(
    rng: np.random.Generator, task: Task, classes: int, count: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits and targets."""
    if isinstance(task, Classification):
        targets = rng.permutation(np.arange(count) % classes)
        logits = rng.normal(0, spread, (count, classes))
        logits[np.arange(count), targets] += 4 + np.log(classes)
        logits[np.arange(count), (targets + 1) % classes] += 2 + np.log(classes)
        return logits, targets
    if isinstance(task, Binary):
        targets = rng.integers(0, 2, count)
        return (4 * targets - 2 + rng.normal(0, spread, count))[:, None], targets
    if isinstance(task, MultiLabel):
        targets = rng.integers(0, 2, (count, classes)).astype(np.float32)
        return 4 * targets - 2 + rng.normal(0, spread, targets.shape), targets
    assert isinstance(task, Regression)
    targets = rng.normal(50, 10, (count, classes)).astype(np.float32)
    return targets + rng.normal(0, 2 * spread, targets.shape), targets
