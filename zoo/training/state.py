"""Everything that training changes, as one tree of arrays."""

from collections.abc import Mapping
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@struct.dataclass
class Skips:
    """How many steps were undone because they were not finite.

    Attributes:
      consecutive: int32 [], since the last good one.
      longest: int32 [], most in a row since the beginning.
      total: int32 [], since the beginning.
    """

    consecutive: jax.Array
    longest: jax.Array
    total: jax.Array

    @classmethod
    def none(cls) -> "Skips":
        """Returns the counts before the first step."""
        return cls(*(jnp.zeros((), jnp.int32) for _ in range(3)))


@struct.dataclass
class TrainState:
    """Arrays only; the functions that use them close over model and optimiser.

    Attributes:
      step: int32 [], how many batches were seen.
      params: what the optimiser changes.
      batch_stats: what BatchNorm remembers; {} without BatchNorm.
      opt_state: optax's.
      skips: which steps were undone.
      ema: {"params", "batch_stats"}, their exponential moving average; {} when not kept.
      swa: {"count", "params", "batch_stats"}, their plain mean and of how many; likewise.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    skips: Skips
    ema: Any
    swa: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    *,
    with_ema: bool = False,
    with_swa: bool = False,
) -> TrainState:
    """Returns the state before the first step; traceable, for `eval_shape` and `jit`.

    Args:
      variables: of the model, initial or imported.
      optimizer: optax's.
      with_ema: whether to keep an exponential moving average.
      with_swa: whether to keep a plain mean.
    """
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    weights = {"params": params, "batch_stats": batch_stats}
    # The averages start as copies: the same buffer twice could not be donated.
    copies = [jax.tree.map(jnp.copy, weights) if kept else {} for kept in (with_ema, with_swa)]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        skips=Skips.none(),
        ema=copies[0],
        swa={"count": jnp.zeros((), jnp.int32), **copies[1]} if with_swa else {},
    )


def steps_of(state: TrainState) -> int:
    """Returns how many batches a state has seen; of several replicas, each of them."""
    return int(np.asarray(state.step).flat[0])


def weight_sets(state: TrainState) -> dict[str, dict[str, Any]]:
    """Returns what can be evaluated, by the ending of its name: "", "_ema" and "_swa".

    A mean of nothing yet is left out.
    """
    sets = {"": state.variables}
    if state.ema:
        sets["_ema"] = state.ema
    if state.swa and np.all(np.asarray(state.swa["count"])):  # of all replicas
        sets["_swa"] = {name: state.swa[name] for name in ("params", "batch_stats")}
    return sets


def parameter_count(params: Any) -> int:
    """Returns how many numbers a tree of arrays (or their shapes) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
