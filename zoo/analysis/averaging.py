"""The mean of several answers about one image: of several views of it, or several models."""

import numpy as np

from zoo.analysis.figures import log_sigmoid, log_softmax
from zoo.errors import ConfigError
from zoo.tasks.classification import Classification
from zoo.tasks.regression import Regression
from zoo.tasks.task import Task

HOW = ("probabilities", "logits")


def average_logits(logits: np.ndarray, task: Task, how: str = "probabilities") -> np.ndarray:
    """Returns logits, float64 [N, K], that say what several say on average.

    Of "probabilities" it is their arithmetic mean: the softmax, or the sigmoids, of what is
    returned are the means of those of `logits`. Of "logits" it is the mean of these, a
    geometric mean of probabilities. The values of a regression are averaged either way.

    Args:
      logits: [V, N, K].
      task: that they are of.
      how: one of `HOW`.

    Raises:
      ConfigError: for another way.
    """
    if how not in HOW:
        raise ConfigError(f"{how!r}: averages are of {' or '.join(HOW)}")
    if how == "logits" or isinstance(task, Regression):
        return logits.astype(np.float64).mean(0)
    if isinstance(task, Classification):
        count, rows, classes = logits.shape
        logs = log_softmax(logits.reshape(-1, classes)).reshape(count, rows, classes)
        return _log_mean(logs)
    return _log_mean(log_sigmoid(logits)) - _log_mean(log_sigmoid(-logits))


def _log_mean(logs: np.ndarray) -> np.ndarray:
    """Returns log mean exp over the first axis."""
    return np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))
