"""Inception v3, v4 and Inception-ResNet v2 on ImageNet.

    python train.py --config=configs/inception_imagenet.py --workdir=runs/inception_v3

For 8 GPUs with 24 GB. Wall time and accuracy: not measured here. Published top-1 on the
validation images, single crop, in %:

                              paper     others
    "" (inception_v3)         78.8      77.3 torchvision, 77.9 Keras (the authors' weights)
    inception_v4              80.0
    inception_resnet_v2       80.1      80.3 Keras (the authors' weights)

The first is Szegedy et al. 2015, https://arxiv.org/abs/1512.00567, table 3 and section 8:
100 epochs of RMSProp with decay 0.9 and epsilon 1, rate 0.045 times 0.94 every second epoch,
the gradient's norm clipped at 2, label smoothing 0.1, one auxiliary head, an average of the
weights. The others are Szegedy et al. 2016, https://arxiv.org/abs/1602.07261, section 4 and
table 2 (less the images that the paper leaves out), who train in the same way.

From the authors' code (TensorFlow's `slim` and `inception`), because the papers do not say:
momentum 0.9 within RMSProp, the auxiliary head's weight 0.4, decay 4e-5, 0.9999 for the
average, the strength of the colour changes.

Differs from the papers: one synchronous batch of 256, for which the rate counts; theirs were
50 (and 20) asynchronous ones of 32, so their rate has no exact equivalent. Clipping is not
mentioned in 2016 and stays. How long v4 and Inception-ResNet train is read off the paper's
figures, 160 epochs. Brightness is multiplied, theirs added to.
"""

from ml_collections import ConfigDict

from configs import default

# They have no auxiliary head.
LATER = {"train_for": "160 epochs", "loss.aux_weight": None}
VARIANTS = {
    "inception_v3": {},
    "inception_v4": {"model.name": "inception_v4", **LATER},
    "inception_resnet_v2": {"model.name": "inception_resnet_v2", **LATER},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is a name in `VARIANTS`, "smoke" or "NAME_smoke"."""
    config = default.imagenet()
    config.batch_size = 256
    config.train_for = "100 epochs"

    config.model.name = "inception_v3"
    config.task.arguments = {"label_smoothing": 0.1}
    config.loss.aux_weight = 0.4

    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.5, 0.5, 0.5)
    config.augment.crop = {"scale": (0.05, 1.0), "ratio": (3 / 4, 4 / 3)}
    jitter = {"brightness": 32 / 255, "contrast": 0.5, "saturation": 0.5, "hue": 0.2}
    config.augment.images = (("random_horizontal_flip", {}), ("colour_jitter", jitter))

    config.optimizer.name = "rmsprop_tf"
    config.optimizer.arguments = {"eps": 1.0}
    config.optimizer.learning_rate = 0.045
    config.optimizer.base_batch = 256
    config.optimizer.schedule = "exponential"
    config.optimizer.schedule_arguments = {"factor": 0.94, "every": "2 epochs", "staircase": True}
    config.optimizer.weight_decay = 4e-5
    config.optimizer.clip_norm = 2.0

    config.average.ema_decay = 0.9999
    config.average.ema_warmup = True
    config.best.metric = "val_ema/top1"

    return default.variant(config, variant, smoke_size=96, **VARIANTS)
