"""What was true and what was said of every example, as the trainer's metrics read it."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import math

import numpy as np

from zoo.analysis import figures
from zoo.analysis.calibration import BINS, Reliability, reliability
from zoo.analysis.predictions import Predictions
from zoo.errors import DataError
from zoo.tasks.binary import Binary
from zoo.tasks.classification import Classification
from zoo.tasks.make import make_task
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.task import Task

# By task: what part of examples is right altogether. A regression has no such figure.
RIGHT = {"classification": "top1", "binary": "accuracy", "multilabel": "exact_match"}


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What was true and what was said of N examples.

    Attributes:
      task: the task.
      logits: float64 [N, K].
      probabilities: float64 [N, K]: softmax, or sigmoids; of a regression, the values.
      targets: labels, int [N]; or float64 [N, K], probabilities or the true values.
      truth: labels, int [N], also of the binary task; bool [N, K] of several labels; of a
        regression the true values.
      said: likewise.
      right: bool [N], whether all that was said of an example is true; None of a regression.
    """

    task: Task
    logits: np.ndarray
    probabilities: np.ndarray
    targets: np.ndarray
    truth: np.ndarray
    said: np.ndarray
    right: np.ndarray | None

    @property
    def sigmoids(self) -> bool:
        """Whether each logit is a yes or no of its own."""
        return isinstance(self.task, Binary | MultiLabel)

    @functools.cached_property
    def positive(self) -> np.ndarray:
        """Which outputs are true, bool [N, K]."""
        if self.sigmoids:
            return self.targets > 0.5
        return self.truth[:, None] == np.arange(self.logits.shape[1])

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """How probable what was said is, float64 [N]; of several labels, the mean over them."""
        if self.sigmoids:
            yes = self.said.reshape(self.logits.shape).astype(bool)
            return np.where(yes, self.probabilities, 1 - self.probabilities).mean(1)
        return self.probabilities[np.arange(len(self.said)), self.said]

    def rankings(self) -> Iterator[figures.Ranking]:
        """Yields for each output the examples by its probability."""
        for p, positive in zip(self.probabilities.T, self.positive.T, strict=True):
            yield figures.Ranking(p, positive)

    def reliability(
        self, *, bins: int = BINS, adaptive: bool = False, weights: np.ndarray | None = None
    ) -> Reliability:
        """Returns the reliability diagram.

        Of a classification it is that of the class that was said; of labels, that of a yes,
        over all labels together.

        Args:
          bins: see `zoo.analysis.calibration.reliability`.
          adaptive: likewise.
          weights: [N], likewise.
        """
        if self.right is None or self.sigmoids:
            p, right = self.probabilities.ravel(), self.positive.ravel()
            weights = None if weights is None else np.repeat(weights, self.logits.shape[1])
        else:
            p, right = self.confidence, self.right
        return reliability(p, right, bins=bins, adaptive=adaptive, weights=weights)


def in_words(answer: np.ndarray | np.integer, names: Sequence[str]) -> str:
    """Returns the name of a label, or those of several, as of `Outcomes.truth[i]`."""
    if np.ndim(answer) == 0:
        return names[int(answer)]
    there = np.flatnonzero(answer)
    return ", ".join(names[int(k)] for k in there) or "none"


def outcomes_of(predictions: Predictions) -> Outcomes:
    """Returns what was true and what was said.

    Of a classification, the first of the largest logits is said and the first of the largest
    targets is true; of one and of several labels, yes is what is above the task's threshold,
    and true what is above one half.

    Raises:
      DataError: for targets that are not the task's, or logits that are not finite.
    """
    task = make_task(predictions.task["name"], predictions.task["arguments"])
    logits, targets = predictions.logits.astype(np.float64), np.asarray(predictions.targets)
    task.check_targets(targets, logits.shape[1], predictions.data["name"])
    if not np.isfinite(logits).all():
        first = int(np.argmin(np.isfinite(logits).all(1)))
        raise DataError(
            f"{predictions.model}: says {logits[first].tolist()[:5]} of "
            f"{predictions.places[first]}; its weights are damaged, or diverged"
        )
    if isinstance(task, Classification):
        labels = targets.argmax(1) if targets.ndim > 1 else targets.astype(np.int64)
        p, said = np.exp(figures.log_softmax(logits)), logits.argmax(1)
        return Outcomes(task, logits, p, targets, labels, said, said == labels)
    targets = targets.reshape(logits.shape).astype(np.float64)
    if isinstance(task, Regression):
        values = logits * (task.std or 1.0) + (task.mean or 0.0)
        return Outcomes(task, logits, values, targets, targets, values, None)
    assert isinstance(task, Binary | MultiLabel)
    # In float32, as the trainer compares: a logit may lie at the threshold.
    said = predictions.logits > np.float32(math.log(task.threshold / (1 - task.threshold)))
    truth, p = targets > 0.5, figures.sigmoid(logits)
    right = (said == truth).all(1)
    if isinstance(task, Binary):
        said, truth = said[:, 0].astype(np.int64), truth[:, 0].astype(np.int64)
    return Outcomes(task, logits, p, targets, truth, said, right)
