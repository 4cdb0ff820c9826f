"""Inception v3. Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2015.

"Rethinking the Inception architecture for computer vision",
https://arxiv.org/abs/1512.00567

Table 1, and what the released network (here, and in every framework) has in its place.

    paper                          its input        here
    conv 3x3, stride 2             299x299x3        stem1
    conv 3x3                       149x149x32       stem2
    conv 3x3, padded               147x147x32       stem3
    pool 3x3, stride 2             147x147x64       max pooling
    conv 3x3                        73x73x64        stem4, 1x1 with 80 features
    conv 3x3, stride 2              71x71x80        stem5, 3x3 with 192; max pooling
    conv 3x3                        35x35x192       -
    3 x Inception, figure 5         35x35x288       stage1_block1 to 3 (256, 288, 288)
    5 x Inception, figure 6         17x17x768       stage2_block1 (halves), 2 to 5
    2 x Inception, figure 7         8x8x1280        stage3_block1 (halves), 2 and 3
    pool 8x8, linear                8x8x2048        global average pooling, dropout, head

Differs from the paper: rows 5 to 7 as above; blocks of figure 5 have a 5x5 convolution in
one branch and two 3x3 in the other, not one and two 3x3; the auxiliary head (figure 8)
ends in 768 features, not 1024. A block that halves the map follows figure 10; the text
does not give their features, nor the widths of figure 6. Dropout of 0.5 is torchvision's;
the paper has no number. On maps below 17x17, from images below 299x299, where the
auxiliary head's pooling leaves too little, it takes means over a 5x5 grid.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax

from zoo.layers import (
    Classifier,
    Conv,
    Endpoints,
    Layer,
    adaptive_avg_pool,
    avg_pool,
    max_pool,
    rematerialise,
)
from zoo.models.googlenet import Unit, branch, concatenate

Pool = Callable[[jax.Array], jax.Array]  # average pooling that keeps the size


def fork(unit: Layer, x: jax.Array, features: int, name: str) -> jax.Array:
    """Returns a 1x3 and a 3x1 convolution of the same map, side by side (figure 7)."""
    return concatenate(
        unit(features, (1, 3), name=f"{name}a")(x), unit(features, (3, 1), name=f"{name}b")(x)
    )


class InceptionA(nn.Module):
    """1x1, 5x5, twice 3x3, and pooling (figure 5, whose 5x5 is two 3x3)."""

    features: int  # of the first branch
    pool_features: int  # of the last
    unit: Layer
    pool: Pool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return concatenate(
            branch(self.unit, x, 1, (self.features, 1)),
            branch(self.unit, x, 2, (48, 1), (64, 5)),
            branch(self.unit, x, 3, (64, 1), (96, 3), (96, 3)),
            branch(self.unit, self.pool(x), 4, (self.pool_features, 1)),
        )


class ReductionA(nn.Module):
    """Halves the map by a 3x3, by 1x1 and twice 3x3, and by pooling (figure 10).

    Features are k, l, m (second branch) and n (first): table 1 of arXiv:1602.07261.
    """

    k: int
    l: int  # noqa: E741, the paper's letter
    m: int
    n: int
    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return concatenate(
            branch(self.unit, x, 1, (self.n, 3, 2, "VALID")),
            branch(self.unit, x, 2, (self.k, 1), (self.l, 3), (self.m, 3, 2, "VALID")),
            max_pool(x, 3, 2),
        )


class InceptionB(nn.Module):
    """1x1, 7x7 and twice 7x7, each factored into 1x7 and 7x1, and pooling (figure 6)."""

    features: int  # inside the factored branches
    unit: Layer
    pool: Pool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, row, column = self.features, (1, 7), (7, 1)
        twice = ((c, 1), (c, column), (c, row), (c, column), (192, row))
        return concatenate(
            branch(self.unit, x, 1, (192, 1)),
            branch(self.unit, x, 2, (c, 1), (c, row), (192, column)),
            branch(self.unit, x, 3, *twice),
            branch(self.unit, self.pool(x), 4, (192, 1)),
        )


class ReductionB(nn.Module):
    """Halves the map by a 3x3, by a factored 7x7 and a 3x3, and by pooling."""

    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        factored = ((192, 1), (192, (1, 7)), (192, (7, 1)))
        return concatenate(
            branch(self.unit, x, 1, (192, 1), (320, 3, 2, "VALID")),
            branch(self.unit, x, 2, *factored, (192, 3, 2, "VALID")),
            max_pool(x, 3, 2),
        )


class InceptionC(nn.Module):
    """1x1, a forked 3x3, 3x3 and a forked 3x3, and pooling (figure 7)."""

    unit: Layer
    pool: Pool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return concatenate(
            branch(self.unit, x, 1, (320, 1)),
            fork(self.unit, branch(self.unit, x, 2, (384, 1)), 384, "branch2_2"),
            fork(self.unit, branch(self.unit, x, 3, (448, 1), (384, 3)), 384, "branch3_3"),
            branch(self.unit, self.pool(x), 4, (192, 1)),
        )


def stem(unit: Layer, images: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """Returns what the first block takes, and the endpoints in front of it."""
    x = unit(32, 3, 2, "VALID", name="stem1")(images)
    x = unit(32, 3, 1, "VALID", name="stem2")(x)
    x = out = unit(64, 3, name="stem3")(x)  # [B, H/2, W/2, 64]
    x = unit(80, 1, name="stem4")(max_pool(x, 3, 2))
    x = unit(192, 3, 1, "VALID", name="stem5")(x)  # [B, H/4, W/4, 192]
    return max_pool(x, 3, 2), {"stride2": out, "stride4": x}


class InceptionV3(Classifier):
    """Inception v3.

    Endpoints have `aux_logits`, a tuple of one array, if there is an auxiliary head.

    Attributes:
      aux_heads: one more classifier on stage 2, for training; none without `num_classes`.
      dropout_rate: in front of the head.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      norm_scale: whether BatchNorm scales; Keras's does not.
      count_include_pad: whether average pooling counts the padding, as torchvision's does;
        Keras's does not.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    aux_heads: bool = True
    dropout_rate: float = 0.5
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.9
    norm_scale: bool = True
    count_include_pad: bool = True
    remat: tuple[int, ...] = ()

    smallest = 75

    def auxiliary(self, x: jax.Array, unit: Layer) -> jax.Array:
        """Returns the auxiliary head's logits [B, num_classes] (figure 8)."""
        fits = min(x.shape[1:3]) >= 17
        x = avg_pool(x, 5, 3) if fits else adaptive_avg_pool(x, 5)
        x = unit(128, 1, name="aux1_conv1")(x)
        x = unit(768, 5, padding="VALID", name="aux1_conv2")(x)
        return self.classify(x.mean((1, 2)), name="aux1_head")

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        norm = functools.partial(norm, use_scale=self.norm_scale)
        unit = functools.partial(Unit, conv=conv, norm=norm)
        count = self.count_include_pad
        pool = functools.partial(avg_pool, window=3, strides=1, padding=1, count_include_pad=count)
        stages = (
            [functools.partial(InceptionA, 64, c, pool=pool) for c in (32, 64, 64)],
            [
                functools.partial(ReductionA, 64, 96, 96, 384),
                *(functools.partial(InceptionB, c, pool=pool) for c in (128, 160, 160, 192)),
            ],
            [ReductionB, *[functools.partial(InceptionC, pool=pool)] * 2],
        )
        x, out = stem(unit, images)
        for stage, blocks in enumerate(stages, 1):
            for i, block in enumerate(blocks, 1):
                block = rematerialise(block, stage in self.remat)
                x = block(unit=unit, name=f"stage{stage}_block{i}")(x)
            # [B, H/8, W/8, 288], [B, H/16, W/16, 768], [B, H/32, W/32, 2048]
            out[f"stride{2 ** (stage + 2)}"] = x
        out |= self.pool_and_classify(x, self.dropout_rate, train)
        if self.aux_heads and self.num_classes is not None:
            out["aux_logits"] = (self.auxiliary(out["stride16"], unit),)
        return out


VARIANTS = {"inception_v3": {}}
