"""A regression's values: predicted and true, and the errors."""

from typing import Any

import numpy as np

from zoo.analysis.outcomes import Outcomes
from zoo.tasks.regression import Regression

POINTS = 1500  # of a scatter plot; of more examples, some drawn at random
COLUMNS = 31  # of the histogram of errors: odd, so that one is around 0


def numbers(outcomes: Outcomes) -> dict[str, Any]:
    """Returns of each target its points, [true, predicted], and a histogram of errors."""
    task = outcomes.task
    assert isinstance(task, Regression)
    count = len(outcomes.truth)
    drawn = np.arange(count)
    if count > POINTS:
        drawn = np.sort(np.random.default_rng(0).choice(count, POINTS, replace=False))
    targets = []
    for i, name in enumerate(task.names):
        truth, said = outcomes.truth[:, i], outcomes.said[:, i]
        errors = said - truth
        largest = max(float(np.abs(errors).max()), 1e-12)
        counts, edges = np.histogram(errors, COLUMNS, (-largest, largest))
        targets.append(
            {
                "name": name,
                "points": np.stack([truth[drawn], said[drawn]], 1).tolist(),
                "edges": edges.tolist(),
                "counts": counts.tolist(),
                "text": _text(truth, errors),
            }
        )
    text = "A model that knew nothing would predict the mean: its points would lie flat."
    if count > POINTS:
        text += f" Of {count:,} examples {POINTS:,} are drawn, chosen at random."
    return {"text": text, "targets": targets}


def _text(truth: np.ndarray, errors: np.ndarray) -> str:
    rmse, spread = float(np.sqrt(np.mean(errors**2))), float(truth.std())
    bias = float(errors.mean())
    sign = "too large" if bias > 0 else "too small"
    text = f"Errors deviate by {rmse:.4g}, true values by {spread:.4g} from their mean. "
    return text + f"On average predictions are {abs(bias):.3g} {sign}."


def worth_seeing(outcomes: Outcomes, many: int) -> np.ndarray:
    """Returns the examples with the largest and the smallest errors of each target, int."""
    errors = np.abs(outcomes.said - outcomes.truth)
    order = np.argsort(-errors, axis=0, kind="stable")
    ends = [order[:many], order[::-1][:many]]
    return np.concatenate([end.ravel() for end in ends])
