"""EfficientNetV2. Tan and Le 2021.

"EfficientNetV2: smaller models and faster training", https://arxiv.org/abs/2104.00298

Table 4, V2-S, and its larger kin M and L from the authors' code. In the early stages one
3x3 convolution replaces the 1x1 and the depthwise one of MBConv ("Fused"), which is faster
though it has more parameters; only MBConv has squeeze-excite, of 0.25.

                              S                 M                 L
    stage    operator         features  layers  features  layers  features  layers
    stem     3x3, stride 2          24                24                32
    stage1   Fused-MBConv1          24       2        24       3        32       4
    stage2   Fused-MBConv4, /2      48       4        48       5        64       7
    stage3   Fused-MBConv4, /2      64       4        80       5        96       7
    stage4   MBConv4, /2           128       6       160       7       192      10
    stage5   MBConv6               160       9       176      14       224      19
    stage6   MBConv6, /2           256      15       304      18       384      25
    stage7   MBConv6                                 512       5       640       7
    head     1x1, dense           1280              1280              1280
    image size, training           300               384               384
    image size, evaluation         384               480               480
    10^6 parameters                 22                54               120
    10^9 multiply-adds             8.8                24                53

All kernels are 3x3. `zoo.registry` has the evaluation sizes.

Differs from the paper: padding is symmetric, as torchvision's; the authors' own, with
`padding="SAME"`, is timm's `tf_efficientnetv2_*`. Progressive learning, which raises image
size and regularisation while it trains, belongs to a recipe and not to the network.
"""

from collections.abc import Callable
import functools

from flax import linen as nn
import jax

from zoo.layers import InvertedResidual, Layer
from zoo.models.efficientnet import Stage


class FusedInvertedResidual(nn.Module):
    """Expand by a k x k convolution, project by 1x1 without activation (figure 2, right).

    Without expansion it is one k x k convolution, and its activation. Added to its input
    where the shapes allow.

    Attributes:
      features: channels out.
      expanded: channels in between; no expansion if the input has as many.
      kernel_size: of the first convolution.
      strides: of the first convolution.
      conv: the bound `Conv`.
      norm: the bound BatchNorm.
      activation: after the first convolution.
      drop: the bound stochastic depth of the residual.
    """

    features: int
    expanded: int
    kernel_size: int
    strides: int
    conv: Layer
    norm: Layer
    activation: Callable[[jax.Array], jax.Array]
    drop: Layer = functools.partial(nn.Dropout, 0.0, deterministic=True)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        if self.expanded == x.shape[-1]:
            x = self.conv(self.features, self.kernel_size, self.strides, name="conv")(x)
            x = self.activation(self.norm(name="bn")(x))
        else:
            x = self.conv(self.expanded, self.kernel_size, self.strides, name="expand_conv")(x)
            x = self.activation(self.norm(name="expand_bn")(x))
            x = self.conv(self.features, 1, name="project_conv")(x)
            x = self.norm(name="project_bn")(x)
        same = self.strides == 1 and x.shape == shortcut.shape
        return self.drop(name="drop")(x) + shortcut if same else x


def _stages(*rows: tuple[int, int]) -> tuple[Stage, ...]:
    """Returns the table, of (features, layers) per stage."""
    fused, mbconv = (FusedInvertedResidual, 0.0), (InvertedResidual, 0.25)
    blocks = (fused, fused, fused, mbconv, mbconv, mbconv, mbconv)
    expansions = (1, 4, 4, 4, 6, 6, 6)
    strides = (1, 2, 2, 2, 1, 2, 1)
    return tuple(
        Stage(block, expansion, 3, stride, features, layers, se_ratio)
        for (block, se_ratio), expansion, stride, (features, layers) in zip(
            blocks, expansions, strides, rows, strict=False
        )
    )


_V2 = {"norm_epsilon": 1e-3, "norm_momentum": 0.9}

VARIANTS = {
    "efficientnet_v2_s": {
        "stages": _stages((24, 2), (48, 4), (64, 4), (128, 6), (160, 9), (256, 15)),
        "stem_features": 24,
        "dropout_rate": 0.2,
        **_V2,
    },
    "efficientnet_v2_m": {
        "stages": _stages((24, 3), (48, 5), (80, 5), (160, 7), (176, 14), (304, 18), (512, 5)),
        "stem_features": 24,
        "dropout_rate": 0.3,
        **_V2,
    },
    "efficientnet_v2_l": {
        "stages": _stages((32, 4), (64, 7), (96, 7), (192, 10), (224, 19), (384, 25), (640, 7)),
        "stem_features": 32,
        "dropout_rate": 0.4,
        **_V2,
    },
}
IMAGE_SIZES = {"efficientnet_v2_s": 384, "efficientnet_v2_m": 480, "efficientnet_v2_l": 480}
