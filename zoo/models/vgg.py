"""VGG. Simonyan and Zisserman 2014.

"Very deep convolutional networks for large-scale image recognition",
https://arxiv.org/abs/1409.1556

Tables 1 and 2 (columns A, B, D and E; convolutions are 3x3, pooling is over 2x2):

                 output   features    11 (A)  13 (B)  16 (D)  19 (E)
    stage1    224x224           64       1       2       2       2
    stage2    112x112          128       1       2       2       2
    stage3     56x56           256       2       2       3       4
    stage4     28x28           512       2       2       3       4
    stage5     14x14           512       2       2       3       4
    pooling     7x7            512
    fc1         1x1           4096
    fc2         1x1           4096
    head        1x1           1000
    10^6 parameters                    133     133     138     144

Each stage but the first begins with pooling. `_bn` has BatchNorm behind every convolution.

Differs from the paper: without the columns A-LRN and C. BatchNorm came later (Ioffe and
Szegedy 2015, https://arxiv.org/abs/1502.03167); that one keeps the biases, as torchvision
does. At other image sizes means over a 7x7 grid of bins stand in for the last map, also as
in torchvision; section 3.2 applies the dense layers at all positions of a larger map, which
is `fully_convolutional`. Convolutions start by He et al. 2015; the paper starts the deep
networks with layers of the trained A.
"""

import functools

from flax import linen as nn
import jax

from zoo.layers import (
    Classifier,
    Conv,
    Endpoints,
    Layer,
    adaptive_avg_pool,
    max_pool,
    rematerialise,
)


class Stage(nn.Module):
    """So many 3x3 convolutions, each with BatchNorm (if there is one) and ReLU."""

    features: int
    size: int
    conv: Layer
    norm: Layer | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(1, self.size + 1):
            x = self.conv(self.features, 3, name=f"conv{i}")(x)
            if self.norm is not None:
                x = self.norm(name=f"bn{i}")(x)
            x = nn.relu(x)
        return x


class VGG(Classifier):
    """Stages of 3x3 convolutions, and three dense layers.

    The dense layers are stored as the convolutions 7x7 and 1x1 that they are, so that the
    same weights serve at one position or at all.

    Attributes:
      stage_sizes: convolutions per stage.
      widths: features of each stage.
      use_batch_norm: whether BatchNorm follows each convolution.
      fully_convolutional: slide the dense layers over the last map (section 3.2), for
        images of 224x224 or more. Each position of the endpoint `logits_map`
        [B, H', W', K] is what the dense layers make of one 7x7 window of that map (not of
        a crop of the image, whose borders would be padded); `logits` and `pre_logits` are
        means over its positions.
      hidden_features: of the two dense layers in front of the head.
      norm_epsilon: of BatchNorm.
      norm_momentum: of BatchNorm's running averages; 0.9 is torch's 0.1.
      dropout_rate: behind each of those two.
      remat: stages, counted from 1, to compute again in the backward pass.
    """

    stage_sizes: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    use_batch_norm: bool = False
    fully_convolutional: bool = False
    hidden_features: int = 4096
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    dropout_rate: float = 0.5
    remat: tuple[int, ...] = ()

    @property
    def smallest_image(self) -> int:
        """A pixel at the end of all stages; 7x7 of them for the dense layers to slide over."""
        return 2 ** len(self.stage_sizes) * (7 if self.fully_convolutional else 1)

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, use_bias=True, **self.kinds)
        norm = None
        if self.use_batch_norm:
            norm = self.batch_norm(train, epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        out, x, stride = {}, images, 1
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            block = rematerialise(Stage, stage in self.remat)
            x = block(width, size, conv, norm, name=f"stage{stage}")(x)
            out[f"stride{stride}"] = x  # [B, H/stride, W/stride, width]
            x, stride = max_pool(x, 2, 2), 2 * stride
        out[f"stride{stride}"] = x  # [B, H/32, W/32, 512]
        return out | self.dense_layers(x, conv, train)

    def dense_layers(self, x: jax.Array, conv: Layer, train: bool) -> Endpoints:
        """Returns what fc1, fc2 and the head make of the last map, averaged over positions."""
        dense = functools.partial(
            conv, self.hidden_features, padding="VALID", kernel_init=nn.initializers.normal(0.01)
        )
        drop = functools.partial(nn.Dropout, self.dropout_rate, deterministic=not train)
        if not self.fully_convolutional:
            x = adaptive_avg_pool(x, 7)
        x = drop(name="fc1_drop")(nn.relu(dense(7, name="fc1")(x)))  # [B, H', W', 4096]
        x = nn.relu(dense(1, name="fc2")(x))
        out = {"pre_logits": x.mean((1, 2))}  # [B, 4096]
        if self.num_classes is not None:
            logits = self.classify(drop(name="fc2_drop")(x))  # [B, H', W', K]
            out["logits"] = logits.mean((1, 2))
            if self.fully_convolutional:
                out["logits_map"] = logits
        return out


SIZES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

VARIANTS = {
    "vgg11": {"stage_sizes": SIZES[11]},
    "vgg13": {"stage_sizes": SIZES[13]},
    "vgg16": {"stage_sizes": SIZES[16]},
    "vgg19": {"stage_sizes": SIZES[19]},
    "vgg11_bn": {"stage_sizes": SIZES[11], "use_batch_norm": True},
    "vgg13_bn": {"stage_sizes": SIZES[13], "use_batch_norm": True},
    "vgg16_bn": {"stage_sizes": SIZES[16], "use_batch_norm": True},
    "vgg19_bn": {"stage_sizes": SIZES[19], "use_batch_norm": True},
}
