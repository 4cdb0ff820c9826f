"""AlexNet. Krizhevsky, Sutskever and Hinton 2012; Krizhevsky 2014.

"ImageNet classification with deep convolutional neural networks", NIPS 2012,
https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html
"One weird trick for parallelizing convolutional neural networks",
https://arxiv.org/abs/1404.5997 (one tower)

Figure 2 of 2012 and the parameters that follow from it, beside those of one tower:

    layer                  alexnet_2012                     alexnet
    conv1  11x11, / 4      55x55    96             34,944     64      23,296
           norm, pool      27x27
    conv2  5x5             27x27   256  2 groups  307,456    192     307,392
           norm, pool      13x13
    conv3  3x3             13x13   384            885,120    384     663,936
    conv4  3x3             13x13   384  2 groups  663,936    256     884,992
    conv5  3x3             13x13   256  2 groups  442,624    256     590,080
           pool             6x6
    fc6                           4096         37,752,832         37,752,832
    fc7                           4096         16,781,312         16,781,312
    head                          1000          4,097,000          4,097,000
                                               60,965,224         61,100,840

Pooling is over 3x3 at stride 2, so that windows overlap; normalisation is across channels,
after ReLU and in front of pooling. A group is what one of the two GPUs held.

Differs from the papers: 2012 speaks of 224x224 images, but without padding only 227x227
give its 55x55 maps, and that is the size here. Where it is silent, `alexnet_2012` follows
the graph of the Caffe model: no padding of conv1, and the last pooling keeps a window that is
only partly inside, which at 227 does not occur. `alexnet` is the network with which
torchvision's weights go: 256 features in conv4 (the paper's footnote 1 says 384), padding of
conv1, no normalisation, and dropout in front of fc6 and fc7 (behind them in 2012). At other
sizes means over a 6x6 grid of bins stand in for the last map. Convolutions start by He et
al. 2015, where 2012 has N(0, 0.01^2) as here in fc6 and fc7; all biases start at 0, some of
2012's at 1.
"""

from collections.abc import Callable
import functools

from flax import linen as nn
import jax

from zoo.layers import Classifier, Conv, Endpoints, adaptive_avg_pool, local_response_norm, max_pool


def identity(x: jax.Array) -> jax.Array:
    """No normalisation."""
    return x


class AlexNet(Classifier):
    """Five convolutions and three dense layers.

    The first dense layer is stored as the convolution [6, 6, C, 4096] that it is.

    Attributes:
      widths: features of each convolution.
      groups: of each convolution.
      stem_padding: of the first convolution.
      normalise: what follows the first two ReLUs.
      ceil_mode: whether the last pooling keeps a window that is only partly inside.
      hidden_features: of the two dense layers in front of the head.
      dropout_rate: of the inputs of two layers.
      dropout_at: which they are.
    """

    widths: tuple[int, ...] = (64, 192, 384, 256, 256)
    groups: tuple[int, ...] = (1, 1, 1, 1, 1)
    stem_padding: int = 2
    normalise: Callable[[jax.Array], jax.Array] = identity
    ceil_mode: bool = False
    hidden_features: int = 4096
    dropout_rate: float = 0.5
    dropout_at: tuple[str, ...] = ("fc6", "fc7")

    @property
    def smallest_image(self) -> int:
        """What leaves one pixel for the last pooling."""
        return 51 if self.ceil_mode else 63

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        conv = functools.partial(Conv, use_bias=True, **self.kinds)
        dense = functools.partial(
            conv, self.hidden_features, padding="VALID", kernel_init=nn.initializers.normal(0.01)
        )

        def drop(x: jax.Array, layer: str) -> jax.Array:
            rate = self.dropout_rate if layer in self.dropout_at else 0.0
            return nn.Dropout(rate, deterministic=not train, name=f"{layer}_drop")(x)

        width, groups, out = self.widths, self.groups, {}
        x = conv(width[0], 11, 4, self.stem_padding, groups[0], name="conv1")(images)
        x = out["stride4"] = self.normalise(nn.relu(x))  # [B, H/4, W/4, 64]
        x = conv(width[1], 5, groups=groups[1], name="conv2")(max_pool(x, 3, 2))
        x = out["stride8"] = self.normalise(nn.relu(x))  # [B, H/8, W/8, 192]
        x = nn.relu(conv(width[2], 3, groups=groups[2], name="conv3")(max_pool(x, 3, 2)))
        x = nn.relu(conv(width[3], 3, groups=groups[3], name="conv4")(x))
        x = nn.relu(conv(width[4], 3, groups=groups[4], name="conv5")(x))
        out["stride16"] = x  # [B, H/16, W/16, 256]
        x = out["stride32"] = max_pool(x, 3, 2, ceil_mode=self.ceil_mode)  # [B, H/32, W/32, 256]
        x = drop(adaptive_avg_pool(x, 6), "fc6")
        x = nn.relu(dense(6, name="fc6")(x))  # [B, 1, 1, 4096]
        x = nn.relu(dense(1, name="fc7")(drop(x, "fc7")))[:, 0, 0]
        out["pre_logits"] = x  # [B, 4096]
        if self.num_classes is not None:
            out["logits"] = self.classify(drop(x, "head"))
        return out


VARIANTS = {
    "alexnet": {"widths": (64, 192, 384, 256, 256)},
    "alexnet_2012": {
        "widths": (96, 256, 384, 384, 256),
        "groups": (1, 2, 1, 2, 2),
        "stem_padding": 0,
        "normalise": local_response_norm,
        "ceil_mode": True,
        "dropout_at": ("fc7", "head"),
    },
}
