"""ResNet v2, with pre-activation. He, Zhang, Ren and Sun 2016.

"Identity mappings in deep residual networks", https://arxiv.org/abs/1603.05027

BatchNorm and ReLU come in front of each convolution, so that what goes from block to block
is a plain sum (figure 1b). Blocks per stage are those of table 1 of the first paper:

    stage     output   features     50   101   152
    stem     112x112         64     7x7 convolution, stride 2
              56x56          64     3x3 max pooling, stride 2
    stage1    56x56          64      3     3     3
    stage2    28x28         128      4     4     8
    stage3    14x14         256      6    23    36
    stage4     7x7          512      3     3     3
    head                            BatchNorm, ReLU, global average pooling, dense

Differs from the paper: these are Keras's networks, the published ones. The last block of a
stage halves the map, not the first of the next; the stem and the last convolution of a
block have biases, and shortcuts too; the stem's pooling pads with zeros, which may win.
Their epsilon is 1.001e-5; their BatchNorm averages with 0.99, ours with 0.9.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import Classifier, Conv, Endpoints, Layer, max_pool, rematerialise
from zoo.models.resnet import SIZES


class PreActivation(nn.Module):
    """The bottleneck: 1x1, 3x3 and 1x1 convolutions (figure 1b)."""

    features: int
    strides: int
    conv: Layer
    norm: Layer
    drop: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = 4 * self.features
        y = nn.relu(self.norm(name="preact_bn")(x))
        if x.shape[-1] != features:
            shortcut = self.conv(features, 1, self.strides, use_bias=True, name="downsample_conv")(
                y
            )
        else:
            shortcut = x[:, :: self.strides, :: self.strides]
        y = self.conv(self.features, 1, name="conv1")(y)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.features, 3, self.strides, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(features, 1, use_bias=True, name="conv3")(y)
        return self.drop(name="drop")(y) + shortcut


class ResNetV2(Classifier):
    """Residual network with pre-activation.

    Attributes:
      stage_sizes: blocks per stage; the last one of each but the last stage has stride 2.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      dropout_rate: in front of the head.
      drop_path_rate: of the last block; grows linearly from 0 at the first.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    norm_epsilon: float = 1.001e-5
    norm_momentum: float = 0.9
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    remat: tuple[int, ...] = ()

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, **self.kinds)
        norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        out, stride = {}, 4
        x = conv(64, 7, 2, use_bias=True, name="stem_conv")(images)
        out["stride2"] = x  # [B, H/2, W/2, 64]
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # zeros, which may win
        x = max_pool(x, 3, 2)
        drops = self.stochastic_depth(self.drop_path_rate, sum(self.stage_sizes), train)
        for stage, blocks in enumerate(self.stage_sizes, 1):
            block = rematerialise(PreActivation, stage in self.remat)
            for i in range(blocks):
                strides = 2 if i == blocks - 1 and stage < len(self.stage_sizes) else 1
                layers = {"conv": conv, "norm": norm, "drop": next(drops)}
                name = f"stage{stage}_block{i + 1}"
                x = block(2 ** (stage + 5), strides, **layers, name=name)(x)
                stride *= strides
                out[f"stride{stride}"] = x  # [B, H/stride, W/stride, 4 x features]
        x = out[f"stride{stride}"] = nn.relu(norm(name="final_bn")(x))  # [B, H/32, W/32, 2048]
        return out | self.pool_and_classify(x, self.dropout_rate, train)


VARIANTS = {
    "resnet50_v2": {"stage_sizes": SIZES[50]},
    "resnet101_v2": {"stage_sizes": SIZES[101]},
    "resnet152_v2": {"stage_sizes": SIZES[152]},
}
