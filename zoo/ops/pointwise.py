"""A 1x1 convolution and the BatchNorm behind it as one, whose middle is never stored.

The mean and the variance of z = x W follow from the mean and the covariance of x,

    mean(z) = W^T mean(x),    var(z) = diag(W^T cov(x) W),

so that z can be normalised as it is computed. Its gradient is a linear function of the
gradient of the output and of z, dz = A dy + B z + K with a number each for every channel, and
z is linear in x. What the backward pass needs of z are then products with x:

    dx = dy (W A)^T + x (W B W^T) + W K
    dW = (x^T dy) A + (x^T x W) B + (sum of x) K^T
    sum of dy z = sum over W (x^T dy)

Where the convolution widens, as the last one of a bottleneck does by four, z is the largest
array of its block, and it is neither written nor read in either pass. That is the same
function; in exact arithmetic all results are those of the two layers. In bfloat16 they differ
in what is rounded: z is not, and the products of the backward pass are.

The price are x^T x and x (W B W^T), together (I / O) of what the convolution's forward and
backward pass to its input cost, for I channels in and O out.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from zoo.ops.across import AxisGroups, AxisName, mean_across, norm_gradient, same_axes


def pointwise_norm_train(
    x: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    *,
    axis_name: AxisName = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (y, mean, var): z = x W normalised by its own statistics, and these.

    As `batch_norm_train` of the product; see there.

    Args:
      x: [..., I], in the type in which to multiply.
      kernel: [I, O].
      scale: [O].
      bias: [O].
      epsilon: added to the variance.
      axis_name: mapped axes whose rows are normalised together. Gradients are to be taken
        within what is mapped.
      axis_index_groups: groups of that axis, as `jax.lax.psum` takes them.

    Returns:
      y [..., O], of the type of x; mean and var [O], float32 at least.
    """
    groups = None if axis_index_groups is None else tuple(map(tuple, axis_index_groups))
    x, kernel, scale, bias = same_axes(x, kernel, scale, bias)
    return _pointwise_norm(x, kernel, scale, bias, epsilon, axis_name, groups)


def _forward(
    x: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    axis_name: AxisName,
    groups: AxisGroups,
) -> tuple[Any, Any]:
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rows, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    mine = jnp.concatenate([_product(x, x), x.sum(rows, dtype=wide)[None]]) / count
    (moments,) = mean_across([mine], axis_name, groups)
    square, centre = moments[:-1], moments[-1]
    used = kernel.astype(x.dtype)  # the weights that are multiplied with
    weights = used.astype(wide)
    mean = _exactly(centre[None], weights)[0]
    covariance = square - centre[:, None] * centre
    var = jnp.maximum((weights * _exactly(covariance, weights)).sum(0), 0)
    slope = lax.rsqrt(var + epsilon) * scale
    z = jnp.matmul(x, used, preferred_element_type=wide)
    y = (z - mean) * slope + bias
    return (y.astype(x.dtype), mean, var), (x, kernel, scale, bias, mean, var, mine)


def _backward(
    epsilon: float,
    axis_name: AxisName,
    groups: AxisGroups,
    kept: Any,
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x, kernel, scale, bias, mean, var, moments = kept
    dy, dmean, dvar = cotangents
    wide = mean.dtype
    rows, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    weights = kernel.astype(x.dtype).astype(wide)
    rstd = lax.rsqrt(var + epsilon)
    product, dbias = _product(x, dy), dy.sum(rows, dtype=wide)
    dscale = rstd * ((weights * product).sum(0) - mean * dbias)
    times_dy = scale * rstd
    gradients = (dscale, dbias, dmean, dvar)
    times_z, constant = norm_gradient(gradients, count, times_dy, mean, rstd, axis_name, groups)
    square, centre = moments[:-1], moments[-1]
    dkernel = product * times_dy
    dkernel += count * (_exactly(square, weights) * times_z + centre[:, None] * constant)
    back = (weights * times_dy).astype(x.dtype)
    through = _exactly(weights * times_z, weights.T).astype(x.dtype)
    # The smaller product is rounded and stored, and added as the larger one is computed. Left
    # alone XLA stores the larger one, in float32.
    rest = jnp.matmul(x, through, preferred_element_type=wide)
    rest = rest + _exactly(constant[None], weights.T)[0]
    rest = lax.optimization_barrier(rest.astype(x.dtype))
    dx = lax.dot_general(dy, back, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=wide)
    dx += rest
    return (
        dx.astype(x.dtype),
        dkernel.astype(kernel.dtype),
        dscale.astype(scale.dtype),
        dbias.astype(bias.dtype),
    )


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a^T b [I, O] of [..., I] and [..., O], summed in float32 at least."""
    rows = tuple(range(a.ndim - 1))
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, ((rows, rows), ((), ())), preferred_element_type=wide)


def _exactly(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a b of small matrices, without rounding them first as accelerators would."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _outputs(*arguments: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _forward(*arguments)[0]


_pointwise_norm = jax.custom_vjp(_outputs, nondiff_argnums=(4, 5, 6))
_pointwise_norm.defvjp(_forward, _backward)


@jax.custom_jvp
def rectify(x: jax.Array) -> jax.Array:
    """Returns max(x, 0), whose gradient needs the result only and not x.

    Behind `pointwise_norm_train`, `jax.nn.relu` would have x stored.
    """
    return jnp.maximum(x, 0)


@rectify.defjvp
def _rectify_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]):
    y = rectify(*primals)
    return y, jnp.where(y > 0, tangents[0], jnp.zeros_like(tangents[0]))
