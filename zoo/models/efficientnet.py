"""EfficientNet B0 to B7, and EfficientNet-Lite. Tan and Le 2019.

"EfficientNet: rethinking model scaling for convolutional neural networks",
https://arxiv.org/abs/1905.11946

Table 1, B0, with the paper's stages 2 to 8 counted from 1 as all published weights do.
MBConv6 is the inverted residual that expands 6 times, with squeeze-excite.

    stage    operator        output   features  layers
    stem     3x3, stride 2  112x112         32
    stage1   MBConv1, 3x3   112x112         16       1
    stage2   MBConv6, 3x3     56x56         24       2
    stage3   MBConv6, 5x5     28x28         40       2
    stage4   MBConv6, 3x3     14x14         80       3
    stage5   MBConv6, 5x5     14x14        112       3
    stage6   MBConv6, 5x5       7x7        192       4
    stage7   MBConv6, 3x3       7x7        320       1
    head     1x1, pooling, dense          1280

and what B1 to B7 multiply it by (section 3.3, and the authors' code for the numbers), beside
equation 3, `compound_scaling`, at the phi that comes nearest. The paper fits 1.2, 1.1 and
1.15 once, on B0; the released networks are near it, not on it, and the larger ones are
shallower than it says.

          published                          equation 3              10^6        10^9
          width  depth  resolution  dropout  phi  width depth  res.  parameters  mult-adds
    B0      1.0    1.0         224      0.2    0   1.00  1.00   224         5.3       0.39
    B1      1.0    1.1         240      0.2  0.5   1.05  1.10   240         7.8       0.70
    B2      1.1    1.2         260      0.3    1   1.10  1.20   258         9.2       1.0
    B3      1.2    1.4         300      0.3    2   1.21  1.44   296        12         1.8
    B4      1.4    1.8         380      0.4  3.5   1.40  1.89   365        19         4.2
    B5      1.6    2.2         456      0.4    5   1.61  2.49   451        30         9.9
    B6      1.8    2.6         528      0.5    6   1.77  2.99   518        43        19
    B7      2.0    3.1         600      0.5    7   1.95  3.58   596        66        37

Lite is the authors' network for phones (no paper;
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite): ReLU6
instead of SiLU, no squeeze-excite, and stem, head and the layers of stages 1 and 7 stay as
they are in all sizes.

Differs from the paper: its multiply-adds of B4, B5 and B7 are 4.4, 3.6 and 2.0 % below what
these networks take at these sizes, 4.39, 10.27 and 37.75, which torchvision counts as well.
B0 to B7 pad symmetrically and B0 to B4 have epsilon 1e-5, as torchvision's; the authors'
own, with `padding="SAME"` and `norm_epsilon=1e-3`, are timm's `tf_efficientnet_*` and
Keras's. (Lite is as its authors have it.) BatchNorm averages with 0.99, torchvision's B0 to
B4 with 0.9. The rate of stochastic depth reaches `drop_path_rate` at the last block; in the
authors' code it stops one step short. Convolutions start by He et al. 2015, depthwise ones
per group.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax

from zoo.layers import (
    Classifier,
    Conv,
    Endpoints,
    InvertedResidual,
    Layer,
    Padding,
    SqueezeExcite,
    make_divisible,
    rematerialise,
)


class Scaling(NamedTuple):
    """What to multiply B0 by, and the image size to go with it."""

    depth_mult: float
    width_mult: float
    image_size: int


def compound_scaling(
    phi: float, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15
) -> Scaling:
    """Returns depth, width and resolution for 2^phi times the work of B0.

    Equation 3: alpha^phi, beta^phi and 224 gamma^phi, where alpha beta^2 gamma^2 is about 2.
    The published B1 to B7 are near these, see the table on top.

    Args:
      phi: how much larger, 0 for B0.
      alpha: the base of depth.
      beta: the base of width.
      gamma: the base of resolution.

    Example:
      >>> compound_scaling(0)
      Scaling(depth_mult=1.0, width_mult=1.0, image_size=224)
      >>> compound_scaling(1)
      Scaling(depth_mult=1.2, width_mult=1.1, image_size=258)
      >>> depth, width, size = compound_scaling(1)
      >>> network = EfficientNet(depth_mult=depth, width_mult=width)  # for size x size images
    """
    return Scaling(float(alpha**phi), float(beta**phi), round(224 * gamma**phi))


class Stage(NamedTuple):
    """A row of the table: the first of its blocks has the stride.

    Attributes:
      block: `InvertedResidual`, or what takes the same.
      expansion: channels inside a block per channel that comes in.
      kernel_size: of the depthwise convolution.
      strides: of the first block.
      features: that come out.
      layers: how many blocks.
      se_ratio: squeeze-excite's channels per channel that comes in; 0 for none.
    """

    block: Layer
    expansion: int
    kernel_size: int
    strides: int
    features: int
    layers: int
    se_ratio: float


STAGES = (
    Stage(InvertedResidual, 1, 3, 1, 16, 1, 0.25),
    Stage(InvertedResidual, 6, 3, 2, 24, 2, 0.25),
    Stage(InvertedResidual, 6, 5, 2, 40, 2, 0.25),
    Stage(InvertedResidual, 6, 3, 2, 80, 3, 0.25),
    Stage(InvertedResidual, 6, 5, 1, 112, 3, 0.25),
    Stage(InvertedResidual, 6, 5, 2, 192, 4, 0.25),
    Stage(InvertedResidual, 6, 3, 1, 320, 1, 0.25),
)


class EfficientNet(Classifier):
    """Stages of inverted residuals, scaled in width and depth.

    Attributes:
      stages: the table of the unscaled network.
      stem_features: of the first convolution, unscaled.
      head_features: of the 1x1 convolution in front of pooling, unscaled.
      width_mult: of all features, which are rounded to multiples of 8.
      depth_mult: of all stages' layers, rounded up.
      fixed_ends: do not scale stem, head and the layers of the first and last stage (Lite).
      activation: everywhere, inside squeeze-excite too.
      padding: "symmetric", or "SAME" as TensorFlow has it.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      dropout_rate: in front of the head.
      drop_path_rate: of the last block; grows linearly from 0 at the first (Huang et al.
        2016, https://arxiv.org/abs/1603.09382).
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    stages: tuple[Stage, ...] = STAGES
    stem_features: int = 32
    head_features: int = 1280
    width_mult: float = 1.0
    depth_mult: float = 1.0
    fixed_ends: bool = False
    activation: Callable[[jax.Array], jax.Array] = nn.silu
    padding: Padding = "symmetric"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.99
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.2
    remat: tuple[int, ...] = ()

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, padding=self.padding, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        ends = 1.0 if self.fixed_ends else self.width_mult
        stages = self.scaled_stages()
        drops = self.stochastic_depth(self.drop_path_rate, sum(s.layers for s in stages), train)
        out, stride = {}, 2
        x = conv(make_divisible(ends * self.stem_features), 3, 2, name="stem_conv")(images)
        x = self.activation(norm(name="stem_bn")(x))  # [B, H/2, W/2, stem_features]
        for number, stage in enumerate(stages, 1):
            block = rematerialise(stage.block, number in self.remat)
            for i in range(stage.layers):
                strides = stage.strides if i == 0 else 1
                channels = x.shape[-1]
                layers = {"conv": conv, "norm": norm, "activation": self.activation}
                if stage.se_ratio:
                    layers["squeeze_excite"] = functools.partial(
                        SqueezeExcite, int(channels * stage.se_ratio), conv, self.activation
                    )
                x = block(
                    stage.features,
                    channels * stage.expansion,
                    stage.kernel_size,
                    strides,
                    **layers,
                    drop=next(drops),
                    name=f"stage{number}_block{i + 1}",
                )(x)
                stride *= strides
            out[f"stride{stride}"] = x  # [B, H/stride, W/stride, features]
        x = conv(make_divisible(ends * self.head_features), 1, name="head_conv")(x)
        x = self.activation(norm(name="head_bn")(x))
        out[f"stride{stride}"] = x  # [B, H/32, W/32, head_features]
        return out | self.pool_and_classify(x, self.dropout_rate, train)

    def scaled_stages(self) -> list[Stage]:
        """Returns the table with `width_mult` and `depth_mult` applied."""
        scaled = []
        for i, stage in enumerate(self.stages):
            fixed = self.fixed_ends and i in (0, len(self.stages) - 1)
            layers = stage.layers if fixed else math.ceil(self.depth_mult * stage.layers)
            features = make_divisible(self.width_mult * stage.features)
            scaled.append(stage._replace(features=features, layers=layers))
        return scaled


TENSORFLOW = {"padding": "SAME", "norm_epsilon": 1e-3}
_LITE = {
    "stages": tuple(stage._replace(se_ratio=0.0) for stage in STAGES),
    "activation": nn.relu6,
    "fixed_ends": True,
    **TENSORFLOW,
}

_COLUMNS = ("width_mult", "depth_mult", "dropout_rate", "norm_epsilon")
_SIZES = {  # the image size, and those
    "efficientnet_b0": (224, 1.0, 1.0, 0.2, 1e-5),
    "efficientnet_b1": (240, 1.0, 1.1, 0.2, 1e-5),
    "efficientnet_b2": (260, 1.1, 1.2, 0.3, 1e-5),
    "efficientnet_b3": (300, 1.2, 1.4, 0.3, 1e-5),
    "efficientnet_b4": (380, 1.4, 1.8, 0.4, 1e-5),
    "efficientnet_b5": (456, 1.6, 2.2, 0.4, 1e-3),
    "efficientnet_b6": (528, 1.8, 2.6, 0.5, 1e-3),
    "efficientnet_b7": (600, 2.0, 3.1, 0.5, 1e-3),
}
_LITE_SIZES = {
    "efficientnet_lite0": (224, 1.0, 1.0, 0.2, 1e-3),
    "efficientnet_lite1": (240, 1.0, 1.1, 0.2, 1e-3),
    "efficientnet_lite2": (260, 1.1, 1.2, 0.3, 1e-3),
    "efficientnet_lite3": (280, 1.2, 1.4, 0.3, 1e-3),
    "efficientnet_lite4": (300, 1.4, 1.8, 0.3, 1e-3),
}

VARIANTS: dict[str, dict[str, Any]] = {
    name: dict(zip(_COLUMNS, row, strict=True)) for name, (_, *row) in _SIZES.items()
}
VARIANTS_LITE: dict[str, dict[str, Any]] = {
    name: {**_LITE, **dict(zip(_COLUMNS, row, strict=True))}
    for name, (_, *row) in _LITE_SIZES.items()
}
IMAGE_SIZES = {name: row[0] for name, row in (_SIZES | _LITE_SIZES).items()}
