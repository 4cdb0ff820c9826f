"""MobileNetV2. Sandler, Howard, Zhu, Zhmoginov and Chen 2018.

"MobileNetV2: inverted residuals and linear bottlenecks", https://arxiv.org/abs/1801.04381

Table 2: t expands the features inside a block, c are those it gives out, n blocks, the
first of them with stride s.

    stage       output       t      c   n   s
    stem       112x112             32       2   3x3 convolution
    stage1     112x112       1     16   1   1
    stage2       56x56       6     24   2   2
    stage3       28x28       6     32   3   2
    stage4       14x14       6     64   4   2
    stage5       14x14       6     96   3   1
    stage6         7x7       6    160   3   2
    stage7         7x7       6    320   1   1
    last           7x7           1280       1   1x1 convolution
    head                                        global average pooling, dense

At width 1.0: 300 10^6 multiply-adds, 3.4 10^6 parameters, 72.0 % top-1; at 1.4: 585, 6.9
and 74.7 (table 4).

Differs from the paper: widths are rounded to a multiple of 8, as the authors' code does, and
so there are 3,504,872 parameters, and 6,108,776 at 1.4, as in timm and Keras.
Padding is symmetric and BatchNorm's epsilon 1e-5, as torchvision and timm trained it; the
authors (and Keras) have padding "SAME" and epsilon 1e-3. There is dropout in front of the
head.
"""

import functools

from flax import linen as nn
import jax

from zoo.layers import (
    Classifier,
    Conv,
    Endpoints,
    InvertedResidual,
    Padding,
    make_divisible,
    rematerialise,
)

TABLE = (
    # t, c, n, s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(Classifier):
    """Inverted residuals with linear bottlenecks.

    Attributes:
      width_mult: times the features of every layer; those of the last convolution only
        grow (section 5, "trade-off hyper parameters").
      stages: rows of table 2.
      padding: of convolutions; "symmetric", or "SAME" as TensorFlow pads.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      dropout_rate: in front of the head.
      drop_path_rate: of the last block; grows linearly from 0 at the first.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    width_mult: float = 1.0
    stages: tuple[tuple[int, int, int, int], ...] = TABLE
    padding: Padding = "symmetric"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.0
    remat: tuple[int, ...] = ()

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, padding=self.padding, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        layers = {"conv": conv, "norm": norm, "activation": nn.relu6}
        out, stride = {}, 2
        x = conv(make_divisible(32 * self.width_mult), 3, 2, name="stem_conv")(images)
        x = nn.relu6(norm(name="stem_bn")(x))  # [B, H/2, W/2, 32]
        blocks = sum(n for _, _, n, _ in self.stages)
        drops = self.stochastic_depth(self.drop_path_rate, blocks, train)
        for stage, (t, c, n, s) in enumerate(self.stages, 1):
            block = rematerialise(InvertedResidual, stage in self.remat)
            features = make_divisible(c * self.width_mult)
            stride *= s
            for i in range(1, n + 1):
                x = block(
                    features,
                    t * x.shape[-1],
                    3,
                    s if i == 1 else 1,
                    drop=next(drops),
                    name=f"stage{stage}_block{i}",
                    **layers,
                )(x)
            out[f"stride{stride}"] = x  # [B, H/stride, W/stride, features]
        x = conv(make_divisible(1280 * max(1.0, self.width_mult)), 1, name="last_conv")(x)
        x = out[f"stride{stride}"] = nn.relu6(norm(name="last_bn")(x))  # [B, H/32, W/32, 1280]
        return out | self.pool_and_classify(x, self.dropout_rate, train)


VARIANTS = {
    "mobilenet_v2": {"width_mult": 1.0},
    "mobilenet_v2_035": {"width_mult": 0.35},
    "mobilenet_v2_050": {"width_mult": 0.5},
    "mobilenet_v2_075": {"width_mult": 0.75},
    "mobilenet_v2_130": {"width_mult": 1.3},
    "mobilenet_v2_140": {"width_mult": 1.4},
}
