"""LeNet-5 on MNIST and its family, 28x28 centred on 32x32 as in the paper.

    python train.py --config=configs/lenet_mnist.py:idx=/usr/share/datasets/fashion-mnist \
        --workdir=runs/fashion

reads the family's own IDX files from a folder (this one is Debian's
`dataset-fashion-mnist`); without `:idx=…` the data are TFDS's `mnist`, prepared as
array_record, and `--config.data.name=fashion_mnist` is another of TFDS's. With `:smoke` it
makes three steps on noise, without any data.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "smoke" or "idx=FOLDER"."""
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
    return default.variant(config, variant, smoke_size=32)
