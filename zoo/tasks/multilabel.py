"""Multi-label classification: any number of labels for each image, one sigmoid for each."""

from collections.abc import Sequence
import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError, DataError
from zoo.tasks.binary import (
    COUNTS,
    check_probabilities,
    check_threshold,
    decision_counts,
    precision_recall_f1,
    sigmoid_cross_entropy,
)
from zoo.tasks.classification import check_smoothing, check_weights
from zoo.tasks.task import Best, Metrics, Pair, Sums, at_least_float32, hide, masked_sum, means


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """Yes or no for each of K labels.

    Targets are [B, K], integers 0 and 1 or probabilities. See `Task`. The loss of an example
    is the mean over its labels, so that its size does not depend on how many there are.

    Args:
      label_smoothing: of the training loss, at least 0 and less than 1; towards one half.
      positive_weights: what a positive counts in the training loss, beside a negative's 1,
        one for each label; 1 by default.
      threshold: the probability above which the answer is yes.

    Raises:
      ConfigError: for other values.
    """

    label_smoothing: float = 0.0
    positive_weights: Sequence[float] | None = None
    threshold: float = 0.5

    best: ClassVar[Best] = Best("f1", larger_is_better=True)

    def __post_init__(self):
        check_smoothing(self.label_smoothing)
        check_threshold(self.threshold)
        if self.positive_weights is not None:
            object.__setattr__(self, "positive_weights", tuple(self.positive_weights))
            check_weights("positive_weights", self.positive_weights)

    def outputs(self, data_classes: int) -> int:
        if self.positive_weights is not None and len(self.positive_weights) != data_classes:
            raise ConfigError(
                f"positive_weights has {len(self.positive_weights)} value(s) and the data have "
                f"{data_classes} labels; give one for each"
            )
        return data_classes

    def check_targets(self, targets: np.ndarray, num_outputs: int, name: str) -> None:
        if targets.ndim != 2 or targets.shape[1] != num_outputs:
            raise DataError(
                f"{name}: targets {list(targets.shape)}; wanted [N, {num_outputs}], "
                "1 for each label that an example has"
            )
        check_probabilities(targets, name)

    def activation(self, logits: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(at_least_float32(logits))

    def loss(self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool) -> Pair:
        logits, targets = _rows(logits, targets, mask)
        weighted = train and self.positive_weights is not None
        losses = sigmoid_cross_entropy(
            logits,
            targets,
            label_smoothing=self.label_smoothing if train else 0.0,
            positive_weight=self._weights(logits) if weighted else 1.0,
        )
        return masked_sum(jnp.mean(losses, axis=-1), mask), jnp.sum(mask)

    def metrics(
        self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool
    ) -> Metrics:
        """Returns "loss" and "exact_match", both [], and the counts of `COUNTS`, each [K]."""
        loss = self.loss(logits, targets, mask, train=train)
        logits, targets = _rows(logits, targets, mask)
        count = jnp.sum(mask)
        counts = decision_counts(logits, targets, mask, self.threshold)
        said = logits > math.log(self.threshold / (1 - self.threshold))
        exact = masked_sum(jnp.all(said == (targets > 0.5), axis=-1), mask)
        out: Metrics = {"loss": loss, "exact_match": (exact, count)}
        return out | {name: (total, count) for name, total in counts.items()}

    def summary(self, sums: Sums) -> dict[str, float]:
        """Returns figures over all decisions, and with "macro_" their means over labels.

        "loss"; "exact_match", the part of examples of which every label is right;
        "precision", "recall" and "f1" of all decisions together (micro-averaged);
        "macro_precision", "macro_recall" and "macro_f1".
        """
        each = [np.asarray(sums[name][0], np.float64) for name in COUNTS]
        together = precision_recall_f1(*(counts.sum() for counts in each))
        out = means({name: pair for name, pair in sums.items() if name not in COUNTS})
        counted = sums["exact_match"][1] > 0
        for name, micro, macro in zip(
            ("precision", "recall", "f1"), together, precision_recall_f1(*each), strict=True
        ):
            out[name] = float(micro) if counted else math.nan
            out[f"macro_{name}"] = float(macro.mean()) if counted else math.nan
        return out

    def _weights(self, logits: jax.Array) -> jax.Array:
        weights = self.positive_weights or ()
        if len(weights) != logits.shape[-1]:
            raise ConfigError(
                f"positive_weights has {len(weights)} value(s) and the head {logits.shape[-1]} "
                "outputs; give one for each"
            )
        return jnp.asarray(weights, logits.dtype)


def _rows(logits: jax.Array, targets: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    if logits.ndim != 2 or targets.shape != logits.shape:
        raise ConfigError(
            f"targets {list(targets.shape)} do not suit logits {list(logits.shape)}: the "
            "multi-label task wants both [B, K]"
        )
    return hide(at_least_float32(logits), mask), hide(targets, mask)
