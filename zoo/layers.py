"""Pieces that families share: the outside of a network, convolution, pooling, blocks."""

from collections.abc import Callable, Iterator
import functools
import math
from typing import Any, ClassVar

from flax import linen as nn
from flax.linen.dtypes import promote_dtype
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from zoo.ops.convolution import conv2d
from zoo.ops.normalization import BatchNorm
from zoo.ops.pooling import max_pool2d

Layer = Callable[..., nn.Module]  # a module class, or one with some of its fields bound
Endpoints = dict[str, Any]  # arrays by name; `aux_logits` is a tuple of them
Padding = str | int | tuple[tuple[int, int], tuple[int, int]]


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


_RATE = (_is_rate, "from 0 to 1")
_MULTIPLIER = (_is_positive, "greater than 0")

# What fields of these names may be, whatever the family.
ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_classes": (
        lambda v: isinstance(v, int) and v >= 1,
        "a whole number from 1 on, or None for no head",
    ),
    "dropout_rate": _RATE,
    "aux_dropout_rate": _RATE,
    "drop_path_rate": _RATE,
    "norm_epsilon": _MULTIPLIER,
    "norm_momentum": _RATE,
    "width_mult": _MULTIPLIER,
    "depth_mult": _MULTIPLIER,
    "padding": (lambda v: v in ("symmetric", "SAME"), "'symmetric' or 'SAME'"),
    "remat": (
        lambda v: isinstance(v, tuple | list) and all(isinstance(i, int) and i > 0 for i in v),
        "a tuple of stages, counted from 1",
    ),
}


class Classifier(nn.Module):
    """A network seen from outside: images in, class logits (or features) out.

    A family subclasses this and defines one compact method,
    `endpoints(images, *, train)`, which returns the feature maps by name: `strideN` for
    the last map at each resolution, `pre_logits` [B, D], and `logits` [B, K] unless
    `num_classes` is None. Under `jit` the endpoints nobody uses cost nothing.

    Attributes:
      num_classes: size of the head; None for no head, the model then returns features.
      dtype: what to compute in, e.g. `jnp.bfloat16`; None follows the input. Logits and
        BatchNorm's statistics are float32 at least, whatever this is.
      param_dtype: what to store parameters in.
    """

    num_classes: int | None = 1000
    dtype: Any = None
    param_dtype: Any = jnp.float32

    smallest: ClassVar[int] = 1

    @property
    def smallest_image(self) -> int:
        """Height and width below which a map would be empty."""
        return self.smallest

    def __post_init__(self) -> None:
        """Raises ValueError for fields that no network can have."""
        super().__post_init__()
        for field, (holds, allowed) in ALLOWED.items():
            value = getattr(self, field, None)
            if value is not None and not holds(value):
                raise ValueError(f"{type(self).__name__}: {field}={value!r}: must be {allowed}")

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits [B, num_classes], or features [B, D] without a head.

        Args:
          images: [B, H, W, C], already normalised.
          train: whether BatchNorm uses the batch and dropout is on.
        """
        out = self.endpoints(images, train=train)
        return out["logits"] if "logits" in out else out["pre_logits"]

    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        """Returns every named feature map of the network."""
        raise NotImplementedError

    def check(self, images: jax.Array) -> None:
        """Raises ValueError unless images are [B, H, W, C] and large enough."""
        least = self.smallest_image
        if images.ndim != 4 or min(images.shape[1:3]) < least or images.shape[3] < 1:
            raise ValueError(
                f"{type(self).__name__} takes images [B, H, W, C] of at least {least}x{least} "
                f"pixels, got {list(images.shape)}; resize them"
            )

    @property
    def kinds(self) -> dict[str, Any]:
        """The `dtype` and `param_dtype` that every layer takes."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def classify(self, x: jax.Array, name: str = "head") -> jax.Array:
        """Returns logits [B, num_classes], float32 at least, of features [B, D].

        To be called from the compact method; makes a dense layer of that name.
        """
        assert self.num_classes is not None
        x = nn.Dense(self.num_classes, name=name, **self.kinds)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def batch_norm(self, train: bool, *, epsilon: float, momentum: float) -> Layer:
        """Returns BatchNorm with everything bound but its name.

        Its running variance averages the biased variance of each batch of n values; torch
        averages the unbiased one, which is n / (n - 1) times as large.

        Args:
          train: use the batch's statistics and update the averages.
          epsilon: added to the variance.
          momentum: of the averages, 0.9 being torch's 0.1.
        """
        return functools.partial(
            BatchNorm,
            use_running_average=not train,
            momentum=momentum,
            epsilon=epsilon,
            **self.kinds,
        )

    def stochastic_depth(self, rate: float, blocks: int, train: bool) -> Iterator[Layer]:
        """Yields for each block the layer that drops its residual for whole examples.

        The rate grows linearly from 0 to `rate` (Huang et al. 2016,
        https://arxiv.org/abs/1603.09382, section 3).
        """
        for i in range(blocks):
            yield functools.partial(
                nn.Dropout,
                rate * i / max(blocks - 1, 1),
                broadcast_dims=(1, 2, 3),
                deterministic=not train,
            )

    def pool_and_classify(self, x: jax.Array, dropout_rate: float, train: bool) -> Endpoints:
        """Returns `pre_logits`, the mean over all positions, and `logits` if there is a head."""
        x = x.mean((1, 2))
        out = {"pre_logits": x}
        if self.num_classes is not None:
            x = nn.Dropout(dropout_rate, deterministic=not train, name="dropout")(x)
            out["logits"] = self.classify(x)
        return out


def rematerialise(block: Layer, when: bool) -> Layer:
    """Returns the block, or one that is computed again in the backward pass.

    Memory then holds the block's input only (Chen et al. 2016,
    https://arxiv.org/abs/1604.06174).
    """
    if not when:
        return block
    if isinstance(block, functools.partial):
        return functools.partial(nn.remat(block.func), *block.args, **block.keywords)
    return nn.remat(block)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Returns the multiple of `divisor` nearest to a number of channels.

    At least `divisor`, and never below 90 % of the value: as the authors of MobileNet
    round scaled widths, so that hardware runs them well.

    Example:
      >>> make_divisible(32 * 0.75), make_divisible(18)
      (24, 24)
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def explicit_padding(padding: Padding, window: tuple[int, int]) -> Any:
    """Returns padding as `lax` takes it.

    Args:
      padding: "symmetric" for (k - 1) // 2 on each side, as torch users write it; a
        number for that many on each side; "SAME" (TensorFlow's, which at stride 2 pads
        less in front than behind), "VALID", or explicit pairs.
      window: size of the kernel or of the pooling window.
    """
    if padding == "symmetric":
        return tuple(((k - 1) // 2, (k - 1) // 2) for k in window)
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    return padding


class Conv(nn.Module):
    """2-D convolution of NHWC images, `groups == C` for a depthwise one.

    Weights are drawn for ReLU networks: normal with variance 2 / (outputs of a weight)
    (He et al. 2015, https://arxiv.org/abs/1502.01852, section 2.2, backward case).
    """

    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: Padding = "symmetric"
    groups: int = 1
    use_bias: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        window = (size, size) if isinstance(size, int) else size
        init = self.kernel_init or nn.initializers.variance_scaling(
            2.0 * self.groups, "fan_out", "normal"
        )
        shape = (*window, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if self.padding == "VALID" and self.groups == 1 and window == x.shape[1:3]:
            # One position: a dense layer.
            x = x.reshape(x.shape[0], 1, 1, math.prod(x.shape[1:]))
            kernel = kernel.reshape(1, 1, x.shape[3], self.features)
            x = conv2d(x, kernel)
        else:
            padding = explicit_padding(self.padding, window)
            x = conv2d(x, kernel, strides=self.strides, padding=padding, groups=self.groups)
        return x if bias is None else x + bias


def max_pool(
    x: jax.Array, window: int, strides: int, padding: Padding = "VALID", *, ceil_mode: bool = False
) -> jax.Array:
    """Returns the largest value of each window, [B, H', W', C]; padding never wins.

    `ceil_mode` keeps a last window that is only partly inside, as in Caffe and torch.
    """
    pads = explicit_padding(padding, (window, window))
    if ceil_mode:
        pads: Any = tuple(
            (low, high + ceil_padding(size + low + high, window, strides, size + low))
            for size, (low, high) in zip(x.shape[1:3], explicit_pairs(pads), strict=True)
        )
    return max_pool2d(x, window, strides, pads)


def explicit_pairs(padding: Any) -> Any:
    """Returns `padding` with "VALID" written out."""
    return ((0, 0), (0, 0)) if padding == "VALID" else padding


def ceil_padding(padded: int, window: int, strides: int, inside: int) -> int:
    """Returns what is to be added behind so that the last, partial window counts.

    Args:
      padded: size with its padding on both sides.
      window: of the pooling.
      strides: of the pooling.
      inside: where the image ends; a window that begins there or later does not count.
    """
    count = -(-(padded - window) // strides) + 1
    if (count - 1) * strides >= inside:
        count -= 1
    return max((count - 1) * strides + window - padded, 0)


def avg_pool(
    x: jax.Array,
    window: int,
    strides: int,
    padding: Padding = "VALID",
    *,
    count_include_pad: bool = True,
) -> jax.Array:
    """Returns the mean of each window, [B, H', W', C]; padding counts as zeros or not."""
    pads = explicit_padding(padding, (window, window))
    return nn.avg_pool(
        x, (window, window), (strides, strides), pads, count_include_pad=count_include_pad
    )


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Returns means [B, size, size, C] over a grid of bins that may overlap, as torch's.

    Bin i covers rows floor(i H / size) to ceil((i + 1) H / size).
    """

    def bins(length: int) -> np.ndarray:
        out = np.zeros((size, length))
        for i in range(size):
            start, stop = i * length // size, -(-(i + 1) * length // size)
            out[i, start:stop] = 1 / (stop - start)
        return out

    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (jnp.asarray(bins(length), x.dtype) for length in x.shape[1:3])
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns)


def local_response_norm(
    x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> jax.Array:
    """Returns x / (k + alpha sum x^2)^beta, the sum over `size` neighbouring channels.

    Krizhevsky et al. 2012, section 3.3, with its constants. Caffe, ONNX and torch divide
    alpha by `size`: give them alpha = 5e-4 for the paper's 1e-4.
    """
    squares = jnp.square(x)
    total = lax.reduce_window(
        squares,
        np.zeros((), x.dtype),  # a constant, or JAX does not see that this is a sum
        lax.add,
        (1, 1, 1, size),
        (1, 1, 1, 1),
        ((0, 0), (0, 0), (0, 0), ((size - 1) // 2, size // 2)),
    )
    return x / (k + alpha * total) ** beta


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all channels.

    Hu et al. 2018, https://arxiv.org/abs/1709.01507, figure 2.

    Attributes:
      reduced: channels of the bottleneck.
      conv: the bound `Conv`.
      activation: after the bottleneck.
      gate: after the expansion.
    """

    reduced: int
    conv: Layer
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        means = x.mean((1, 2), keepdims=True)
        means = self.conv(self.reduced, 1, use_bias=True, name="reduce")(means)
        means = self.conv(x.shape[-1], 1, use_bias=True, name="expand")(self.activation(means))
        return x * self.gate(means)


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter depthwise, project by 1x1 without activation.

    Sandler et al. 2018, https://arxiv.org/abs/1801.04381, figure 4d; with squeeze-excite
    Howard et al. 2019 and Tan and Le 2019. Added to its input where the shapes allow.

    Attributes:
      features: channels out.
      expanded: channels in between; no expansion if the input has as many.
      kernel_size: of the depthwise convolution.
      strides: of the depthwise convolution.
      conv: the bound `Conv`.
      norm: the bound BatchNorm.
      activation: after expansion and depthwise convolution.
      squeeze_excite: the bound `SqueezeExcite`, or None for none.
      drop: the bound stochastic depth of the residual.
    """

    features: int
    expanded: int
    kernel_size: int
    strides: int
    conv: Layer
    norm: Layer
    activation: Callable[[jax.Array], jax.Array]
    squeeze_excite: Layer | None = None
    drop: Layer = functools.partial(nn.Dropout, 0.0, deterministic=True)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        if self.expanded != x.shape[-1]:
            x = self.conv(self.expanded, 1, name="expand_conv")(x)
            x = self.activation(self.norm(name="expand_bn")(x))
        x = self.conv(
            self.expanded,
            self.kernel_size,
            self.strides,
            groups=self.expanded,
            name="depthwise_conv",
        )(x)
        x = self.activation(self.norm(name="depthwise_bn")(x))
        if self.squeeze_excite is not None:
            x = self.squeeze_excite(name="se")(x)
        x = self.conv(self.features, 1, name="project_conv")(x)
        x = self.norm(name="project_bn")(x)
        # Maps of 1x1 keep their shape at stride 2 as well.
        same = self.strides == 1 and x.shape == shortcut.shape
        return self.drop(name="drop")(x) + shortcut if same else x
