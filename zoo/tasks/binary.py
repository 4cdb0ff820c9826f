"""Binary classification with one logit: sigmoid cross-entropy, precision, recall, F1."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError, DataError
from zoo.tasks.classification import check_smoothing
from zoo.tasks.task import Best, Metrics, Pair, Sums, at_least_float32, hide, masked_sum, means

COUNTS = ("true_positives", "false_positives", "false_negatives")


def sigmoid_cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    *,
    label_smoothing: float = 0.0,
    positive_weight: float | jax.Array = 1.0,
) -> jax.Array:
    """Returns -w s log p - (1 - s) log(1 - p) of each element, p the sigmoid of its logit.

    s is the smoothed target, (1 - label_smoothing) t + label_smoothing / 2, as if the two
    classes were a softmax's.

    Args:
      logits: float [...].
      targets: t [...], from 0 to 1; NaN comes out for any other.
      label_smoothing: at least 0 and less than 1.
      positive_weight: w, torch's `pos_weight`: a number, or one for each entry of the last
        axis. The sum's divisor does not depend on it.
    """
    right = (targets >= 0) & (targets <= 1)
    t = jnp.where(right, targets, 0).astype(logits.dtype)
    s = (1 - label_smoothing) * t + label_smoothing / 2
    losses = -positive_weight * s * jax.nn.log_sigmoid(logits)
    losses -= (1 - s) * jax.nn.log_sigmoid(-logits)
    return jnp.where(right, losses, jnp.nan)


def decision_counts(
    logits: jax.Array, targets: jax.Array, mask: jax.Array, threshold: float
) -> dict[str, jax.Array]:
    """Returns masked true and false positives and false negatives, [] or [K], by `COUNTS`.

    Positive are predictions above the threshold and targets above one half: of soft
    targets, the larger part counts.

    Args:
      logits: float [B] or [B, K].
      targets: of the same shape, from 0 to 1.
      mask: float [B].
      threshold: a probability.
    """
    said, true = logits > math.log(threshold / (1 - threshold)), targets > 0.5
    kinds = (said & true, said & ~true, ~said & true)
    return {name: masked_sum(kind, mask) for name, kind in zip(COUNTS, kinds, strict=True)}


def precision_recall_f1(tp: Any, fp: Any, fn: Any) -> tuple[Any, Any, Any]:
    """Returns tp / (tp + fp), tp / (tp + fn) and 2 tp / (2 tp + fp + fn).

    0 where a divisor is 0 (nothing predicted positive, or nothing that is), as scikit-learn
    has it by default.

    Args:
      tp: true positives, numbers or arrays [K].
      fp: false positives, likewise.
      fn: false negatives, likewise.
    """
    tp, fp, fn = (np.asarray(x, np.float64) for x in (tp, fp, fn))
    divisors = (tp + fp, tp + fn, tp + (fp + fn) / 2)
    precision, recall, f1 = (tp / np.where(d > 0, d, 1) for d in divisors)
    return precision, recall, f1


def check_threshold(threshold: float) -> None:
    """Raises ConfigError unless it is a probability between 0 and 1."""
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold={threshold!r}: must be between 0 and 1, neither included")


def check_probabilities(targets: np.ndarray, name: str) -> None:
    """Raises DataError at the first example [N, …] with a target outside [0, 1]."""
    right = ((targets >= 0) & (targets <= 1)).reshape(len(targets), -1).all(1)
    if not right.all():
        first = int(np.argmin(right))
        raise DataError(
            f"{name}: example {first} has target {targets[first].tolist()}, allowed are 0 (no) "
            f"to 1 (yes) ({int(np.sum(~right))} such targets)"
        )


@dataclasses.dataclass(frozen=True)
class Binary:
    """Yes or no for each image, by one logit: its sigmoid is the probability of class 1.

    Targets are [B] or [B, 1], integers 0 and 1 or probabilities. See `Task`. There is no
    area under the ROC curve: it needs every score, and sums over bins only approach it.

    Args:
      label_smoothing: of the training loss, at least 0 and less than 1.
      positive_weight: what a positive counts in the training loss, beside a negative's 1;
        the number of negatives by that of positives balances them.
      threshold: the probability above which the answer is yes.

    Raises:
      ConfigError: for other values.
    """

    label_smoothing: float = 0.0
    positive_weight: float = 1.0
    threshold: float = 0.5

    best: ClassVar[Best] = Best("accuracy", larger_is_better=True)

    def __post_init__(self):
        check_smoothing(self.label_smoothing)
        check_threshold(self.threshold)
        if not 0 < self.positive_weight < math.inf:
            raise ConfigError(f"positive_weight={self.positive_weight!r}: must be greater than 0")

    def outputs(self, data_classes: int) -> int:
        if data_classes != 2:
            raise ConfigError(
                f"the binary task wants 2 classes and the data have {data_classes}; "
                "take the task 'classification'"
            )
        return 1

    def check_targets(self, targets: np.ndarray, num_outputs: int, name: str) -> None:
        if targets.shape not in ((len(targets),), (len(targets), 1)):
            raise DataError(f"{name}: targets {list(targets.shape)}; wanted [N] or [N, 1]")
        check_probabilities(targets, name)

    def activation(self, logits: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(at_least_float32(logits))

    def loss(self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool) -> Pair:
        logits, targets = _columns(logits, targets, mask)
        losses = sigmoid_cross_entropy(
            logits,
            targets,
            label_smoothing=self.label_smoothing if train else 0.0,
            positive_weight=self.positive_weight if train else 1.0,
        )
        return masked_sum(losses, mask), jnp.sum(mask)

    def metrics(
        self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool
    ) -> Metrics:
        """Returns "loss", "accuracy" and the counts of `COUNTS`, all [] and out of B."""
        loss = self.loss(logits, targets, mask, train=train)
        logits, targets = _columns(logits, targets, mask)
        counts, count = decision_counts(logits, targets, mask, self.threshold), jnp.sum(mask)
        errors = counts["false_positives"] + counts["false_negatives"]
        out: Metrics = {"loss": loss, "accuracy": (count - errors, count)}
        return out | {name: (total, count) for name, total in counts.items()}

    def summary(self, sums: Sums) -> dict[str, float]:
        """Returns "loss", "accuracy", "precision", "recall" and "f1"."""
        values = precision_recall_f1(*(sums[name][0] for name in COUNTS))
        counted = sums["accuracy"][1] > 0
        return means({name: pair for name, pair in sums.items() if name not in COUNTS}) | {
            name: float(value) if counted else math.nan
            for name, value in zip(("precision", "recall", "f1"), values, strict=True)
        }


def _columns(logits: jax.Array, targets: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns both as [B]; a [B] less a [B, 1] would quietly be a [B, B]."""
    batch = mask.shape[0]
    for name, x in (("logits", logits), ("targets", targets)):
        if x.shape not in ((batch,), (batch, 1)):
            raise ConfigError(
                f"{name} {list(x.shape)} do not suit the binary task: give [{batch}] or "
                f"[{batch}, 1]"
            )
    logits = at_least_float32(logits).reshape(batch)
    return hide(logits, mask), hide(targets.reshape(batch), mask)
