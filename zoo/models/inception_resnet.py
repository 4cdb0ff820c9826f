"""Inception-ResNet v2. Szegedy, Ioffe, Vanhoucke and Alemi 2016.

"Inception-v4, Inception-ResNet and the impact of residual connections on learning",
https://arxiv.org/abs/1602.07261

Figure 15 with the features that the figures give this version, and what was released:

    paper                                 output        here                    output
    stem             figure 3             35x35x384     stem of Inception v3    35x35x192
                                                        stage1_block1           35x35x320
    5 x A            figure 16            35x35x384     stage1_block2 to 11     35x35x320
    reduction A      figure 7             17x17x1152    stage2_block1           17x17x1088
    10 x B           figure 17            17x17x1154    stage2_block2 to 21     17x17x1088
    reduction B      figure 18            8x8x2146      stage3_block1           8x8x2080
    5 x C            figure 19            8x8x2048      stage3_block2 to 11     8x8x2080
                                                        final                   8x8x1536
    head             global average pooling, dropout of 0.2, dense

and table 1, its features k, l, m and n of reduction A: 256, 256, 384, 384.

Differs from the paper: the network is the one that was released, which every framework has,
not the one drawn: another stem, a plain Inception block (stage1_block1), twice as many
residual blocks, as many features out of a block as into it, and a 1x1 convolution at the
end. Residuals are scaled by 0.17, 0.1 and 0.2, where section 3.3 advises 0.1 to 0.3; the
last one is not, and has no ReLU.
"""

from collections.abc import Callable
import functools

from flax import linen as nn
import jax

from zoo.layers import Classifier, Conv, Endpoints, Layer, max_pool, rematerialise
from zoo.models.googlenet import Step, Unit, branch, concatenate
from zoo.models.inception import InceptionA, ReductionA, stem
from zoo.models.inception_v4 import COLUMN, ROW, mean_pool


class ReductionB(nn.Module):
    """Halves the map by two 3x3, by twice 3x3, and by pooling (figure 18)."""

    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return concatenate(
            branch(self.unit, x, 1, (256, 1), (384, 3, 2, "VALID")),
            branch(self.unit, x, 2, (256, 1), (288, 3, 2, "VALID")),
            branch(self.unit, x, 3, (256, 1), (288, 3), (320, 3, 2, "VALID")),
            max_pool(x, 3, 2),
        )


class Residual(nn.Module):
    """Adds its branches, projected linearly to the channels of the input and scaled.

    Attributes:
      branches: the convolutions of each.
      scale: of the residual.
      activation: after the sum.
      unit: the bound `Unit`.
      conv: the bound `Conv`, of the projection.
      drop: the bound stochastic depth of the residual.
    """

    branches: tuple[tuple[Step, ...], ...]
    scale: float
    activation: Callable[[jax.Array], jax.Array]
    unit: Layer
    conv: Layer
    drop: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = concatenate(*(branch(self.unit, x, i, *b) for i, b in enumerate(self.branches, 1)))
        y = self.conv(x.shape[-1], 1, use_bias=True, name="project")(y)
        return self.activation(x + self.scale * self.drop(name="drop")(y))


# Convolutions of each branch of the residual blocks: figures 16, 17 and 19.
RESIDUAL_A = (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))
RESIDUAL_B = (((192, 1),), ((128, 1), (160, ROW), (192, COLUMN)))
RESIDUAL_C = (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1))))


class InceptionResNetV2(Classifier):
    """Inception-ResNet v2.

    Attributes:
      residual_scales: of the residuals of each stage; the very last one is not scaled.
      dropout_rate: in front of the head.
      drop_path_rate: of the last block; grows linearly from 0 at the first.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      norm_scale: whether BatchNorm scales; Keras's does not.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    residual_scales: tuple[float, float, float] = (0.17, 0.1, 0.2)
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.0
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.9
    norm_scale: bool = True
    remat: tuple[int, ...] = ()

    smallest = 75

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        norm = functools.partial(norm, use_scale=self.norm_scale)
        unit = functools.partial(Unit, conv=conv, norm=norm)
        x, out = stem(unit, images)
        first = (
            functools.partial(InceptionA, 96, 64, pool=mean_pool),
            functools.partial(ReductionA, 256, 256, 384, 384),
            ReductionB,
        )
        residuals = ((RESIDUAL_A, 10), (RESIDUAL_B, 20), (RESIDUAL_C, 10))
        drops = self.stochastic_depth(self.drop_path_rate, 10 + 20 + 10, train)
        for stage, (branches, blocks) in enumerate(residuals, 1):
            entry = rematerialise(first[stage - 1], stage in self.remat)
            x = entry(unit=unit, name=f"stage{stage}_block1")(x)
            residual = rematerialise(Residual, stage in self.remat)
            for i in range(blocks):
                last = stage == 3 and i == blocks - 1
                scale = 1.0 if last else self.residual_scales[stage - 1]
                layers = {"unit": unit, "conv": conv, "drop": next(drops)}
                # The last residual ends in neither scale nor ReLU.
                activation = (lambda x: x) if last else nn.relu
                name = f"stage{stage}_block{i + 2}"
                x = residual(branches, scale, activation, **layers, name=name)(x)
            # [B, H/8, W/8, 320], [B, H/16, W/16, 1088]
            out[f"stride{2 ** (stage + 2)}"] = x
        x = out["stride32"] = unit(1536, 1, name="final")(x)  # [B, H/32, W/32, 1536]
        return out | self.pool_and_classify(x, self.dropout_rate, train)


VARIANTS = {"inception_resnet_v2": {}}
