"""Figures of predictions: functions of arrays alone, each with the value scikit-learn gives.

`weights` [N] say how often each example counts, 1 by default: figures of a bootstrap's resample
are those of the same arrays with other weights.
"""

from typing import Literal, NamedTuple

import numpy as np

from zoo.tasks.binary import precision_recall_f1

Average = Literal["macro", "micro", "weighted"]
Weights = np.ndarray | None


class Counts(NamedTuple):
    """Of each of K classes or labels, how often it was said and true.

    Attributes:
      right: [K], both at once: true positives.
      said: [K], predicted.
      true: [K], the support.
    """

    right: np.ndarray
    said: np.ndarray
    true: np.ndarray

    def occurring(self) -> "Counts":
        """Returns those of the classes that were said or true at least once."""
        there = (self.said > 0) | (self.true > 0)
        return Counts(*(counts[there] for counts in self))

    def scores(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns precision, recall and F1, float64 [K]; 0 where they are 0 / 0."""
        return precision_recall_f1(self.right, self.said - self.right, self.true - self.right)


def confusion_matrix(
    targets: np.ndarray, said: np.ndarray, num_classes: int, weights: Weights = None
) -> np.ndarray:
    """Returns [K, K]: how often class i (the row) was said to be class j (the column).

    Args:
      targets: int [N].
      said: int [N].
      num_classes: K.
      weights: [N]; without, the matrix is int64.
    """
    cells = np.bincount(targets * num_classes + said, weights, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def class_counts(
    targets: np.ndarray, said: np.ndarray, num_classes: int, weights: Weights = None
) -> Counts:
    """Returns the counts of classes of which each example has one.

    Args:
      targets: int [N].
      said: int [N].
      num_classes: K.
      weights: [N].
    """
    w = np.ones(len(targets)) if weights is None else weights
    right = np.bincount(targets, w * (targets == said), minlength=num_classes)
    each = (np.bincount(labels, w, minlength=num_classes) for labels in (said, targets))
    return Counts(right, *each)


def label_counts(targets: np.ndarray, said: np.ndarray, weights: Weights = None) -> Counts:
    """Returns the counts of labels of which an example has any number.

    Args:
      targets: bool [N, K].
      said: bool [N, K].
      weights: [N].
    """
    w = np.ones(len(targets)) if weights is None else weights
    return Counts(w @ (targets & said), w @ said, w @ targets)


def average(counts: Counts, kind: Average) -> tuple[float, float, float]:
    """Returns precision, recall and F1 of all classes together.

    Args:
      counts: of each. scikit-learn leaves classes that do not occur out of its mean over
        classes, `counts.occurring()`, but no label where an example has any number of them.
      kind: "macro", the mean over classes; "weighted", each with its support; "micro", of
        the sums of counts.
    """
    if kind == "micro":
        counts, w = Counts(*(np.asarray([c.sum()]) for c in counts)), np.ones(1)
    else:
        w = counts.true if kind == "weighted" else np.ones(len(counts.true))
    precision, recall, f1 = (float(w @ s / max(w.sum(), 1)) for s in counts.scores())
    return precision, recall, f1


def balanced_accuracy(counts: Counts) -> float:
    """Returns the mean recall of the classes that there are, NaN if there is none."""
    there = counts.true > 0
    recalls = counts.right[there] / counts.true[there]
    return float(recalls.mean()) if there.any() else np.nan


def cohen_kappa(counts: Counts) -> float:
    """Returns (p - q) / (1 - q): p the accuracy, q what chance gives with the same counts.

    Cohen 1960, https://doi.org/10.1177/001316446002000104. NaN where q is 1.
    """
    n = counts.true.sum()
    if not n:
        return np.nan
    p, q = counts.right.sum() / n, float(counts.said @ counts.true) / n**2
    return float((p - q) / (1 - q)) if q < 1 else np.nan


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Returns whether the truth is among the k largest, bool [N], as the trainer counts it.

    Of equal logits the first is the largest for k = 1; for others, ties go to the truth. A
    row with a NaN at the truth is wrong.

    Args:
      logits: [N, K].
      labels: int [N].
      k: 1 or more.
    """
    if k == 1:
        return logits.argmax(1) == labels
    truth = logits[np.arange(len(labels)), labels, None]
    return (~(logits <= truth)).sum(1) < k


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns log p, float64 [N, K], without rounding to log 0."""
    z = logits.astype(np.float64)
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def log_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns log p, float64, of the same shape; that of 1 - p is `log_sigmoid(-logits)`."""
    return -np.logaddexp(0, -logits.astype(np.float64))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns p, float64, of the same shape."""
    return np.exp(log_sigmoid(logits))


def one_hot(targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns labels int [N] as float64 [N, K]; probabilities [N, K] as they are."""
    if targets.ndim == 2:
        return targets.astype(np.float64)
    return (targets[:, None] == np.arange(num_classes)).astype(np.float64)


def cross_entropies(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns -sum_k t_k log softmax_k of each example, float64 [N]; the mean is the log loss.

    Args:
      logits: [N, K].
      targets: labels, int [N], or probabilities [N, K].
    """
    logs = log_softmax(logits)
    if targets.ndim == 1:
        return -logs[np.arange(len(targets)), targets]
    return -np.where(targets > 0, targets * logs, 0).sum(1)


def sigmoid_cross_entropies(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns -t log p - (1 - t) log(1 - p) of each element, float64 [N, K].

    Args:
      logits: [N, K].
      targets: [N, K], 0 to 1.
    """
    return -targets * log_sigmoid(logits) - (1 - targets) * log_sigmoid(-logits)


def brier_scores(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the sum over classes of (p - t)^2 of each example, float64 [N].

    Brier 1950, equation 2: from 0 to 2 (of two classes, twice what (p - t)^2 of one gives).

    Args:
      probabilities: [N, K].
      targets: labels, int [N], or probabilities [N, K].
    """
    if targets.ndim == 2:
        return np.square(probabilities - targets).sum(1)
    of_truth = probabilities[np.arange(len(targets)), targets]
    return np.square(probabilities).sum(1) + 1 - 2 * of_truth


def mean(values: np.ndarray, weights: Weights = None) -> float:
    """Returns the mean of [N], NaN of none."""
    w = np.ones(len(values)) if weights is None else weights
    return float(w @ values / w.sum()) if w.sum() else np.nan


class Ranking:
    """Examples by their score, of which some are positive.

    Args:
      scores: [N].
      positive: bool [N].
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray):
        self._order = np.argsort(scores, kind="stable")
        ascending = scores[self._order]
        # Those of one score share a place, as no threshold can come between them.
        self._places = np.cumsum(np.diff(ascending, prepend=ascending[:1]) > 0)
        self._positive = positive[self._order]

    def areas(self, weights: Weights = None) -> tuple[float, float]:
        """Returns the area under the ROC curve, and average precision.

        The first says how often a positive has a larger score than a negative, where ties
        count one half (Mann and Whitney 1947); NaN where there are not both. The second is the
        sum over thresholds of precision times the recall gained; NaN without positives.

        Args:
          weights: [N], how often each example counts.
        """
        w = np.ones(len(self._order)) if weights is None else weights[self._order]
        all_, positives = (np.bincount(self._places, x) for x in (w, w * self._positive))
        negatives, found = all_ - positives, positives.sum()
        pairs = found * negatives.sum()
        below = np.cumsum(negatives) - negatives / 2
        said, right = (np.cumsum(x[::-1])[::-1] for x in (all_, positives))
        precision = right / np.where(said > 0, said, 1)
        return (
            float(positives @ below / pairs) if pairs else np.nan,
            float(positives @ precision / found) if found else np.nan,
        )


def regression_figures(
    predicted: np.ndarray, targets: np.ndarray, weights: Weights = None
) -> dict[str, np.ndarray]:
    """Returns "mae", "rmse", "r2" and "mean_error" (predicted - true), float64 [T] each.

    "r2" is 1 - sum of squared errors / sum of squared deviations, NaN where targets do not vary.

    Args:
      predicted: [N, T], in the targets' units.
      targets: [N, T].
      weights: [N].
    """
    w = np.ones(len(targets)) if weights is None else weights
    total = w.sum()
    targets = targets.astype(np.float64)
    errors = predicted - targets
    squared = w @ np.square(errors)
    spread = w @ np.square(targets - w @ targets / total)
    return {
        "mae": w @ np.abs(errors) / total,
        "rmse": np.sqrt(squared / total),
        "r2": np.where(spread > 0, 1 - squared / np.where(spread > 0, spread, 1), np.nan),
        "mean_error": w @ errors / total,
    }
