"""Everything that training changes, as one tree of arrays."""

from collections.abc import Mapping
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax


@struct.dataclass
class TrainState:
    """Arrays only; the functions that use them close over model and optimiser.

    Attributes:
      step: int32 [], how many updates were made.
      params: what the optimiser changes.
      batch_stats: what BatchNorm remembers; {} without BatchNorm.
      opt_state: optax's.
      ema: averaged {"params", "batch_stats"}; {} when not kept.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    *,
    with_ema: bool,
) -> TrainState:
    """Returns the state before the first step; traceable, for `eval_shape` and `jit`.

    Args:
      variables: of the model, initial or imported.
      optimizer: optax's.
      with_ema: whether to keep averaged weights.
    """
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    ema = {"params": params, "batch_stats": batch_stats} if with_ema else {}
    # The average starts as a copy: the same buffer twice could not be donated.
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, ema),
    )


def parameter_count(params: Any) -> int:
    """Returns how many numbers a tree of arrays (or their shapes) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
