"""MobileNet at a quarter of its width on the MNIST family, 28x28 centred on 32x32.

    python train.py --config=configs/mobilenet_mnist.py:idx=/usr/share/datasets/fashion-mnist \
        --workdir=runs/mobilenet_fashion

reads IDX files of Fashion-MNIST from a folder (this one is Debian's
`dataset-fashion-mnist`), with its own mean and with mirrored images; without `:idx=…` the
data are TFDS's `mnist`, prepared as array_record, whose digits must not be mirrored. With
`:smoke` it makes three steps on noise.

Howard et al. 2017, https://arxiv.org/abs/1704.04861. The network halves an image five times:
32x32 pixels leave one position in the last stage. It is that of
`keras.applications.MobileNet(alpha=0.25)`, layer for layer. For any CPU. Wall time and accuracy
on MNIST: not measured; on Fashion-MNIST: see the README.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "smoke" or "idx=FOLDER"."""
    config = default.get_config()
    config.batch_size = 128
    config.train_for = "6 epochs"

    config.model.name = "mobilenet_v1_025"
    # Keras's: padding of TensorFlow, slow averages of BatchNorm, next to no dropout.
    config.model.arguments = {
        "padding": "SAME",
        "norm_epsilon": 1e-3,
        "norm_momentum": 0.99,
        "dropout_rate": 1e-3,
    }

    config.data.name = "mnist"
    config.data.train_split = "train[:55000]"
    config.data.validation_split = "train[55000:]"
    config.data.image_size = 32
    config.data.channels = 1
    config.data.fit = "pad"
    config.data.mean = (0.1307,)
    config.data.std = (0.3081,)
    config.data.cache = True
    config.augment.images = (("random_padding_crop", {"padding": 2}),)

    # AdamW, at 0.001 and at 0.004, was far behind in the first few hundred steps.
    config.optimizer.name = "sgd"
    config.optimizer.arguments = {"momentum": 0.9, "nesterov": True}
    config.optimizer.learning_rate = 0.05
    config.optimizer.warmup = "0.5 epochs"
    config.optimizer.weight_decay = 1e-4

    key, _, folder = variant.partition("=")
    if key == "idx":
        config.data.name = f"idx:{folder}"
        config.data.mean = (0.2860,)
        config.data.std = (0.3530,)
        config.augment.images += (("random_horizontal_flip", {}),)
        return config
    return default.variant(config, variant, smoke_size=32)
