"""Means over mapped axes."""

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
