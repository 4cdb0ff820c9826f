"""Softmax regression and the multilayer perceptron, the two baselines without convolution.

Softmax regression is a single dense layer on the pixels (Bishop 2006, "Pattern recognition
and machine learning", section 4.3.4); the perceptron puts hidden layers in between (Rumelhart,
Hinton and Williams 1986, "Learning representations by back-propagating errors",
https://doi.org/10.1038/323533a0). Parameters for 28x28x1 images and 10 classes:

    layer       output                linear     mlp
    flatten        784                     0       0
    hidden1        512    784 x 512 + 512      401,920
    hidden2        512    512 x 512 + 512      262,656
    head            10                 7,850   5,130
                                       7,850 669,706

Differs from the paper: nothing was published under the name of `mlp`; two hidden layers of
512 with ReLU are what tutorials use for MNIST. Rumelhart et al. used the logistic function.
The parameters fit one image size and number of channels, that of the first call.
"""

from collections.abc import Callable

from flax import linen as nn
from flax.linen.dtypes import promote_dtype
import jax

from zoo.layers import Classifier, Endpoints


class Linear(Classifier):
    """Softmax regression: logits are weighted sums of all pixels."""

    num_classes: int | None = 10

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        del train  # nothing here behaves differently in training
        self.check(images)
        (x,) = promote_dtype(images.reshape(images.shape[0], -1), dtype=self.dtype)
        out = {"pre_logits": x}  # [B, H W C]
        if self.num_classes is not None:
            out["logits"] = self.classify(x)
        return out


class MLP(Classifier):
    """Multilayer perceptron: dense layers with an activation after each but the last.

    Attributes:
      widths: features of each hidden layer.
      activation: after each hidden layer.
      dropout_rate: after each hidden layer.
    """

    num_classes: int | None = 10
    widths: tuple[int, ...] = (512, 512)
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dropout_rate: float = 0.0

    @nn.compact
    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        self.check(images)
        init = nn.initializers.he_normal()
        x = pre_logits = images.reshape(images.shape[0], -1)  # [B, H W C]
        for i, width in enumerate(self.widths, 1):
            x = nn.Dense(width, kernel_init=init, name=f"hidden{i}", **self.kinds)(x)
            x = pre_logits = self.activation(x)  # [B, width]
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"drop{i}")(x)
        out = {"pre_logits": pre_logits}
        if self.num_classes is not None:
            out["logits"] = self.classify(x)
        return out


VARIANTS = {"linear": {}}
VARIANTS_MLP = {"mlp": {"widths": (512, 512)}}
