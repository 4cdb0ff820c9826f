"""Xception. Chollet 2016.

"Xception: deep learning with depthwise separable convolutions",
https://arxiv.org/abs/1610.02357

Figure 5. Each separable convolution is a depthwise 3x3 and a 1x1 with nothing in between;
BatchNorm follows every convolution, ReLU precedes those inside blocks.

    flow     block           output    features of its convolutions       shortcut
    entry    stem           149x149    32, 3x3, stride 2
                            147x147    64, 3x3
             entry_block1     74x74    128, 128, then 3x3 pooling /2      1x1, stride 2
             entry_block2     37x37    256, 256, then 3x3 pooling /2      1x1, stride 2
             entry_block3     19x19    728, 728, then 3x3 pooling /2      1x1, stride 2
    middle   middle_block1-8  19x19    728, 728, 728                      identity
    exit     exit_block       10x10    728, 1024, then 3x3 pooling /2     1x1, stride 2
             exit_sep_conv1   10x10    1536
             exit_sep_conv2   10x10    2048
             head                      global average pooling, dense

22,855,952 parameters (table 3), 79.0 % top-1 on ImageNet (table 1).

Differs from the paper: nothing known. What it leaves open is the author's code in Keras:
the stem is not padded, pooling pads as TensorFlow does, BatchNorm has epsilon 1e-3 and
averages with 0.99. Convolutions start by He et al. 2015. (The
ReLU that opens `entry_block1` changes nothing, for the stem ends with one.)
"""

import functools

from flax import linen as nn
import jax

from zoo.layers import Classifier, Conv, Endpoints, Layer, Padding, max_pool, rematerialise


class SeparableConv(nn.Module):
    """3x3 on each channel, then 1x1 across them; no activation in between (figure 4)."""

    features: int
    conv: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x.shape[-1], 3, groups=x.shape[-1], name="depthwise")(x)
        return self.conv(self.features, 1, name="pointwise")(x)


class Block(nn.Module):
    """Separable convolutions with a shortcut around them.

    Attributes:
      widths: features of each convolution.
      strides: 2 to halve the map behind them by pooling.
      padding: of the pooling.
      conv: the bound `Conv`.
      norm: the bound BatchNorm.
      drop: the bound stochastic depth of the residual.
    """

    widths: tuple[int, ...]
    strides: int
    padding: Padding
    conv: Layer
    norm: Layer
    drop: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        if self.strides > 1 or x.shape[-1] != self.widths[-1]:
            shortcut = self.conv(self.widths[-1], 1, self.strides, name="downsample_conv")(x)
            shortcut = self.norm(name="downsample_bn")(shortcut)
        for i, features in enumerate(self.widths, 1):
            x = SeparableConv(features, self.conv, name=f"sep_conv{i}")(nn.relu(x))
            x = self.norm(name=f"bn{i}")(x)
        if self.strides > 1:
            x = max_pool(x, 3, self.strides, self.padding)
        return self.drop(name="drop")(x) + shortcut


class Xception(Classifier):
    """A stack of separable convolutions with residual connections.

    Attributes:
      padding: of the pooling; "SAME" as the author's code has it, or "symmetric".
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      dropout_rate: in front of the head, as in the paper's section on regularisation.
      drop_path_rate: of the last block; grows linearly from 0 at the first.
      remat: flows to compute again in the backward pass: 1 entry, 2 middle, 3 exit.
    """

    padding: Padding = "SAME"
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    dropout_rate: float = 0.5
    drop_path_rate: float = 0.0
    remat: tuple[int, ...] = ()

    smallest = 7  # the stem is not padded

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        drops = self.stochastic_depth(self.drop_path_rate, 3 + 8 + 1, train)
        entry, middle, exit_ = (rematerialise(Block, flow in self.remat) for flow in (1, 2, 3))

        def layers(strides: int) -> dict[str, object]:
            rest = {"conv": conv, "norm": norm, "drop": next(drops)}
            return {"strides": strides, "padding": self.padding, **rest}

        out = {}
        x = conv(32, 3, 2, padding="VALID", name="stem_conv1")(images)
        x = nn.relu(norm(name="stem_bn1")(x))  # [B, 149, 149, 32] of 299
        x = conv(64, 3, padding="VALID", name="stem_conv2")(x)
        x = out["stride2"] = nn.relu(norm(name="stem_bn2")(x))  # [B, 147, 147, 64]
        x = out["stride4"] = entry((128, 128), **layers(2), name="entry_block1")(x)
        x = out["stride8"] = entry((256, 256), **layers(2), name="entry_block2")(x)
        x = entry((728, 728), **layers(2), name="entry_block3")(x)
        for i in range(1, 9):
            x = middle((728, 728, 728), **layers(1), name=f"middle_block{i}")(x)
        out["stride16"] = x  # [B, 19, 19, 728]
        x = exit_((728, 1024), **layers(2), name="exit_block")(x)
        for i, features in enumerate((1536, 2048), 1):
            x = SeparableConv(features, conv, name=f"exit_sep_conv{i}")(x)
            x = nn.relu(norm(name=f"exit_bn{i}")(x))
        out["stride32"] = x  # [B, 10, 10, 2048]
        return out | self.pool_and_classify(x, self.dropout_rate, train)


VARIANTS = {"xception": {}}
