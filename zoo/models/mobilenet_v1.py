"""MobileNet. Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto and Adam 2017.

"MobileNets: efficient convolutional neural networks for mobile vision applications",
https://arxiv.org/abs/1704.04861

Table 1. A block is a depthwise 3x3 and a 1x1, each with BatchNorm and an activation.

    stage     output    features   blocks   stride of its first block
    stem     112x112          32            3x3 convolution, stride 2
    stage1   112x112          64        1   1
    stage2     56x56         128        2   2
    stage3     28x28         256        2   2
    stage4     14x14         512        6   2
    stage5       7x7        1024        2   2
    head                                    global average pooling, dense

and its table 6, all features times a width multiplier:

    width                  1.0   0.75   0.5   0.25
    10^6 multiply-adds     569    325   149     41
    10^6 parameters        4.2    2.6   1.3    0.5
    top-1, %              70.6   68.4  63.7   50.6

Differs from the paper: the activation is ReLU6 where the paper says ReLU, as in the authors'
code and in everyone's weights. Table 1 gives the last depthwise convolution stride 2 and
leaves its 7x7 map as it is: the stride is 1. Padding (TensorFlow's), BatchNorm's epsilon and
the little dropout are those of the authors' code and of Keras. Widths are rounded to a
multiple of 8, which those of table 6 are.
"""

import functools

from flax import linen as nn
import jax

from zoo.layers import Classifier, Conv, Endpoints, Layer, Padding, make_divisible, rematerialise


class Block(nn.Module):
    """Depthwise 3x3 and 1x1, both with BatchNorm and ReLU6 (figure 3, right)."""

    features: int
    strides: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x.shape[-1], 3, self.strides, groups=x.shape[-1], name="depthwise_conv")(x)
        x = nn.relu6(self.norm(name="depthwise_bn")(x))
        x = self.conv(self.features, 1, name="pointwise_conv")(x)
        return nn.relu6(self.norm(name="pointwise_bn")(x))


class MobileNetV1(Classifier):
    """A chain of depthwise separable convolutions.

    Attributes:
      width_mult: times the features of every layer but the head.
      stage_sizes: blocks per stage; each stage doubles the features, each but the first
        halves the map.
      padding: of convolutions; "SAME" as TensorFlow pads, or "symmetric".
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      dropout_rate: in front of the head.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    width_mult: float = 1.0
    stage_sizes: tuple[int, ...] = (1, 2, 2, 6, 2)
    padding: Padding = "SAME"
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    dropout_rate: float = 1e-3
    remat: tuple[int, ...] = ()

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, padding=self.padding, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        out = {}
        x = conv(make_divisible(32 * self.width_mult), 3, 2, name="stem_conv")(images)
        x = nn.relu6(norm(name="stem_bn")(x))  # [B, H/2, W/2, 32]
        for stage, blocks in enumerate(self.stage_sizes, 1):
            block = rematerialise(Block, stage in self.remat)
            features = make_divisible(2 ** (stage + 5) * self.width_mult)
            for i in range(1, blocks + 1):
                strides = 2 if stage > 1 and i == 1 else 1
                x = block(features, strides, conv, norm, name=f"stage{stage}_block{i}")(x)
            out[f"stride{2**stage}"] = x  # [B, H/2^stage, W/2^stage, features]
        return out | self.pool_and_classify(x, self.dropout_rate, train)


VARIANTS = {
    "mobilenet_v1": {"width_mult": 1.0},
    "mobilenet_v1_075": {"width_mult": 0.75},
    "mobilenet_v1_050": {"width_mult": 0.5},
    "mobilenet_v1_025": {"width_mult": 0.25},
}
