"""What a task is: targets and logits of batches in, the figures of a whole dataset out.

A task makes a masked sum and a masked count of everything it measures in a batch. These can
be added up over batches, devices and hosts in any grouping, and become figures only at the
end, so that no figure is a mean of means. Counts of examples are exact however they are
grouped; sums of real numbers are so up to float32's rounding within a batch.
"""

from collections.abc import Mapping
import math
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError

Pair = tuple[jax.Array, jax.Array]  # (sum, count); a sum may have one entry per output
Metrics = dict[str, Pair]  # of one batch, on the devices
Sums = Mapping[str, tuple[Any, Any]]  # the same, of one batch or many, on the host

# What an auxiliary head's loss counts beside the main one's, by model. 0.3: Szegedy et al.
# 2014, https://arxiv.org/abs/1409.4842, section 5. 0.4: the paper of Inception v3 gives no
# number; it is that of its authors' code (`train_image_classifier.py` of TF-slim).
AUX_WEIGHTS = {"googlenet": 0.3, "googlenet_2014": 0.3, "inception_v3": 0.4}

PROPORTIONS = ("top1", "accuracy", "exact_match")  # figures that have an interval


class Best(NamedTuple):
    """By which figure of `summary` checkpoints are compared.

    Attributes:
      metric: its name.
      larger_is_better: false for errors and losses.
    """

    metric: str
    larger_is_better: bool

    def improves(self, value: float, best: float | None, min_delta: float = 0.0) -> bool:
        """Whether a value is better than the best so far, and by more than `min_delta`.

        NaN and infinities never are.

        Example:
          >>> Best("loss", larger_is_better=False).improves(0.5, 0.7)
          True
        """
        if not math.isfinite(value):
            return False
        if best is None or math.isnan(best):
            return True
        gain = value - best if self.larger_is_better else best - value
        return gain > min_delta


def best_of(task: "Task", metric: str) -> Best:
    """Returns how a figure of a task is compared: losses and errors by the smaller one."""
    if metric == task.best.metric:
        return task.best
    is_error = metric.partition("_")[0] in ("loss", "mae", "rmse")
    return Best(metric, larger_is_better=not is_error)


class Task(Protocol):
    """A loss, the metrics that go with it and how they become figures.

    Implementations are frozen dataclasses of plain values: they can be compared, hashed and
    closed over by a compiled function. Targets are an array whose first axis is the batch.

    Attributes:
      best: by which figure checkpoints are compared.
    """

    best: ClassVar[Best]

    def outputs(self, data_classes: int) -> int:
        """Returns the size of the head.

        Args:
          data_classes: how many classes (or labels) the dataset has.

        Raises:
          ConfigError: if these data do not suit the task.
        """
        ...

    def check_targets(self, targets: np.ndarray, num_outputs: int, name: str) -> None:
        """Looks at targets on the host, before they are trained on.

        A compiled function cannot raise; there a wrong target makes the loss NaN, unless its
        row is masked.

        Args:
          targets: of some or all examples [N, …].
          num_outputs: of the head.
          name: where the targets come from, for the message.

        Raises:
          DataError: at the first target that the task does not allow.
        """
        ...

    def activation(self, logits: jax.Array) -> jax.Array:
        """Returns predictions of logits [B, outputs]: probabilities, or values."""
        ...

    def loss(self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool) -> Pair:
        """Returns the masked sum of the loss and the count to divide it by, both [].

        Args:
          logits: float [B, outputs].
          targets: [B, …], see the task.
          mask: float [B], 0 for rows that do not count, whatever they hold.
          train: with what only shapes training: label smoothing and weights of classes.

        Raises:
          ConfigError: for shapes that do not go together.
        """
        ...

    def metrics(
        self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool
    ) -> Metrics:
        """Returns masked sums and counts, "loss" among them; arguments as in `loss`."""
        ...

    def summary(self, sums: Sums) -> dict[str, float]:
        """Returns the figures of what was added up; names that are not the task's are means.

        A figure that is undefined, for instance because nothing was counted, is NaN.
        """
        ...


def figures(task: Task, outputs: int) -> list[str]:
    """Returns the names of what `summary` makes of a head of so many outputs."""
    logits = jnp.zeros((1, outputs))
    shapes = jax.eval_shape(
        lambda: task.metrics(logits, jnp.ones((1, outputs)), jnp.ones(1), train=False)
    )
    sums = {name: (np.zeros(s.shape), np.zeros(c.shape)) for name, (s, c) in shapes.items()}
    return list(task.summary(sums))


def add(first: Sums, second: Sums) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the totals of two sets of sums, in double precision, on the host.

    Example:
      >>> total = add({"loss": (1.5, 2)}, {"loss": (0.5, 2)})
      >>> [float(x) for x in total["loss"]]
      [2.0, 4.0]
    """
    zero = (0.0, 0.0)
    return {
        name: (
            np.asarray(first.get(name, zero)[0], np.float64) + second.get(name, zero)[0],
            np.asarray(first.get(name, zero)[1], np.float64) + second.get(name, zero)[1],
        )
        for name in {**first, **second}
    }


def means(sums: Sums) -> dict[str, float]:
    """Returns sum / count of each name, NaN where nothing was counted."""
    return {
        name: float(total) / float(count) if count else math.nan
        for name, (total, count) in sums.items()
    }


def wilson_interval(successes: float, trials: float, z: float = 1.96) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion (Wilson 1927).

    Unlike the textbook interval it stays inside [0, 1] and is honest near the ends.

    Example:
      >>> [round(p, 3) for p in wilson_interval(355, 360)]
      [0.968, 0.994]
    """
    if not trials:
        return 0.0, 1.0
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return (centre - spread) / scale, (centre + spread) / scale


def intervals(sums: Sums) -> dict[str, tuple[float, float]]:
    """Returns the 95 % interval of every sum that is a number of examples out of all."""
    return {name: wilson_interval(*map(float, sums[name])) for name in PROPORTIONS if name in sums}


def mean_of(pair: Pair) -> jax.Array:
    """Returns sum / count [], 0 where nothing was counted: what is differentiated.

    The count may be less than 1, where classes have weights.
    """
    total, count = pair
    return total / jnp.where(count > 0, count, 1)


def mixable(targets: jax.Array, outputs: int) -> jax.Array:
    """Returns targets that can be averaged, float32 [B, K]: labels become one-hot.

    Args:
      targets: labels, integers [B]; or [B] or [B, K] of any numbers.
      outputs: of the head; with only one, integers [B] are numbers and not labels.
    """
    if targets.ndim == 1 and outputs > 1 and jnp.issubdtype(targets.dtype, jnp.integer):
        return jax.nn.one_hot(targets, outputs, dtype=jnp.float32)
    return targets.astype(jnp.float32).reshape(targets.shape[0], -1)


def masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the sum over the batch of values [B] or [B, K], each times its row's mask [B].

    NaN in a row with mask 0 does not count.
    """
    mask = mask.reshape(mask.shape[0], *[1] * (values.ndim - 1))
    return jnp.sum(jnp.where(mask > 0, mask * values, 0), axis=0)


def hide(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns [B, …] with 0 in rows with mask 0, so that no NaN there reaches a gradient."""
    return jnp.where(mask.reshape(mask.shape[0], *[1] * (x.ndim - 1)) > 0, x, 0)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Returns an array in float32, or float64 if it is that."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def total_loss(
    task: Task,
    outputs: Mapping[str, Any],
    targets: jax.Array,
    mask: jax.Array,
    *,
    aux_weight: float,
) -> Pair:
    """Returns the training loss of all heads: main + aux_weight times each auxiliary one's.

    Args:
      task: whose loss it is.
      outputs: endpoints of a model: "logits" [B, outputs] and, where there are auxiliary
        heads, "aux_logits", a tuple of the same shape.
      targets: [B, …].
      mask: float [B].
      aux_weight: see `AUX_WEIGHTS`.

    Raises:
      ConfigError: for a weight that is negative or not finite.
    """
    if not 0 <= aux_weight < math.inf:
        raise ConfigError(f"aux_weight={aux_weight!r}: must be 0 (no auxiliary loss) or more")
    total, count = task.loss(outputs["logits"], targets, mask, train=True)
    for logits in outputs.get("aux_logits", ()) if aux_weight else ():
        total += aux_weight * task.loss(logits, targets, mask, train=True)[0]
    return total, count
