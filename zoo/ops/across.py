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


def norm_gradient(
    gradients: Sequence[jax.Array],
    count: int,
    slope: jax.Array,
    mean: jax.Array,
    rstd: jax.Array,
    axis_name: AxisName,
    groups: AxisGroups,
) -> tuple[jax.Array, jax.Array]:
    """Returns (a, b) of BatchNorm's input gradient, slope dy + a x + b, having sent two numbers.

    With m the mean over all rows, dx = slope (dy - m(dy) - xhat m(dy xhat)) and what comes by the
    statistics, sorted by dy, x and neither.

    Args:
      gradients: [C] each, of these rows: of scale, of bias, of the mean and of the variance.
      count: of these rows.
      slope: [C], scale times rstd.
      mean: [C], of all rows.
      rstd: [C], 1 / sqrt(var + epsilon), likewise.
      axis_name: as for `mean_across`.
      groups: likewise.
    """
    dscale, dbias, dmean, dvar = gradients
    mine = [(2 * dvar - slope * rstd * dscale) / count, (dmean - slope * dbias) / count]
    of_x, rest = mean_across(mine, axis_name, groups)
    return of_x, rest - of_x * mean


def same_axes(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns arrays that vary over the same axes of a `shard_map` that keeps account of it."""
    axes = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    everything = frozenset().union(*axes)
    return tuple(
        lax.pcast(a, tuple(everything - own), to="varying") if everything - own else a
        for a, own in zip(arrays, axes, strict=True)
    )
