"""Xception on ImageNet. Chollet 2016, https://arxiv.org/abs/1610.02357, section 4.

    python train.py --config=configs/xception_imagenet.py --workdir=runs/xception

For 8 GPUs with 24 GB. Wall time and accuracy: not measured here. The paper: three days on 60
K80, and 79.0 % top-1 on the validation images, single crop (table 1; Keras's weights).

Momentum 0.9, rate 0.045 times 0.94 every second epoch, decay 1e-5, dropout 0.5, no auxiliary
head, an average of the weights.

Differs from the paper: it does not name the batch, the length or the augmentation. Here the
rate is for 256 images, 120 epochs, and crops of 8 to 100 % of the area; the average is an
exponential one with 0.9999. Images are cropped as Inception's are, where the weights of
Keras were tested on squashed ones.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or with `variant="smoke"` three steps of it."""
    config = default.imagenet()
    config.batch_size = 256
    config.train_for = "120 epochs"

    config.model.name = "xception"

    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.5, 0.5, 0.5)

    config.optimizer.name = "momentum"
    config.optimizer.learning_rate = 0.045
    config.optimizer.base_batch = 256
    config.optimizer.schedule = "exponential"
    config.optimizer.schedule_arguments = {"factor": 0.94, "every": "2 epochs", "staircase": True}
    config.optimizer.weight_decay = 1e-5

    config.average.ema_decay = 0.9999
    config.average.ema_warmup = True
    config.best.metric = "val_ema/top1"

    return default.variant(config, variant, smoke_size=64)
