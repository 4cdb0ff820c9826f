"""ResNet-20 on the MNIST family, 28x28 as they are: BatchNorm and SGD, in three epochs.

    python train.py --config=configs/resnet_mnist.py:idx=/usr/share/datasets/fashion-mnist \
        --workdir=runs/resnet_fashion

reads IDX files of Fashion-MNIST from a folder (this one is Debian's
`dataset-fashion-mnist`), with its own mean and with mirrored images; without `:idx=…` the
data are TFDS's `mnist`, prepared as array_record, whose digits must not be mirrored. With
`:smoke` it makes three steps on noise.

He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2, with its batch, momentum, peak
rate and weight decay. So short a training wants a smooth end: the rate falls as a half cosine
(Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983) instead of in steps. For any CPU.
Wall time and accuracy on MNIST: not measured; on Fashion-MNIST: see the README.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "smoke" or "idx=FOLDER"."""
    config = default.get_config()
    config.batch_size = 128
    config.train_for = "3 epochs"

    config.model.name = "resnet20"

    config.data.name = "mnist"
    config.data.train_split = "train[:55000]"
    config.data.validation_split = "train[55000:]"
    config.data.image_size = 28
    config.data.channels = 1
    config.data.fit = "pad"  # there is nothing to pad: 28x28 stays 28x28
    config.data.mean = (0.1307,)
    config.data.std = (0.3081,)
    config.data.cache = True
    config.augment.images = (("random_padding_crop", {"padding": 2}),)

    config.optimizer.name = "sgd"
    config.optimizer.arguments = {"momentum": 0.9, "nesterov": True}
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup = "0.5 epochs"
    config.optimizer.weight_decay = 1e-4

    key, _, folder = variant.partition("=")
    if key == "idx":
        config.data.name = f"idx:{folder}"
        config.data.mean = (0.2860,)
        config.data.std = (0.3530,)
        config.augment.images += (("random_horizontal_flip", {}),)
        return config
    return default.variant(config, variant, smoke_size=28)
