"""Arrays of mapped programs: what they vary over, and means over that."""

from collections.abc import Sequence

import jax
from jax import lax
import jax.numpy as jnp

AxisName = str | tuple[str, ...] | None
AxisGroups = tuple[tuple[int, ...], ...] | None  # as `jax.lax.psum` takes them; hashable


def mean_across(
    arrays: Sequence[jax.Array], axis_name: AxisName, groups: AxisGroups
) -> Sequence[jax.Array]:
    """Returns the means of arrays of one shape over mapped axes, which are sent together.

    Args:
      arrays: of this part.
      axis_name: the axes; None for none, the arrays are then returned as they are.
      groups: of the axis.
    """
    if axis_name is None:
        return arrays
    return list(lax.pmean(jnp.stack(arrays), axis_name, axis_index_groups=groups))


def same_axes(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns arrays that vary over the same axes of a `shard_map` that keeps account of it."""
    axes = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    everything = frozenset().union(*axes)
    return tuple(
        lax.pcast(a, tuple(everything - own), to="varying") if everything - own else a
        for a, own in zip(arrays, axes, strict=True)
    )
