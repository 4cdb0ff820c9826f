"""LeNet-5 on MNIST and its family, 28x28 centred on 32x32 as in the paper.

    python train.py --config=configs/lenet_mnist.py:idx=/usr/share/datasets/fashion-mnist \
        --workdir=runs/fashion

reads the family's own IDX files from a folder (this one is Debian's
`dataset-fashion-mnist`); without `:idx=…` the data are TFDS's `mnist`, prepared as
array_record, and `--config.data.name=fashion_mnist` is another of TFDS's. With `:smoke` it
makes three steps on noise, without any data. `:lenet5_1998` is the network to the letter.

LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf, section III: 20 passes,
and 99.05 % of MNIST's test images, 99.2 % with distorted training images. For any CPU: four
minutes on two cores. Accuracy on MNIST: not measured; on Fashion-MNIST: see the README.
Differs from the paper: Adam with a half cosine instead of the stochastic diagonal
Levenberg-Marquardt method, batches of 128 instead of 1, shifts instead of distortions, and
5,000 of the training images to validate on.
"""

from ml_collections import ConfigDict

from configs import default

VARIANTS = {"lenet5_1998": {"model.name": "lenet5_1998"}}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "idx=FOLDER", or another name."""
    config = default.get_config()
    config.batch_size = 128
    config.train_for = "20 epochs"

    config.data.name = "mnist"
    config.data.train_split = "train[:55000]"
    config.data.validation_split = "train[55000:]"
    config.data.fit = "pad"
    config.data.mean = (0.1307,)
    config.data.std = (0.3081,)
    config.data.cache = True
    config.augment.images = (("random_padding_crop", {"padding": 2}),)

    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = "1 epoch"

    key, _, folder = variant.partition("=")
    if key == "idx":
        config.data.name = f"idx:{folder}"
        return config
    return default.variant(config, variant, smoke_size=32, **VARIANTS)
