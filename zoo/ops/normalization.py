"""BatchNorm in training, with a backward pass of its own that reads each array once.

Differentiated line by line, BatchNorm keeps whatever the compiler does not manage to compute
again. Here only its input is kept, in the type in which it came, and two numbers for each
channel; the backward pass takes both of its sums in one pass over input and gradient. Sums are
float32 at least. (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, section 3.)
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
from flax.linen.dtypes import canonicalize_dtype
import jax
from jax import lax
import jax.numpy as jnp

from zoo.ops.across import AxisGroups, AxisName, mean_across, norm_gradient, same_axes
from zoo.ops.pointwise import pointwise_norm_train


def batch_norm_train(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    *,
    axis_name: AxisName = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    dtype: Any = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (y, mean, var): x normalised by its own statistics, and these.

    It has a gradient of its own, and so no forward mode by itself; `jvp` of a gradient works.

    y = (x - mean) / sqrt(var + epsilon) * scale + bias, with mean and (biased) variance over
    all axes but the last. As `flax.linen.BatchNorm` computes it with `use_fast_variance`:
    var = E[x^2] - E[x]^2, not below 0, both sums in one pass.

    Args:
      x: [..., C].
      scale: [C].
      bias: [C].
      epsilon: added to the variance.
      axis_name: mapped axes (of `pmap`, `shard_map` or `vmap`) whose rows are normalised
        together; each has as many rows. Gradients are to be taken within what is mapped.
      axis_index_groups: groups of that axis, as `jax.lax.psum` takes them.
      dtype: of y; None for that of x, scale and bias together.

    Returns:
      y [..., C]; mean and var [C], float32 at least.
    """
    dtype = canonicalize_dtype(x, scale, bias, dtype=dtype)
    groups = None if axis_index_groups is None else tuple(map(tuple, axis_index_groups))
    x, scale, bias = same_axes(x, scale, bias)
    return _batch_norm(x, scale, bias, epsilon, axis_name, groups, jnp.dtype(dtype))


def _forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    axis_name: AxisName,
    groups: AxisGroups,
    dtype: Any,
) -> tuple[Any, Any]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    rows = tuple(range(x.ndim - 1))
    means = [wide.mean(rows), jnp.square(wide).mean(rows)]
    mean, square = mean_across(means, axis_name, groups)
    var = jnp.maximum(square - jnp.square(mean), 0)
    slope = lax.rsqrt(var + epsilon) * scale
    y = wide * slope + (bias - mean * slope)
    # Scale and bias go along for their values and types; arrays of [C] cost nothing.
    return (y.astype(dtype), mean, var), (x, scale, bias, mean, var)


def _backward(
    epsilon: float,
    axis_name: AxisName,
    groups: AxisGroups,
    dtype: Any,
    kept: Any,
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del dtype
    x, scale, bias, mean, var = kept
    dy, dmean, dvar = cotangents
    rows = tuple(range(x.ndim - 1))
    wide, dy = x.astype(mean.dtype), dy.astype(mean.dtype)
    rstd = lax.rsqrt(var + epsilon)
    # Sums of what is there anyway: a centred copy of x would be written out on its way to both.
    # What scale and bias get is of these rows alone: whoever maps adds up.
    dbias = dy.sum(rows)
    dscale = rstd * ((dy * wide).sum(rows) - mean * dbias)
    slope, count = scale * rstd, x.size // x.shape[-1]
    gradients = (dscale, dbias, dmean, dvar)
    of_x, constant = norm_gradient(gradients, count, slope, mean, rstd, axis_name, groups)
    dx = slope * dy + of_x * wide + constant
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype)


def _outputs(*arguments: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _forward(*arguments)[0]


_batch_norm = jax.custom_vjp(_outputs, nondiff_argnums=(3, 4, 5, 6))
_batch_norm.defvjp(_forward, _backward)


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm` over the last axis, by `batch_norm_train` in training.

    Variables and results are those of the class it takes the place of, and so are the fields, of
    which `axis`, `use_bias`, `use_fast_variance` and `force_float32_reductions` have to be as they
    are there by default.
    """

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
        after: Any = None,
    ) -> jax.Array:
        """Returns x normalised, and updates the averages in training.

        Args:
          x: [..., C].
          use_running_average: instead of the field of that name.
          mask: not here.
          after: a bound convolution to put x through first, see `norm_after`.

        Raises:
          ValueError: for a mask, or a field that is not as it has to be.
        """
        self._check(x, mask)
        average = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        kernel = None
        if after is not None:
            kernel = None if average or self.is_initializing() else self._kernel(x, after)
            x = after(x) if kernel is None else x
        shape = (x.shape[-1] if kernel is None else kernel.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if self.use_scale:
            scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        else:
            scale = jnp.ones(shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        if average:
            y = (x - running_mean.value) * (lax.rsqrt(running_var.value + self.epsilon) * scale)
            return (y + bias).astype(canonicalize_dtype(x, scale, bias, dtype=self.dtype))
        together: Any = {"axis_index_groups": self.axis_index_groups}
        together["axis_name"] = None if self.is_initializing() else self.axis_name
        if kernel is None:
            y, mean, var = batch_norm_train(
                x, scale, bias, self.epsilon, dtype=self.dtype, **together
            )
        else:
            x = x.astype(self.dtype)
            y, mean, var = pointwise_norm_train(x, kernel, scale, bias, self.epsilon, **together)
        if not self.is_initializing():
            for running, new in ((running_mean, mean), (running_var, var)):
                running.value = self.momentum * running.value + (1 - self.momentum) * new
        return y

    def _kernel(self, x: jax.Array, conv: Any) -> jax.Array | None:
        """Returns the kernel [I, O] of a convolution that is better not stored, or None.

        That is one of 1x1 at each position that puts out more channels than it takes in, in half
        precision: in float32 accelerators would round more than that in the products.
        """
        kernel = conv.get_variable("params", "kernel")
        inside, out = kernel.shape[-2:]
        pointwise = kernel.shape == (1, 1, x.shape[-1], out) and out > inside
        plain = conv.strides in (1, (1, 1)) and not conv.use_bias
        plain = plain and conv.padding in ("symmetric", "SAME", "VALID", 0)
        half = (
            self.dtype is not None and conv.dtype == self.dtype and jnp.finfo(self.dtype).bits == 16
        )
        return kernel[0, 0] if pointwise and plain and half else None

    def _check(self, x: jax.Array, mask: jax.Array | None) -> None:
        wrong = [
            name
            for name in ("use_bias", "use_fast_variance", "force_float32_reductions")
            if not getattr(self, name)
        ]
        wrong += ["axis"] if self.axis not in (-1, x.ndim - 1) else []
        wrong += ["mask"] if mask is not None else []
        if wrong:
            values = ", ".join(
                f"{n}={'an array' if n == 'mask' else repr(getattr(self, n))}" for n in wrong
            )
            raise ValueError(
                f"BatchNorm with {values}: this one has a bias and normalises all rows "
                "over the last axis in one pass; use flax.linen.BatchNorm for others"
            )


def norm_after(norm: Any, conv: Any, x: jax.Array) -> jax.Array:
    """Returns `norm(conv(x))`, whose middle nobody else needs.

    In training, where it saves memory and traffic, the two are computed as one by
    `pointwise_norm_train`. A ReLU that follows had better be `zoo.ops.pointwise.rectify`.

    Args:
      norm: bound.
      conv: bound, with the fields of `zoo.layers.Conv`.
      x: [B, H, W, C].
    """
    if isinstance(norm, BatchNorm) and not norm.use_running_average:
        return norm(x, after=conv)
    return norm(conv(x))
