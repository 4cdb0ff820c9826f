"""Averages of the weights over training, as functions of trees.

A tree is whatever is to be averaged, {"params": …, "batch_stats": …} as a rule: BatchNorm's
statistics belong to the weights that made them. Their average is a stand-in for those of
the averaged weights; Izmailov et al. 2018 pass once over the data to measure these anew.
Leaves that are not floats (counters) are taken as they are now.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from zoo.training.state import TrainState


def _moved(average: Any, new: Any, step_size: jax.typing.ArrayLike) -> Any:
    def move(old: Any, now: Any) -> Any:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return now
        moved = (step_size * now + (1 - step_size) * old).astype(old.dtype)
        return jnp.where(now == old, old, moved)  # what is frozen keeps its last bit

    return jax.tree.map(move, average, new)


def ema_decay_at(step: jax.typing.ArrayLike, decay: float) -> jax.Array:
    """Returns the decay of an exponential moving average that has just begun, float32 [].

    min(`decay`, (1 + step) / (10 + step)), as in TensorFlow's `ExponentialMovingAverage` with
    `num_updates`: the first weights, which are random, are soon forgotten.

    Args:
      step: int [], updates before this one.
      decay: what it grows to.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + step) / (10 + step))


def ema_update(
    average: Any, new: Any, step: jax.typing.ArrayLike, *, decay: float, warmup: bool = False
) -> Any:
    """Returns decay * average + (1 - decay) * new.

    Args:
      average: of the weights before this update, in its own types.
      new: the weights after it, of the same structure.
      step: int [], updates before this one; used by the warm-up only.
      decay: of the old average.
      warmup: whether the decay grows as `ema_decay_at` says.
    """
    kept = ema_decay_at(step, decay) if warmup else decay
    return _moved(average, new, 1 - kept)


def swa_update(average: Any, new: Any, count: jax.typing.ArrayLike) -> Any:
    """Returns the mean of `count` + 1 trees: stochastic weight averaging.

    Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, algorithm 1: to be called at the
    end of each cycle or epoch of the last part of training.

    Args:
      average: the mean of the first `count`.
      new: the next one.
      count: int [], how many are in the average; 0 replaces it.
    """
    return _moved(average, new, 1 / (jnp.asarray(count, jnp.float32) + 1))


@dataclasses.dataclass(frozen=True)
class Averages:
    """Which averages are kept, and how they go on.

    Attributes:
      ema_decay: of the exponential moving average; 0 for none.
      ema_warmup: whether its decay grows, see `ema_decay_at`.
      swa_start: after how many steps the plain mean begins; None for none.
      swa_every: how many steps lie between two weights that go into it.
    """

    ema_decay: float = 0.0
    ema_warmup: bool = False
    swa_start: int | None = None
    swa_every: int = 1

    def update(self, state: TrainState, new: Any) -> tuple[Any, Any]:
        """Returns the averages after a step.

        Args:
          state: before the step.
          new: {"params", "batch_stats"} after it.
        """
        ema, swa = state.ema, state.swa
        if self.ema_decay:
            ema = ema_update(ema, new, state.step, decay=self.ema_decay, warmup=self.ema_warmup)
        if self.swa_start is not None:
            passed = state.step + 1 - self.swa_start
            due = (passed >= 0) & (passed % self.swa_every == 0)
            old = {name: swa[name] for name in new}
            mean = jax.lax.cond(due, lambda: swa_update(old, new, swa["count"]), lambda: old)
            swa = {**mean, "count": swa["count"] + due}
        return ema, swa


def mean_tree(total: Any, tree: Any, count: int) -> Any:
    """Returns the mean of `count` + 1 trees, of the first `count`'s mean and one more."""
    return tree if total is None else swa_update(total, tree, count)
