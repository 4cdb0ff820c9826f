"""Inception v4. Szegedy, Ioffe, Vanhoucke and Alemi 2016.

"Inception-v4, Inception-ResNet and the impact of residual connections on learning",
https://arxiv.org/abs/1602.07261

Figure 9, with the features that figures 3 to 8 give the blocks:

    part                                  output
    stem             figure 3             35x35x384
    4 x A            figure 4             35x35x384    stage1_block1 to 4
    reduction A      figure 7             17x17x1024   stage2_block1
    7 x B            figure 5             17x17x1024   stage2_block2 to 8
    reduction B      figure 8             8x8x1536     stage3_block1
    3 x C            figure 6             8x8x1536     stage3_block2 to 4
    head             global average pooling, dropout of 0.2, dense

and table 1, its features k, l, m and n of reduction A: 192, 224, 256, 384.

Differs from the paper: where figures 3 and 6 have a pair such as 1x7 and 7x1, the order is
that of the released network.
"""

import functools

from flax import linen as nn
import jax

from zoo.layers import Classifier, Conv, Endpoints, Layer, avg_pool, max_pool, rematerialise
from zoo.models.googlenet import Unit, branch, concatenate
from zoo.models.inception import ReductionA, fork

ROW, COLUMN = (1, 7), (7, 1)
# Padding does not count.
mean_pool = functools.partial(avg_pool, window=3, strides=1, padding=1, count_include_pad=False)


class StemBranches(nn.Module):
    """3x3, and factored 7x7 then 3x3, without padding: the middle of figure 3."""

    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        factored = ((64, 1), (64, ROW), (64, COLUMN))
        return concatenate(
            branch(self.unit, x, 1, (64, 1), (96, 3, 1, "VALID")),
            branch(self.unit, x, 2, *factored, (96, 3, 1, "VALID")),
        )


class InceptionA(nn.Module):
    """1x1, 3x3, twice 3x3, and pooling (figure 4)."""

    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return concatenate(
            branch(self.unit, x, 1, (96, 1)),
            branch(self.unit, x, 2, (64, 1), (96, 3)),
            branch(self.unit, x, 3, (64, 1), (96, 3), (96, 3)),
            branch(self.unit, mean_pool(x), 4, (96, 1)),
        )


class InceptionB(nn.Module):
    """1x1, factored 7x7, twice factored 7x7, and pooling (figure 5)."""

    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        twice = ((192, 1), (192, COLUMN), (224, ROW), (224, COLUMN), (256, ROW))
        return concatenate(
            branch(self.unit, x, 1, (384, 1)),
            branch(self.unit, x, 2, (192, 1), (224, ROW), (256, COLUMN)),
            branch(self.unit, x, 3, *twice),
            branch(self.unit, mean_pool(x), 4, (128, 1)),
        )


class ReductionB(nn.Module):
    """Halves the map by a 3x3, by a factored 7x7 and a 3x3, and by pooling (figure 8)."""

    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        factored = ((256, 1), (256, ROW), (320, COLUMN))
        return concatenate(
            branch(self.unit, x, 1, (192, 1), (192, 3, 2, "VALID")),
            branch(self.unit, x, 2, *factored, (320, 3, 2, "VALID")),
            max_pool(x, 3, 2),
        )


class InceptionC(nn.Module):
    """1x1, a forked 3x3, a factored and a forked 3x3, and pooling (figure 6)."""

    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        factored = ((384, 1), (448, (3, 1)), (512, (1, 3)))
        return concatenate(
            branch(self.unit, x, 1, (256, 1)),
            fork(self.unit, branch(self.unit, x, 2, (384, 1)), 256, "branch2_2"),
            fork(self.unit, branch(self.unit, x, 3, *factored), 256, "branch3_4"),
            branch(self.unit, mean_pool(x), 4, (256, 1)),
        )


class InceptionV4(Classifier):
    """Inception v4.

    Attributes:
      dropout_rate: in front of the head.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    dropout_rate: float = 0.2
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.9
    remat: tuple[int, ...] = ()

    smallest = 75

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        unit, out = functools.partial(Unit, conv=conv, norm=norm), {}
        x = unit(32, 3, 2, "VALID", name="stem1")(images)
        x = unit(32, 3, 1, "VALID", name="stem2")(x)
        x = out["stride2"] = unit(64, 3, name="stem3")(x)  # [B, H/2, W/2, 64]
        x = concatenate(max_pool(x, 3, 2), unit(96, 3, 2, "VALID", name="stem4")(x))
        x = out["stride4"] = StemBranches(unit, name="stem5")(x)  # [B, H/4, W/4, 192]
        x = concatenate(unit(192, 3, 2, "VALID", name="stem6")(x), max_pool(x, 3, 2))
        stages = (
            [InceptionA] * 4,
            [functools.partial(ReductionA, 192, 224, 256, 384), *[InceptionB] * 7],
            [ReductionB, *[InceptionC] * 3],
        )
        for stage, blocks in enumerate(stages, 1):
            for i, block in enumerate(blocks, 1):
                block = rematerialise(block, stage in self.remat)
                x = block(unit=unit, name=f"stage{stage}_block{i}")(x)
            # [B, H/8, W/8, 384], [B, H/16, W/16, 1024], [B, H/32, W/32, 1536]
            out[f"stride{2 ** (stage + 2)}"] = x
        return out | self.pool_and_classify(x, self.dropout_rate, train)


VARIANTS = {"inception_v4": {}}
