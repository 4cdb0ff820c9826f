"""ResNet and its kin: ResNeXt, Wide ResNet. He, Zhang, Ren and Sun 2015.

"Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385
"Aggregated residual transformations", https://arxiv.org/abs/1611.05431 (ResNeXt)
"Wide residual networks", https://arxiv.org/abs/1605.07146 (Zagoruyko and Komodakis)

Table 1 of the first, blocks per stage; each stage halves the map and doubles the width.

    stage     output   features     18    34    50   101   152
    stem     112x112         64     7x7 convolution, stride 2
              56x56          64     3x3 max pooling, stride 2
    stage1    56x56          64      2     3     3     3     3
    stage2    28x28         128      2     4     4     4     8
    stage3    14x14         256      2     6     6    23    36
    stage4     7x7          512      2     3     3     3     3
    block                           basic        bottleneck (4 x features out)
    head                            global average pooling, dense
    10^9 multiply-adds             1.8   3.6   3.8   7.6  11.3

Its section 4.2 and table 6, for 32x32 images: a 3x3 stem, then three stages of n basic
blocks with 16, 32 and 64 features; shortcuts are identities whose missing channels are
zero (option A).

    layers, 6n + 2        20    32    44    56   110
    10^6 parameters     0.27  0.46  0.66  0.85   1.7

ResNeXt and Wide ResNet change the middle of a bottleneck, here of stage 1:

                        groups  features  10^6 parameters (of the whole, as torchvision has it)
    resnet50                 1        64  25.6
    resnext50_32x4d         32       128  25.0
    resnext101_32x8d        32       256  88.8
    resnext101_64x4d        64       256  83.5
    wide_resnet50_2          1       128  68.9
    wide_resnet101_2         1       128  126.9

Differs from the papers: `resnet50` and its kin are "v1.5", which everyone trains and calls
ResNet: the stride is on the 3x3 convolution, not on the first 1x1 as in table 1. The
paper's placement is `resnet50_v1`, with the biases and epsilon of its published weights,
Keras's, whose BatchNorm averages with 0.99, ours with 0.9. The last BatchNorm of each
residual starts at 0 (Goyal et al. 2017, section 5.1). The paper does not say where option A
puts its zeros; here, half in front and half behind. Pre-activation is in `resnet_v2`.
"""

from collections.abc import Callable
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import Classifier, Conv, Endpoints, Layer, max_pool, rematerialise
from zoo.ops.normalization import norm_after
from zoo.ops.pointwise import rectify

ZERO = nn.initializers.zeros


def projection(x: jax.Array, block: "Basic | Bottleneck", features: int) -> jax.Array:
    """Option B: a 1x1 convolution where shapes differ."""
    if x.shape[-1] == features and block.strides == 1:
        return x
    conv = block.conv(features, 1, block.strides, name="downsample_conv")
    return norm_after(block.norm(name="downsample_bn"), conv, x)


def zero_padding(x: jax.Array, block: "Basic | Bottleneck", features: int) -> jax.Array:
    """Option A: every `strides`-th pixel, and zeros for the channels that are missing."""
    missing = features - x.shape[-1]
    x = x[:, :: block.strides, :: block.strides]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))


class Basic(nn.Module):
    """Two 3x3 convolutions (v1, figure 5 left)."""

    features: int
    strides: int
    conv: Layer
    norm: Layer
    drop: Layer  # stochastic depth of the residual
    shortcut: Callable[..., jax.Array] = projection

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = self.shortcut(x, self, self.features)
        x = self.conv(self.features, 3, self.strides, name="conv1")(x)
        x = nn.relu(self.norm(name="bn1")(x))
        x = self.conv(self.features, 3, name="conv2")(x)
        x = self.norm(scale_init=ZERO, name="bn2")(x)
        return nn.relu(self.drop(name="drop")(x) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions (v1, figure 5 right; ResNeXt, figure 3c).

    The 3x3 is `features * base_width / 64` wide in each of its groups.
    """

    features: int
    strides: int
    conv: Layer
    norm: Layer
    drop: Layer
    groups: int = 1
    base_width: int = 64
    strides_on: str = "conv2"  # or "conv1", as the paper has it
    shortcut: Callable[..., jax.Array] = projection

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = (self.strides if self.strides_on == c else 1 for c in ("conv1", "conv2"))
        width = self.features * self.base_width // 64 * self.groups
        shortcut = self.shortcut(x, self, 4 * self.features)
        x = self.conv(width, 1, first, name="conv1")(x)
        x = nn.relu(self.norm(name="bn1")(x))
        x = self.conv(width, 3, second, groups=self.groups, name="conv2")(x)
        x = nn.relu(self.norm(name="bn2")(x))
        conv = self.conv(4 * self.features, 1, name="conv3")
        x = norm_after(self.norm(scale_init=ZERO, name="bn3"), conv, x)
        return rectify(self.drop(name="drop")(x) + shortcut)


class ResNet(Classifier):
    """Residual network, v1 and v1.5.

    Attributes:
      stage_sizes: blocks per stage.
      block: `Basic` or `Bottleneck`, its own fields bound.
      widths: features of each stage.
      small_images: a 3x3 stem without pooling, for 32x32 images.
      conv_bias: whether convolutions have biases in front of their BatchNorm.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      dropout_rate: in front of the head.
      drop_path_rate: of the last block; grows linearly from 0 at the first (Huang et al.
        2016, https://arxiv.org/abs/1603.09382).
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    block: Layer = Bottleneck
    widths: tuple[int, ...] = (64, 128, 256, 512)
    small_images: bool = False
    conv_bias: bool = False
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    remat: tuple[int, ...] = ()

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, use_bias=self.conv_bias, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        out, stride = {}, 1 if self.small_images else 2
        size = 3 if self.small_images else 7
        x = conv(self.widths[0], size, stride, name="stem_conv")(images)
        x = out[f"stride{stride}"] = nn.relu(norm(name="stem_bn")(x))  # [B, H/2, W/2, 64]
        if not self.small_images:
            x, stride = max_pool(x, 3, 2, padding=1), 4
        drops = self.stochastic_depth(self.drop_path_rate, sum(self.stage_sizes), train)
        for stage, blocks in enumerate(self.stage_sizes, 1):
            block = rematerialise(self.block, stage in self.remat)
            for i in range(blocks):
                strides = 2 if stage > 1 and i == 0 else 1
                layers = {"conv": conv, "norm": norm, "drop": next(drops)}
                name = f"stage{stage}_block{i + 1}"
                x = block(self.widths[stage - 1], strides, **layers, name=name)(x)
                stride *= strides
            out[f"stride{stride}"] = x  # [B, H/stride, W/stride, features or 4 x features]
        return out | self.pool_and_classify(x, self.dropout_rate, train)


SIZES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

_V1 = {
    "block": functools.partial(Bottleneck, strides_on="conv1"),
    "conv_bias": True,
    "norm_epsilon": 1.001e-5,
}
_CIFAR = {
    "block": functools.partial(Basic, shortcut=zero_padding),
    "widths": (16, 32, 64),
    "small_images": True,
    "num_classes": 10,
}


def _wide(groups: int, base_width: int) -> Layer:
    return functools.partial(Bottleneck, groups=groups, base_width=base_width)


VARIANTS = {
    "resnet18": {"stage_sizes": SIZES[18], "block": Basic},
    "resnet34": {"stage_sizes": SIZES[34], "block": Basic},
    "resnet50": {"stage_sizes": SIZES[50]},
    "resnet101": {"stage_sizes": SIZES[101]},
    "resnet152": {"stage_sizes": SIZES[152]},
    "resnet50_v1": {"stage_sizes": SIZES[50], **_V1},
    "resnet101_v1": {"stage_sizes": SIZES[101], **_V1},
    "resnet152_v1": {"stage_sizes": SIZES[152], **_V1},
    "resnext50_32x4d": {"stage_sizes": SIZES[50], "block": _wide(32, 4)},
    "resnext101_32x8d": {"stage_sizes": SIZES[101], "block": _wide(32, 8)},
    "resnext101_64x4d": {"stage_sizes": SIZES[101], "block": _wide(64, 4)},
    "wide_resnet50_2": {"stage_sizes": SIZES[50], "block": _wide(1, 128)},
    "wide_resnet101_2": {"stage_sizes": SIZES[101], "block": _wide(1, 128)},
}
VARIANTS_CIFAR = {
    f"resnet{6 * n + 2}": {"stage_sizes": (n, n, n), **_CIFAR} for n in (3, 5, 7, 9, 18)
}
