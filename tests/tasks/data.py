"""Predictions and targets of every task, and how they go through it in batches."""

import functools

import jax
import numpy as np

from zoo.tasks.task import add

NAMES = ("age", "weight")


def examples(kind: str, count: int, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits and targets of random examples, not all of which are predicted wrong."""
    rng = np.random.default_rng(count)
    if kind == "binary":
        targets = rng.integers(0, 2, count)
        return (rng.normal(size=(count, 1)) + targets[:, None] - 0.5).astype("f"), targets
    if kind == "multilabel":
        targets = rng.integers(0, 2, (count, classes))
        return (rng.normal(size=(count, classes)) + targets).astype("f"), targets
    if kind == "regression":
        targets = np.array([40.0, 70.0]) + np.array([20.0, 8.0]) * rng.normal(size=(count, 2))
        logits = (targets - [40, 70]) / [20, 8] + rng.normal(size=(count, 2)) / 2
        return logits.astype("f"), targets.astype("f")
    logits = rng.normal(size=(count, classes)).astype("f")
    if kind == "soft":
        return logits, rng.dirichlet(np.full(classes, 0.3), count).astype("f")
    return logits, rng.integers(0, classes, count)


@functools.cache
def compiled(task, train: bool):
    """Returns `metrics`; tests share few batch sizes, because each is compiled."""
    return jax.jit(functools.partial(task.metrics, train=train))


def metrics_of(task, logits, targets, mask=None, *, train=False):
    """Returns one batch's sums and counts as arrays of numpy."""
    mask = np.ones(len(logits), "f") if mask is None else np.asarray(mask, "f")
    return jax.device_get(compiled(task, train)(logits, targets, mask))


def sums_of(task, logits, targets, batch_size, *, train=False):
    """Returns what a dataset adds up to in batches, the last padded with rubbish."""
    totals = {}
    for start in range(0, len(logits), batch_size):
        rows = slice(start, start + batch_size)
        there = len(logits[rows])
        padding = [(0, batch_size - there)]
        batch_logits = np.pad(logits[rows], [*padding, (0, 0)], constant_values=np.nan)
        wide = [*padding, *[(0, 0)] * (targets.ndim - 1)]
        batch_targets = np.pad(targets[rows], wide, constant_values=77)
        mask = np.arange(batch_size) < there
        totals = add(totals, metrics_of(task, batch_logits, batch_targets, mask, train=train))
    return totals


def figures(task, logits, targets, batch_size=8, **options) -> dict[str, float]:
    return task.summary(sums_of(task, logits, targets, batch_size, **options))
