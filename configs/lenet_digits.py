"""LeNet-5 on the handwritten digits that ship with scikit-learn: real data, offline.

    python train.py --config=configs/lenet_digits.py --workdir=runs/digits

1,258 training images; LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf.
For any CPU: about a minute on two cores. Accuracy: see the README. With `:smoke` it trains for two
epochs, to see that everything works.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or with `variant="smoke"` its one-minute version."""
    config = default.get_config()
    config.batch_size = 64
    config.train_for = "60 epochs"
    config.log_every = "1 epoch"
    config.evaluate_every = "2 epochs"
    config.checkpoint.every = "2 epochs"

    config.data.name = "digits"
    config.data.fit = "squash"  # 8x8 to 32x32
    config.data.mean = (0.305,)  # of the training images
    config.data.std = (0.376,)
    config.data.cache = True
    config.augment.images = (("random_padding_crop", {"padding": 3}),)

    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = "1 epoch"

    return default.variant(config, variant, smoke={"train_for": "2 epochs"})
