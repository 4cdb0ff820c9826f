"""GoogLeNet. Szegedy, Liu, Jia, Sermanet, Reed, Anguelov et al. 2014.

"Going deeper with convolutions", https://arxiv.org/abs/1409.4842

Table 1, features of each branch; every 3x3 max pooling halves the map.

    here            paper   output        1x1   3x3      3x3   5x5      5x5   pool
                                                reduce         reduce         projection
    stem1                   112x112x64    7x7 convolution, stride 2; then max pooling
    stem2, stem3            56x56x192           64       192   then max pooling
    stage1_block1   3a      28x28x256      64   96       128   16        32    32
    stage1_block2   3b      28x28x480     128   128      192   32        96    64
    stage2_block1   4a      14x14x512     192   96       208   16        48    64
    stage2_block2   4b      14x14x512     160   112      224   24        64    64
    stage2_block3   4c      14x14x512     128   128      256   24        64    64
    stage2_block4   4d      14x14x528     112   144      288   32        64    64
    stage2_block5   4e      14x14x832     256   160      320   32       128   128
    stage3_block1   5a      7x7x832       256   160      320   32       128   128
    stage3_block2   5b      7x7x1024      384   192      384   48       128   128
    head                    global average pooling, dropout, dense

Section 5 puts auxiliary heads on 4a and 4d: 5x5 average pooling with stride 3, a 1x1
convolution with 128 features, a dense layer with 1024, dropout, and a dense layer.

Differs from the paper: `googlenet` is the network whose weights are in use, torchvision's
and before it TensorFlow's: BatchNorm instead of biases and local response normalisation, a
3x3 kernel where the table has 5x5, 2x2 windows in the last max pooling, means over a 4x4
grid in the auxiliary heads, and dropout of 0.2 instead of 0.4. `googlenet_2014` has none of
these. The paper gives neither the constants of its normalisation nor what pooling does at
borders: they are those of Caffe's reference model, k = 1, alpha = 1e-4 / 5, and a last
window that is only partly inside counts. Auxiliary heads, whose dense layer wants a 4x4
map, take means over a 4x4 grid at image sizes where the paper's pooling gives another.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import (
    Classifier,
    Conv,
    Endpoints,
    Layer,
    Padding,
    adaptive_avg_pool,
    avg_pool,
    local_response_norm,
    max_pool,
    rematerialise,
)

# Features, kernel size and, unless they are 1 and what keeps the size, strides and padding.
Step = tuple[int, int | tuple[int, int]] | tuple[int, int, int, str]


class Unit(nn.Module):
    """Convolution, BatchNorm if there is any, ReLU: what all Inception networks consist of.

    Attributes:
      features: channels out.
      kernel_size: of the convolution.
      strides: of the convolution.
      padding: of the convolution.
      conv: the bound `Conv`, with biases if there is no norm.
      norm: the bound BatchNorm, or None for none.
    """

    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: Padding = "symmetric"
    conv: Layer = Conv
    norm: Layer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(self.conv, padding=self.padding, name="conv")
        x = conv(self.features, self.kernel_size, self.strides)(x)
        return nn.relu(x if self.norm is None else self.norm(name="bn")(x))


def branch(unit: Layer, x: jax.Array, number: int, *steps: Step) -> jax.Array:
    """Returns a chain of units, `branch{number}_1` and so on, applied to x."""
    for i, step in enumerate(steps, 1):
        x = unit(*step, name=f"branch{number}_{i}")(x)
    return x


def concatenate(*branches: jax.Array) -> jax.Array:
    """Returns maps side by side, [B, H, W, C + C' + ...]."""
    return jnp.concatenate(branches, axis=-1)


class Inception(nn.Module):
    """Four branches side by side (figure 2b).

    Attributes:
      features: of the six convolutions, in the order of table 1.
      wide_kernel: size of the third branch's kernel.
      unit: the bound `Unit`.
    """

    features: tuple[int, int, int, int, int, int]
    wide_kernel: int
    unit: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, reduce, second, wide_reduce, third, projection = self.features
        return concatenate(
            branch(self.unit, x, 1, (first, 1)),
            branch(self.unit, x, 2, (reduce, 1), (second, 3)),
            branch(self.unit, x, 3, (wide_reduce, 1), (third, self.wide_kernel)),
            branch(self.unit, max_pool(x, 3, 1, padding=1), 4, (projection, 1)),
        )


def grid_means(x: jax.Array) -> jax.Array:
    """Returns means over a 4x4 grid, [B, 4, 4, C]."""
    return adaptive_avg_pool(x, 4)


def paper_means(x: jax.Array) -> jax.Array:
    """Returns the paper's average pooling if that is [B, 4, 4, C], else means over a grid."""
    fits = all(14 <= size <= 16 for size in x.shape[1:3])
    return avg_pool(x, 5, 3) if fits else grid_means(x)


# Features of the branches, stage by stage: table 1.
INCEPTIONS = (
    (
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
    ),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    (
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    ),
)
AUXILIARY = ("stage2_block1", "stage2_block4")  # blocks that have an auxiliary head


class GoogLeNet(Classifier):
    """GoogLeNet with BatchNorm. The subclass `GoogLeNet2014` is the paper's.

    Endpoints have `aux_logits`, lower head first, if there are auxiliary heads.

    Attributes:
      aux_heads: two more classifiers halfway, for training; none without `num_classes`.
      dropout_rate: in front of the head.
      aux_dropout_rate: in front of the last layer of each auxiliary head.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    aux_heads: bool = True
    dropout_rate: float = 0.2
    aux_dropout_rate: float = 0.7
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.9
    remat: tuple[int, ...] = ()

    smallest = 15
    wide_kernel = 3
    last_pool = 2
    aux_means = staticmethod(grid_means)

    def unit(self, train: bool) -> Layer:
        """Returns the bound `Unit`."""
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        return functools.partial(Unit, conv=functools.partial(Conv, **self.kinds), norm=norm)

    def response_norm(self, x: jax.Array) -> jax.Array:
        """Returns x; there is BatchNorm."""
        return x

    def auxiliary(self, x: jax.Array, name: str, unit: Layer, train: bool) -> jax.Array:
        """Returns an auxiliary head's logits [B, num_classes] of its map."""
        x = unit(128, 1, name=f"{name}_conv")(self.aux_means(x))  # [B, 4, 4, 128]
        # A dense layer on a flattened map is a convolution by a kernel of the map's size.
        dense = functools.partial(Conv, kernel_init=nn.initializers.he_normal(), **self.kinds)
        x = dense(1024, 4, padding="VALID", use_bias=True, name=f"{name}_dense")(x)
        x = nn.relu(x[:, 0, 0])
        x = nn.Dropout(self.aux_dropout_rate, deterministic=not train, name=f"{name}_drop")(x)
        return self.classify(x, name=f"{name}_head")

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        unit, out, tapped = self.unit(train), {}, []
        x = out["stride2"] = unit(64, 7, 2, name="stem1")(images)  # [B, H/2, W/2, 64]
        x = self.response_norm(max_pool(x, 3, 2, ceil_mode=True))
        x = unit(192, 3, name="stem3")(unit(64, 1, name="stem2")(x))
        x = out["stride4"] = self.response_norm(x)  # [B, H/4, W/4, 192]
        for stage, blocks in enumerate(INCEPTIONS, 1):
            x = max_pool(x, self.last_pool if stage == 3 else 3, 2, ceil_mode=True)
            block = rematerialise(Inception, stage in self.remat)
            for i, features in enumerate(blocks, 1):
                name = f"stage{stage}_block{i}"
                x = block(features, self.wide_kernel, unit, name=name)(x)
                tapped += [x] if name in AUXILIARY else []
            # [B, H/8, W/8, 480], [B, H/16, W/16, 832], [B, H/32, W/32, 1024]
            out[f"stride{2 ** (stage + 2)}"] = x
        out |= self.pool_and_classify(x, self.dropout_rate, train)
        if self.aux_heads and self.num_classes is not None:
            out["aux_logits"] = tuple(
                self.auxiliary(x, f"aux{i}", unit, train) for i, x in enumerate(tapped, 1)
            )
        return out


class GoogLeNet2014(GoogLeNet):
    """GoogLeNet as published; it has no BatchNorm, whose two fields mean nothing here.

    Compared with Caffe's network without its auxiliary heads, for which there is no other
    implementation at hand.
    """

    dropout_rate: float = 0.4

    smallest = 31
    wide_kernel = 5
    last_pool = 3
    aux_means = staticmethod(paper_means)

    def unit(self, train: bool) -> Layer:
        """Returns the bound `Unit`, with biases instead of BatchNorm."""
        return functools.partial(Unit, conv=functools.partial(Conv, use_bias=True, **self.kinds))

    def response_norm(self, x: jax.Array) -> jax.Array:
        """Returns x normalised over five neighbouring channels."""
        return local_response_norm(x, size=5, alpha=1e-4 / 5, beta=0.75, k=1.0)


VARIANTS = {"googlenet": {}}
VARIANTS_2014 = {"googlenet_2014": {}}
