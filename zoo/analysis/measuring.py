"""All figures of a model's predictions, with their intervals, as its task has them."""

from collections.abc import Callable, Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.analysis import figures as f
from zoo.analysis.calibration import classwise_error
from zoo.analysis.intervals import RESAMPLES, Interval, bootstrap
from zoo.analysis.outcomes import Outcomes, outcomes_of
from zoo.analysis.predictions import Predictions
from zoo.tasks.classification import Classification
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.task import PROPORTIONS, Task, wilson_interval

MOST_CONFUSED = 20  # pairs of classes that are listed
MOST_CLASSES = 200  # of which the whole confusion matrix is given
AREAS = ("roc_auc", "average_precision")
MOST_SCORES = 200_000  # up to which areas under curves have intervals: each resample ranks all

Figures = dict[str, float]
Calculate = Callable[[np.ndarray | None], Figures]  # of a resample's weights [N]; None: of all


def measure(predictions: Predictions, *, seed: int = 0, number: int = RESAMPLES) -> dict[str, Any]:
    """Returns every figure of predictions.

    Args:
      predictions: of a model.
      seed: of the bootstrap.
      number: of its resamples.

    Returns:
      "examples", their number; "figures", by name {"value", "interval"}, where a proportion's
      interval is Wilson's, that of others the bootstrap's, or None; and where the task has
      them "classes", a list with the figures of each class or label; "confusion", whose rows
      are true, of up to `MOST_CLASSES`; "confused", the pairs that are most often taken for
      each other; "calibration", the bars of the reliability diagram. What is undefined is NaN.

    Raises:
      DataError: for targets that are not the task's, or logits that are not finite.
    """
    outcomes = outcomes_of(predictions)
    areas = np.array([]) if isinstance(outcomes.task, Regression) else areas_of(outcomes)
    calculate, once = calculator(outcomes), _others(outcomes, areas)
    values = calculate(None)
    intervals = _intervals(values, calculate, len(outcomes.logits), seed, number)
    out: dict[str, Any] = {
        "examples": len(outcomes.logits),
        "figures": {
            name: {"value": value, "interval": intervals.get(name)}
            for name, value in (values | once).items()
        },
    }
    if isinstance(outcomes.task, Regression):
        return out
    names = class_names_of(predictions)
    out["classes"] = _classes(outcomes, names, areas)
    if outcomes.truth.ndim == 1:
        out |= _confusion(outcomes, names)
    bars = outcomes.reliability()._asdict()
    return out | {"calibration": {name: values.tolist() for name, values in bars.items()}}


def class_names_of(predictions: Predictions) -> tuple[str, ...]:
    """Returns the names of classes, two where there is one logit, or of labels or targets."""
    names = predictions.class_names
    if predictions.logits.shape[1] == 1 and len(names) == 1:
        return f"not {names[0]}", names[0]
    return names


def losses_of(task: Task, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the task's own loss of each example, float64 [N].

    Args:
      task: the task.
      logits: [N, K].
      targets: [N, …].
    """

    def loss(z: jax.Array, t: jax.Array) -> jax.Array:
        return task.loss(z[None], t[None], jnp.ones(1), train=False)[0]

    return np.asarray(jax.vmap(loss)(jnp.asarray(logits), jnp.asarray(targets)), np.float64)


def areas_of(outcomes: Outcomes) -> np.ndarray:
    """Returns of each output the areas under both curves, float64 [K, 2], as in `AREAS`."""
    return np.array([ranking.areas() for ranking in outcomes.rankings()])


def calculator(a: Outcomes) -> Calculate:
    """Returns the function from a resample's weights to the figures that have intervals."""
    if isinstance(a.task, Regression):
        return _of_regression(a)
    means, rankings = _means(a), list(a.rankings()) if a.logits.size <= MOST_SCORES else []

    def calculate(w: np.ndarray | None) -> Figures:
        out = {name: f.mean(values, w) for name, values in means.items()} | _of_counts(a, w)
        if rankings:
            out |= _mean_areas(np.array([ranking.areas(w) for ranking in rankings]))
        return out | {"ece": a.reliability(weights=w).expected_error()}

    return calculate


def _others(a: Outcomes, areas: np.ndarray) -> Figures:
    """Returns the figures that would take too long to have intervals."""
    if isinstance(a.task, Regression):
        return {}
    out = {} if a.logits.size <= MOST_SCORES else _mean_areas(areas)
    out["adaptive_ece"] = a.reliability(adaptive=True).expected_error()
    if a.logits.shape[1] > 1:
        out["classwise_ece"] = classwise_error(a.probabilities, a.positive)
    return out


def _means(a: Outcomes) -> dict[str, np.ndarray]:
    """Returns by name what is averaged over examples, [N] each."""
    assert a.right is not None
    if isinstance(a.task, Classification):
        out = {"loss": f.cross_entropies(a.logits, a.targets), "top1": a.right}
        if a.logits.shape[1] > 5:
            out["top5"] = f.top_k(a.logits, a.truth, 5)
        return out | {"brier": f.brier_scores(a.probabilities, a.targets)}
    out = {"loss": f.sigmoid_cross_entropies(a.logits, a.targets).mean(1)}
    if isinstance(a.task, MultiLabel):
        out |= {"exact_match": a.right, "label_accuracy": (a.said == a.truth).mean(1)}
    else:
        out["accuracy"] = a.right
    return out | {"brier": np.square(a.probabilities - a.targets).mean(1)}


def _of_counts(a: Outcomes, w: np.ndarray | None) -> Figures:
    """Returns precision, recall, F1 and their like."""
    if isinstance(a.task, MultiLabel):
        counts = f.label_counts(a.truth, a.said, w)
        micro = f.average(counts, "micro")
        return dict(zip(("precision", "recall", "f1"), micro, strict=True)) | _averages(counts)
    counts = f.class_counts(a.truth, a.said, max(a.logits.shape[1], 2), w)
    agreement = {"balanced_accuracy": f.balanced_accuracy(counts), "kappa": f.cohen_kappa(counts)}
    if isinstance(a.task, Classification):
        return _averages(counts.occurring()) | agreement
    precision, recall, f1 = (float(score[1]) for score in counts.scores())
    specificity = float(counts.right[0] / counts.true[0]) if counts.true[0] else math.nan
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "specificity": specificity,
        **agreement,
    }


def _averages(counts: f.Counts) -> Figures:
    out = {}
    for kind in ("macro", "weighted"):
        names = (f"{kind}_precision", f"{kind}_recall", f"{kind}_f1")
        out |= dict(zip(names, f.average(counts, kind), strict=True))
    return out


def _mean_areas(areas: np.ndarray) -> Figures:
    """Returns the means over the classes that have an area, [K, 2]."""
    there = np.isfinite(areas)
    totals = np.where(there, areas, 0).sum(0)
    means = np.where(there.any(0), totals / np.maximum(there.sum(0), 1), np.nan)
    return dict(zip(AREAS, map(float, means), strict=True))


def _of_regression(a: Outcomes) -> Calculate:
    task = a.task
    assert isinstance(task, Regression)
    losses = losses_of(task, a.logits, a.targets)

    def calculate(w: np.ndarray | None) -> Figures:
        out = {"loss": f.mean(losses, w)}
        each = f.regression_figures(a.said, a.truth, w)
        for name, values in each.items():
            for target, value in zip(task.names, values, strict=True):
                out[f"{name}_{target}" if len(task.names) > 1 else name] = float(value)
        out["r2"] = float(each["r2"].mean())
        return out

    return calculate


def _intervals(
    values: Figures, calculate: Calculate, count: int, seed: int, number: int
) -> dict[str, Interval]:
    out = bootstrap(calculate, count, number=number, seed=seed)
    if "ece" in out:
        # Chance in every bin adds to an ECE, and in a resample once more: the interval is
        # that of the difference, turned around (the basic bootstrap), and holds the figure.
        (low, high), value = out["ece"], values["ece"]
        out["ece"] = max(min(2 * value - high, value), 0.0), max(2 * value - low, value)
    proportions = [name for name in (*PROPORTIONS, "top5") if name in values]
    return out | {name: wilson_interval(values[name] * count, count) for name in proportions}


def _classes(a: Outcomes, names: Sequence[str], areas: np.ndarray) -> list[dict[str, Any]]:
    """Returns the figures of each class or label."""
    if isinstance(a.task, MultiLabel):
        counts = f.label_counts(a.truth, a.said)
    else:
        counts = f.class_counts(a.truth, a.said, len(names))
    precision, recall, f1 = counts.scores()
    out = [
        {
            "name": name,
            "examples": int(counts.true[k]),
            "said": int(counts.said[k]),
            "precision": float(precision[k]),
            "recall": float(recall[k]),
            "recall_interval": wilson_interval(float(counts.right[k]), float(counts.true[k])),
            "f1": float(f1[k]),
        }
        for k, name in enumerate(names)
    ]
    if len(areas) == len(out):
        for row, each in zip(out, areas, strict=True):
            row |= dict(zip(AREAS, map(float, each), strict=True))
    return out


def _confusion(a: Outcomes, names: Sequence[str]) -> dict[str, Any]:
    matrix = f.confusion_matrix(a.truth, a.said, len(names))
    wrong = matrix - np.diag(np.diag(matrix))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [divmod(int(cell), len(names)) for cell in largest]
    confused = [
        {
            "true": names[i],
            "said": names[j],
            "count": int(wrong[i, j]),
            "part": float(wrong[i, j] / matrix[i].sum()),
        }
        for i, j in pairs
        if wrong[i, j]
    ]
    whole = {"confusion": matrix.tolist()} if len(names) <= MOST_CLASSES else {}
    return whole | {"confused": confused}
