"""The gradient of a batch that does not fit, from parts of it that do."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from zoo.errors import ConfigError
from zoo.tasks.task import Metrics

# (params, batch_stats, part of the batch, its number int32 [], *rest)
#   -> (sum of the losses [], (how many count [], batch_stats, metrics))
LossSum = Callable[..., tuple[jax.Array, tuple[jax.Array, Any, Metrics]]]


def split_batch(batch: Any, parts: int) -> Any:
    """Returns arrays [parts, B / parts, …] of arrays [B, …].

    Part i has the rows i, i + parts, i + 2 parts, …: where the rows are spread over devices
    in order, every device keeps its own, and nothing is sent.

    Args:
      batch: a tree of arrays [B, …].
      parts: a divisor of B.

    Raises:
      ConfigError: if it is none.
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    if parts < 1 or size % parts:
        near = [n for n in range(1, size + 1) if size % n == 0]
        raise ConfigError(
            f"accumulation over {parts!r} parts cannot divide a batch of {size} examples; "
            f"{min(near, key=lambda n: abs(n - parts))} parts can"
        )
    return jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(size // parts, parts, *x.shape[1:]), 0, 1), batch
    )


def accumulate(
    loss_sum: LossSum, parts: int, across: tuple[str, ...] = ()
) -> Callable[..., tuple[Any, Any, Metrics]]:
    """Returns (params, batch_stats, batch, *rest) -> (gradient, batch_stats, metrics).

    The gradient is that of the mean loss over the rows that count, in whatever parts they
    are: gradients of sums are added, and divided once by the count of all. That is the large
    batch's gradient up to rounding, however the mask falls. (`optax.MultiSteps` averages
    means: a part with one row weighs as much as a full one.) What is not a mean over rows, a
    penalty on the weights, is added to the result once.

    BatchNorm is the difference that stays: it normalises by a part of the batch, and its
    averages move once for each part, one after the other. Only one part's activations are in
    memory at a time.

    Args:
      loss_sum: the loss of a part as a sum; its number is there to draw other dropout from.
      parts: into how many the batch is split, see `split_batch`.
      across: the axes over which the batch lies, where the function is mapped and sees the
        rows of one device: gradients, counts and metrics are then added over them, and
        BatchNorm's averages averaged.
    """
    grad = jax.grad(loss_sum, has_aux=True)

    def gradient(params: Any, batch_stats: Any, batch: Any, *rest: Any) -> tuple[Any, Any, Metrics]:
        def step(carry: Any, part: Any) -> tuple[Any, Metrics]:
            total, count, stats = carry
            g, (number, stats, metrics) = grad(params, stats, *part, *rest)
            return (jax.tree.map(jnp.add, total, g), count + number, stats), metrics

        if parts == 1:
            total, (count, stats, metrics) = grad(params, batch_stats, batch, 0, *rest)
        else:
            zero = jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), batch_stats
            numbered = split_batch(batch, parts), jnp.arange(parts)
            # XLA computes convolutions within a loop on one thread of a CPU.
            unroll = parts if jax.default_backend() == "cpu" else 1
            (total, count, stats), metrics = lax.scan(step, zero, numbered, unroll=unroll)
            metrics = jax.tree.map(lambda m: m.sum(axis=0), metrics)
        if across:
            total, count, metrics = lax.psum((total, count, metrics), across)
            stats = lax.pmean(stats, across)
        count = jnp.where(count > 0, count, 1)  # with weights of classes it may be below 1
        return jax.tree.map(lambda g: (g / count).astype(g.dtype), total), stats, metrics

    return gradient
