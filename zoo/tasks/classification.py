"""Multi-class classification: softmax cross-entropy, top-1 and top-5."""

import math

import jax
import jax.numpy as jnp
import optax

Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, count)

BEST = "top1"  # the validation metric by which checkpoints are compared; larger is better


def metrics(
    logits: jax.Array, labels: jax.Array, mask: jax.Array, *, label_smoothing: float = 0.0
) -> Metrics:
    """Returns masked sums and counts: divide once, at the end, for exact means.

    Args:
      logits: float [B, K].
      labels: int [B], from 0 to K - 1.
      mask: float [B], 0 for rows that do not count.
      label_smoothing: how much of the target is spread evenly over all classes (Szegedy
        et al. 2015, https://arxiv.org/abs/1512.00567, section 7).

    Returns:
      `loss`, `top1` and, where there are more than five classes, `top5`.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    count = jnp.sum(mask)
    out = {
        "loss": (jnp.sum(mask * optax.softmax_cross_entropy(logits, targets)), count),
        "top1": (jnp.sum(mask * (jnp.argmax(logits, axis=-1) == labels)), count),
    }
    if logits.shape[-1] > 5:
        # The rank of the true class: how many logits are larger (ties go to the truth).
        truth = jnp.take_along_axis(logits, labels[:, None], axis=-1)
        rank = jnp.sum(logits > truth, axis=-1)
        out["top5"] = (jnp.sum(mask * (rank < 5)), count)
    return out


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
