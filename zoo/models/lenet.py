"""LeNet-5. LeCun, Bottou, Bengio and Haffner 1998.

"Gradient-based learning applied to document recognition", section II.B,
http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf

    layer              output     parameters of LeNet5Paper   of LeNet5
    C1  conv 5x5       28x28x6                          156         156
    S2  sub-sampling   14x14x6                           12           0
    C3  conv 5x5       10x10x16          (table I)    1,516       2,416
    S4  sub-sampling    5x5x16                           32           0
    C5  conv 5x5        1x1x120                      48,120      48,120
    F6  dense           84                           10,164      10,164
    out                 10         (RBF, fixed)           0         850
                                                     60,000      61,706

`LeNet5Paper` is the paper to the letter. `LeNet5` is what everyone has called LeNet-5
since: plain average pooling, a full C3, tanh, and a dense output layer.

Differs from the paper: in `LeNet5Paper`, logits are minus the RBF outputs, so that the
largest wins and softmax cross-entropy equals the paper's equation 9 without the "rubbish
class" constant exp(-j). Figure 3 prints the character codes as a picture; `CODES` is its
usual transcription for the ten digits.
"""

from collections.abc import Callable
import functools

from flax import linen as nn
from flax.linen.dtypes import promote_dtype
import jax
import jax.numpy as jnp
import numpy as np

from zoo.layers import Classifier, Conv, Endpoints
from zoo.ops.convolution import conv2d

# Table I: the S2 maps (of 6) that each of the 16 C3 maps sees.
C3_INPUTS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# Figure 3: the 7x12 bitmaps of the digits 0-9, side by side; '#' is +1 and '.' is -1.
CODES = """
.#####.  ...##..  .#####.  #######  .#####.  .#####.  ..####.  #######  .#####.  .#####.
.......  ..###..  .......  .....##  .......  .......  .##....  .....##  ##...##  ##..###
..###..  .####..  .#####.  ....##.  .......  #######  ##.....  .....##  ##...##  ##...##
.##.##.  ...##..  ##...##  ...##..  .##..##  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  #....##  ..####.  .##..##  ##.....  ######.  ...##..  .#####.  ##..###
##...##  ...##..  ....##.  .....##  ###..##  .####..  ###..##  ...##..  ##...##  .######
##...##  ...##..  ..###..  .....##  ##...##  ..####.  ##...##  ..##...  ##...##  .....##
##...##  ...##..  .##....  .....##  ##...##  .....##  ##...##  ..##...  ##...##  .....##
.##.##.  ...##..  ##.....  ##...##  ##..###  ##...##  ###..##  ..##...  ##...##  ....##.
..###..  .######  #######  .#####.  .######  .#####.  .#####.  ..##...  .#####.  .####..
.......  .......  .......  .......  .....##  .......  .......  .......  .......  .......
.......  .......  .......  .......  .....##  .......  .......  .......  .......  .......
"""


def character_codes() -> np.ndarray:
    """Returns the fixed RBF centres, float32 [10, 84] of -1 and +1 (figure 3)."""
    rows = [line.split() for line in CODES.strip().splitlines()]  # 12 rows of 10 digits
    bitmaps = ["".join(row[digit] for row in rows) for digit in range(10)]
    return np.array([[1.0 if p == "#" else -1.0 for p in b] for b in bitmaps], np.float32)


def scaled_tanh(x: jax.Array) -> jax.Array:
    """1.7159 tanh(2x/3), the paper's squashing function (equation 6, appendix A)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def fan_in_uniform(fan_in: int) -> Callable[..., jax.Array]:
    """Uniform in +-2.4 / fan_in, the paper's initialisation (appendix A)."""
    limit = 2.4 / fan_in

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


class SubSampling(nn.Module):
    """Sum of 2x2 neighbours, times a trainable coefficient, plus a trainable bias."""

    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", fan_in_uniform(4), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        x, scale, bias = promote_dtype(x, scale, bias, dtype=self.dtype)
        return 4 * nn.avg_pool(x, (2, 2), (2, 2)) * scale + bias


class PartialConv(nn.Module):
    """5x5 convolution in which each output map sees only the input maps of table I.

    The kernel is stored per connection, [5, 5, 60], so that the parameters are exactly
    those of the paper; it is scattered into a dense [5, 5, 6, 16] kernel when applied.
    """

    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        sources = np.concatenate(C3_INPUTS)
        targets = np.repeat(np.arange(len(C3_INPUTS)), [len(s) for s in C3_INPUTS])

        def init(key, shape, dtype):
            fan_in = 25 * np.array([len(C3_INPUTS[t]) for t in targets])
            return jax.random.uniform(key, shape, dtype, -1, 1) * jnp.asarray(2.4 / fan_in, dtype)

        kernel = self.param("kernel", init, (5, 5, len(sources)), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (len(C3_INPUTS),), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        dense = jnp.zeros((5, 5, 6, len(C3_INPUTS)), kernel.dtype)
        dense = dense.at[:, :, sources, targets].set(kernel)
        return conv2d(x, dense) + bias


def check_image(images: jax.Array, channels: int | None = None) -> None:
    """Raises ValueError unless images are [B, 32, 32, C] (C = `channels` if given)."""
    if images.ndim != 4 or images.shape[1:3] != (32, 32):
        raise ValueError(
            f"LeNet-5 takes images [B, 32, 32, C], got {list(images.shape)}; resize them"
        )
    if channels is not None and images.shape[3] != channels:
        raise ValueError(
            f"lenet5_1998 takes {channels} channel (its C3 table is the paper's), got "
            f"{images.shape[3]}; use lenet5 for colour"
        )


class LeNet5(Classifier):
    """LeNet-5 as it is taught: tanh, average pooling, dense output. 61,706 parameters.

    Input [B, 32, 32, 1], normalised (any number of channels works).
    """

    num_classes: int | None = 10

    smallest = 32  # and the largest

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        del train  # nothing here behaves differently in training
        check_image(images)
        kinds = self.kinds
        init = nn.initializers.lecun_normal()
        conv = functools.partial(Conv, padding="VALID", use_bias=True, kernel_init=init, **kinds)
        out = {}
        x = conv(6, 5, name="c1")(images)
        x = nn.avg_pool(jnp.tanh(x), (2, 2), (2, 2))
        out["stride2"] = x  # [B, 14, 14, 6]
        x = conv(16, 5, name="c3")(x)
        x = nn.avg_pool(jnp.tanh(x), (2, 2), (2, 2))
        out["stride4"] = x  # [B, 5, 5, 16]
        x = jnp.tanh(conv(120, 5, name="c5")(x))
        x = x.reshape(x.shape[0], -1)  # [B, 120]
        x = jnp.tanh(nn.Dense(84, name="f6", **kinds)(x))
        out["pre_logits"] = x  # [B, 84]
        if self.num_classes is not None:
            out["logits"] = self.classify(x)
        return out


class LeNet5Paper(Classifier):
    """LeNet-5 to the letter of 1998. 60,000 trainable parameters, 10 classes.

    Input [B, 32, 32, 1] with background -0.1 and foreground 1.175 (section II.B). The
    classes are the digits 0-9: the output layer has no parameters to make others from.
    """

    num_classes: int | None = 10

    smallest = 32  # and the largest

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        del train
        check_image(images, channels=1)
        if self.num_classes not in (10, None):
            raise ValueError(
                f"lenet5_1998 has character codes for 10 digits, got num_classes="
                f"{self.num_classes}; use lenet5 for any number of classes"
            )
        kinds = self.kinds

        def init(fan_in: int):
            return {"kernel_init": fan_in_uniform(fan_in), **kinds}

        conv = functools.partial(Conv, padding="VALID", use_bias=True)
        out = {}
        x = conv(6, 5, name="c1", **init(25))(images)
        x = SubSampling(name="s2", **kinds)(scaled_tanh(x))
        out["stride2"] = x = scaled_tanh(x)  # [B, 14, 14, 6]
        x = scaled_tanh(PartialConv(name="c3", **kinds)(x))
        x = SubSampling(name="s4", **kinds)(x)
        out["stride4"] = x = scaled_tanh(x)  # [B, 5, 5, 16]
        x = conv(120, 5, name="c5", **init(25 * 16))(x)
        x = scaled_tanh(x).reshape(x.shape[0], -1)  # [B, 120]
        x = nn.Dense(84, name="f6", **init(120))(x)
        out["pre_logits"] = x = scaled_tanh(x)  # [B, 84]
        if self.num_classes is not None:
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            distance = x[:, None, :] - character_codes()
            out["logits"] = -jnp.sum(jnp.square(distance), axis=-1)  # equation 7
        return out
