"""ResNet-20, the paper's network for small images, on the digits: BatchNorm at work.

    python train.py --config=configs/resnet_digits.py --workdir=runs/resnet

1,258 training images; He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2, with
its momentum and weight decay. For any CPU. Accuracy: see the README; wall time: not measured.
With `:smoke` it makes two steps.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or with `variant="smoke"` its short version."""
    config = default.get_config()
    config.batch_size = 64
    config.train_for = "15 epochs"

    config.model.name = "resnet20"

    config.data.name = "digits"
    config.data.channels = 1
    config.data.image_size = 16
    config.data.fit = "squash"  # 8x8 to 16x16
    config.data.mean = (0.305,)  # of the training images
    config.data.std = (0.376,)
    config.data.cache = True
    config.augment.images = (("random_padding_crop", {"padding": 1}),)

    config.optimizer.name = "sgd"
    config.optimizer.arguments = {"momentum": 0.9, "nesterov": True}
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup = "1 epoch"
    config.optimizer.weight_decay = 1e-4

    smoke = {"train_for": "2 steps", "evaluate_every": "2 steps", "optimizer.warmup": "1 step"}
    return default.variant(config, variant, smoke=smoke)
