"""Multi-class classification: softmax cross-entropy, top-1 and top-5."""

from collections.abc import Sequence
import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.data.source import check_labels
from zoo.errors import ConfigError, DataError
from zoo.tasks.task import Best, Metrics, Pair, Sums, at_least_float32, hide, masked_sum, means

BEST = "top1"  # the validation metric by which checkpoints are compared; larger is better
ROUNDING = 1e-2  # by how much soft targets may miss a sum of 1: bfloat16 has three digits


def soft_targets(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns targets as probabilities [B, K], and which rows are right [B].

    Args:
      logits: float [B, K].
      targets: labels, integers [B], right from 0 to K - 1; or probabilities [B, K], right
        if none is negative and their sum is 1.

    Raises:
      ConfigError: for another shape, or labels that are not integers.
    """
    batch, classes = logits.shape
    if targets.shape == (batch, classes):
        targets = targets.astype(logits.dtype)
        whole = jnp.abs(jnp.sum(targets, axis=-1) - 1) < ROUNDING
        return targets, whole & jnp.all(targets >= 0, axis=-1)
    if targets.shape != (batch,) or not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ConfigError(
            f"targets {targets.dtype} {list(targets.shape)} do not suit logits "
            f"[{batch}, {classes}]: give integers [{batch}] or probabilities [{batch}, {classes}]"
        )
    right = (targets >= 0) & (targets < classes)
    return jax.nn.one_hot(targets, classes, dtype=logits.dtype), right


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Pair:
    """Returns the masked sum of the softmax cross-entropy and its count, both [].

    With p the softmax, t the targets and s the smoothed ones, the sum is that of
    -sum_k w_k s_k log p_k, and the count that of sum_k w_k t_k, 1 without weights. With
    labels that is torch's weighted mean; torch divides by B where targets are soft, but
    here a soft target that is all one class counts like its label.

    Args:
      logits: float [B, K].
      targets: integers [B] or probabilities [B, K] (of mixup and cutmix).
      mask: float [B]. A row that counts and whose target is wrong makes the sum NaN.
      label_smoothing: how much of the target is spread evenly over all classes (Szegedy
        et al. 2015, https://arxiv.org/abs/1512.00567, section 7).
      class_weights: w, one for each class; 1 by default.

    Raises:
      ConfigError: for shapes that do not go together.
    """
    logits, targets = hide(at_least_float32(logits), mask), hide(targets, mask)
    soft, right = soft_targets(logits, targets)
    soft = jnp.where(right[:, None], soft, 0)
    smooth = optax.smooth_labels(soft, label_smoothing)
    counts = jnp.ones_like(mask)
    if class_weights is not None:
        if len(class_weights) != logits.shape[-1]:
            raise ConfigError(
                f"class_weights has {len(class_weights)} value(s) and the head "
                f"{logits.shape[-1]} outputs; give one for each"
            )
        weights = jnp.asarray(class_weights, logits.dtype)
        counts, smooth = soft @ weights, smooth * weights
    losses = jnp.where(right, optax.softmax_cross_entropy(logits, smooth), jnp.nan)
    return masked_sum(losses, mask), masked_sum(counts, mask)


def metrics(
    logits: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Metrics:
    """Returns masked sums and counts: divide once, at the end, for exact means.

    Args:
      logits: float [B, K].
      targets: integers [B], from 0 to K - 1, or probabilities [B, K]. Of the latter the
        largest counts as the truth (the first, of equal ones): under mixup, top-1 and top-5
        say how often the larger part of a picture was named.
      mask: float [B], 0 for rows that do not count.
      label_smoothing: see `cross_entropy`; concerns the loss only.
      class_weights: likewise.

    Returns:
      `loss`, `top1` and, where there are more than five classes, `top5`.

    Raises:
      ConfigError: for shapes that do not go together.
    """
    loss = cross_entropy(
        logits, targets, mask, label_smoothing=label_smoothing, class_weights=class_weights
    )
    labels = jnp.argmax(targets, axis=-1) if targets.ndim > 1 else targets
    count = jnp.sum(mask)
    out = {"loss": loss, "top1": (masked_sum(jnp.argmax(logits, axis=-1) == labels, mask), count)}
    if logits.shape[-1] > 5:
        # The rank of the true class: how many logits are larger (ties go to the truth, but
        # a NaN is not larger or smaller than anything and must not rank first).
        truth = jnp.take_along_axis(logits, labels[:, None], axis=-1)
        rank = jnp.sum(~(logits <= truth), axis=-1)
        out["top5"] = (masked_sum(rank < 5, mask), count)
    return out


@dataclasses.dataclass(frozen=True)
class Classification:
    """One of several classes for each image.

    Targets are labels, integers [B], or probabilities [B, K]. See `Task`.

    Args:
      label_smoothing: at least 0 and less than 1; see `cross_entropy`.
      class_weights: of the training loss, one for each output; 1 by default.

    Raises:
      ConfigError: for other values.
    """

    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None

    best: ClassVar[Best] = Best(BEST, larger_is_better=True)

    def __post_init__(self):
        check_smoothing(self.label_smoothing)
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
            check_weights("class_weights", self.class_weights)

    def outputs(self, data_classes: int) -> int:
        if self.class_weights is not None and len(self.class_weights) != data_classes:
            raise ConfigError(
                f"class_weights has {len(self.class_weights)} value(s) and the data have "
                f"{data_classes} classes; give one for each"
            )
        return data_classes

    def check_targets(self, targets: np.ndarray, num_outputs: int, name: str) -> None:
        if targets.ndim == 1 and targets.dtype.kind in "iu":
            check_labels(targets, num_outputs, name)
            return
        if targets.ndim != 2 or targets.shape[1] != num_outputs:
            raise DataError(
                f"{name}: targets {targets.dtype} {list(targets.shape)}; wanted integers [N] or "
                f"probabilities [N, {num_outputs}]"
            )
        right = (targets >= 0).all(1) & (np.abs(targets.sum(1, dtype=np.float64) - 1) < ROUNDING)
        if not right.all():
            first = int(np.argmin(right))
            raise DataError(
                f"{name}: example {first} has target {targets[first].tolist()}; wanted "
                f"probabilities whose sum is 1 ({int(np.sum(~right))} such targets)"
            )

    def activation(self, logits: jax.Array) -> jax.Array:
        return jax.nn.softmax(at_least_float32(logits), axis=-1)

    def loss(self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool) -> Pair:
        return self.metrics(logits, targets, mask, train=train)["loss"]

    def metrics(
        self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool
    ) -> Metrics:
        if not train:
            return metrics(logits, targets, mask)
        return metrics(
            logits,
            targets,
            mask,
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights,
        )

    def summary(self, sums: Sums) -> dict[str, float]:
        return means(sums)


def check_smoothing(label_smoothing: float) -> None:
    """Raises ConfigError unless it is at least 0 and less than 1."""
    if not 0 <= label_smoothing < 1:
        raise ConfigError(
            f"label_smoothing={label_smoothing!r}: must be at least 0 (none) and less than 1"
        )


def check_weights(name: str, weights: Sequence[float]) -> None:
    """Raises ConfigError unless all are finite, none is negative and some are positive."""
    numbers = all(isinstance(w, int | float) for w in weights)
    if not numbers or not all(0 <= w < math.inf for w in weights) or not any(weights):
        raise ConfigError(
            f"{name}={tuple(weights)!r}: must be finite numbers, 0 or more, and not all 0; "
            "leave it out for equal weights"
        )
