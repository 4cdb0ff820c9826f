"""MobileNetV3. Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam 2019.

"Searching for MobileNetV3", https://arxiv.org/abs/1905.02244

Tables 1 and 2; their rows of blocks are `LARGE` and `SMALL` below.

                large                        small
    stage       output    features  blocks   output    features  blocks
    stem       112x112          16           112x112         16           3x3, stride 2
    stage1     112x112          16       1     56x56         16       1
    stage2       56x56          24       2     28x28         24       2
    stage3       28x28          40       3     14x14         40       3
    stage4       14x14          80       4     14x14         48       2
    stage5       14x14         112       2       7x7         96       3
    stage6         7x7         160       3
    last           7x7         960               7x7        576           1x1 convolution
    hidden                    1280                         1024           pooling, dense
    head                                                                  dense

    10^6 multiply-adds         219                           56
    10^6 parameters            5.4                          2.5
    top-1, %                  75.2                         67.4

Differs from the paper: table 2 ticks squeeze-excite at the last convolution, too; neither
torchvision, timm nor Keras have it there. Padding is symmetric as in torchvision; the
authors' (and Keras's) is "SAME".
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

from flax import linen as nn
import jax

from zoo.layers import (
    Classifier,
    Conv,
    Endpoints,
    InvertedResidual,
    Padding,
    SqueezeExcite,
    make_divisible,
    rematerialise,
)

RE, HS = nn.relu, nn.hard_swish


class Row(NamedTuple):
    """A block, as tables 1 and 2 write it."""

    kernel_size: int
    expanded: int
    features: int
    squeeze_excite: bool
    activation: Callable[[jax.Array], jax.Array]
    strides: int


Stages = tuple[tuple[Row, ...], ...]

LARGE: Stages = (
    (Row(3, 16, 16, False, RE, 1),),
    (Row(3, 64, 24, False, RE, 2), Row(3, 72, 24, False, RE, 1)),
    (
        Row(5, 72, 40, True, RE, 2),
        Row(5, 120, 40, True, RE, 1),
        Row(5, 120, 40, True, RE, 1),
    ),
    (
        Row(3, 240, 80, False, HS, 2),
        Row(3, 200, 80, False, HS, 1),
        Row(3, 184, 80, False, HS, 1),
        Row(3, 184, 80, False, HS, 1),
    ),
    (Row(3, 480, 112, True, HS, 1), Row(3, 672, 112, True, HS, 1)),
    (
        Row(5, 672, 160, True, HS, 2),
        Row(5, 960, 160, True, HS, 1),
        Row(5, 960, 160, True, HS, 1),
    ),
)

SMALL: Stages = (
    (Row(3, 16, 16, True, RE, 2),),
    (Row(3, 72, 24, False, RE, 2), Row(3, 88, 24, False, RE, 1)),
    (
        Row(5, 96, 40, True, HS, 2),
        Row(5, 240, 40, True, HS, 1),
        Row(5, 240, 40, True, HS, 1),
    ),
    (Row(5, 120, 48, True, HS, 1), Row(5, 144, 48, True, HS, 1)),
    (
        Row(5, 288, 96, True, HS, 2),
        Row(5, 576, 96, True, HS, 1),
        Row(5, 576, 96, True, HS, 1),
    ),
)


class MobileNetV3(Classifier):
    """Inverted residuals with squeeze-excite, found by search, and a cheap head.

    Attributes:
      stages: rows of table 1 or 2, grouped by features.
      hidden: features of the dense layer between pooling and head, `pre_logits`.
      width_mult: times the features of every layer, those inside a block in proportion to
        its actual input; the hidden layer only grows.
      padding: of convolutions; "symmetric", or "SAME" as TensorFlow pads.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      dropout_rate: in front of the head.
      drop_path_rate: of the last block; grows linearly from 0 at the first.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    stages: Stages = LARGE
    hidden: int = 1280
    width_mult: float = 1.0
    padding: Padding = "symmetric"
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.0
    remat: tuple[int, ...] = ()

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, padding=self.padding, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        out, stride, inputs = {}, 2, 16  # inputs: of the next block at width 1
        x = conv(make_divisible(inputs * self.width_mult), 3, 2, name="stem_conv")(images)
        x = out["stride2"] = nn.hard_swish(norm(name="stem_bn")(x))  # [B, H/2, W/2, 16]
        drops = self.stochastic_depth(self.drop_path_rate, sum(map(len, self.stages)), train)
        for stage, rows in enumerate(self.stages, 1):
            block = rematerialise(InvertedResidual, stage in self.remat)
            for i, row in enumerate(rows, 1):
                expanded = make_divisible(x.shape[-1] * row.expanded / inputs)
                gate = functools.partial(
                    SqueezeExcite, make_divisible(expanded / 4), conv, gate=nn.hard_sigmoid
                )
                x = block(
                    make_divisible(row.features * self.width_mult),
                    expanded,
                    row.kernel_size,
                    row.strides,
                    conv,
                    norm,
                    row.activation,
                    gate if row.squeeze_excite else None,
                    next(drops),
                    name=f"stage{stage}_block{i}",
                )(x)
                stride, inputs = stride * row.strides, row.features
            out[f"stride{stride}"] = x  # [B, H/stride, W/stride, features]
        x = conv(6 * x.shape[-1], 1, name="last_conv")(x)
        x = out[f"stride{stride}"] = nn.hard_swish(norm(name="last_bn")(x))
        return out | self.hide_and_classify(x.mean((1, 2)), train)

    def hide_and_classify(self, x: jax.Array, train: bool) -> Endpoints:
        """Returns `pre_logits`, behind the hidden layer, and `logits` if there is a head."""
        hidden = make_divisible(self.hidden * max(1.0, self.width_mult))
        x = nn.Dense(hidden, name="hidden", **self.kinds)(x)
        x = nn.hard_swish(x)
        out = {"pre_logits": x}
        if self.num_classes is not None:
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
            out["logits"] = self.classify(x)
        return out


VARIANTS = {
    "mobilenet_v3_large": {"stages": LARGE, "hidden": 1280},
    "mobilenet_v3_small": {"stages": SMALL, "hidden": 1024},
}
