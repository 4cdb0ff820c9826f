"""EfficientNet, its Lite and its second version on ImageNet.

    python train.py --config=configs/efficientnet_imagenet.py:b3 --workdir=runs/b3

For 32 TPU cores or GPUs that hold 128 images each; on fewer `--config.accumulate=8`, or
`--config.batch_size=1024`, with which the rate falls in proportion. Wall time and accuracy:
not measured here. Published top-1 on the validation images, single crop, in %:

    ""/b0   b1     b2     b3     b4     b5     b6     b7
    77.1    79.1   80.1   81.6   82.9   83.6   84.0   84.3   Tan and Le 2019, table 2
    lite0   lite1  lite2  lite3  lite4
    75.1    76.7   77.6   79.8   81.5                        the authors' page
    v2_s    v2_m   v2_l
    83.9    85.1   85.7                                      Tan and Le 2021, table 7
    randaugment    77.7    torchvision's EfficientNet_B0_Weights.IMAGENET1K_V1, which are timm's
    modern         84.2    torchvision, EfficientNet_V2_S_Weights.IMAGENET1K_V1

b0 to b7: Tan and Le 2019, https://arxiv.org/abs/1905.11946, section 5.2: RMSProp, rate 0.256
times 0.97 every 2.4 epochs, decay 1e-5, AutoAugment, stochastic depth 0.2, dropout from 0.2
to 0.5. From the authors' code, because the paper does not say: the rate is for 4096 images,
350 epochs, 5 of warm-up, epsilon 1e-3, label smoothing 0.1, 0.9999 for the average, images
cut from ones 32 pixels larger. Lite is taken to train alike, for its authors' page
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite) does not
say. `:randaugment` is B0 by timm's recipe: RandAugment, erasing, 450 epochs of batches of 768.

v2_s to v2_l: Tan and Le 2021, https://arxiv.org/abs/2104.00298, section 5.1, with the dropout
and mixup of the last of its stages (table 6) and RandAugment at 10, the end of our scale;
the paper goes on to 15, 20 and 25. `:modern` is torchvision's v2_s,
https://github.com/pytorch/vision/tree/main/references/classification: 600 epochs of batches
of 1024 with plain momentum, a cosine and TrivialAugment.

Differs from the papers: they keep 25,000 training images to choose the best weights by, and
here the validation images do that (`--config.data.train_split='train[25000:]'
--config.data.validation_split='train[:25000]'` is as theirs); v2 grows images and
augmentation in four stages and tests at larger images than it trains with, here both are of
the larger size, from the beginning; stochastic depth, padding and BatchNorm's epsilon are as
zoo/models/efficientnet.py says; BatchNorm's statistics are those of the whole batch; the
average starts with a warm-up. Differs from torchvision's: no repeated augmentation, which
does not exist here; 384 pixels in training as well, not 300; mixup or cutmix is drawn for
each image.
"""

from ml_collections import ConfigDict

from configs import default

SIZES = {
    **{"b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600},
    **{"lite0": 224, "lite1": 240, "lite2": 260, "lite3": 280, "lite4": 300},
}
VARIANTS: dict[str, dict] = {
    name: {"model.name": f"efficientnet_{name}", "data.crop_fraction": size / (size + 32)}
    for name, size in SIZES.items()
}
for name in ("lite0", "lite1", "lite2", "lite3", "lite4"):
    VARIANTS[name] |= {"data.mean": (127 / 255,) * 3, "data.std": (128 / 255,) * 3}

FLIP = ("random_horizontal_flip", {})
MEAN = (124, 116, 104)  # in grey levels; 0 for the network
VARIANTS["randaugment"] = {
    "batch_size": 768,
    "train_for": "450 epochs",
    "augment.images": (
        FLIP,
        ("rand_augment", {"magnitude": 9, "std": 0.5, "probability": 0.5, "fill": MEAN}),
        ("random_erasing", {"probability": 0.2, "noise": True}),
    ),
}
for name, dropout, mixup in (("v2_s", 0.3, 0.0), ("v2_m", 0.4, 0.2), ("v2_l", 0.5, 0.5)):
    VARIANTS[name] = {
        "model.name": f"efficientnet_{name}",
        "model.arguments": {"norm_momentum": 0.99, "dropout_rate": dropout},
        "data.crop_fraction": 1.0,
        "data.mean": (0.5, 0.5, 0.5),
        "data.std": (0.5, 0.5, 0.5),
        "augment.images": (FLIP, ("rand_augment", {"magnitude": 10})),
        "augment.mix": {"mixup_alpha": mixup, "cutmix_alpha": 0.0} if mixup else {},
    }
VARIANTS["modern"] = {
    "batch_size": 1024,
    "train_for": "600 epochs",
    "model.name": "efficientnet_v2_s",
    "data.crop_fraction": 1.0,
    "data.interpolation": "bilinear",
    "augment.images": (
        FLIP,
        ("trivial_augment_wide", {"fill": 0}),
        ("random_erasing", {"probability": 0.1, "ratio": (0.3, 3.3), "fill": MEAN}),
    ),
    "augment.mix": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0},
    "optimizer.name": "momentum",
    "optimizer.learning_rate": 0.5,
    "optimizer.base_batch": 1024,
    "optimizer.schedule": "cosine",
    "optimizer.schedule_arguments": {},
    "optimizer.warmup_fraction": 0.01,
    "optimizer.weight_decay": 2e-5,
    # Theirs, 0.99998 scaled by 1024 * 32 / 600 every 32 steps, for every step.
    "average.ema_decay": 0.999966,
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is a name in `VARIANTS`, "smoke" or "NAME_smoke"."""
    config = default.imagenet()
    config.batch_size = 4096
    config.train_for = "350 epochs"

    config.model.name = "efficientnet_b0"
    config.task.arguments = {"label_smoothing": 0.1}

    config.data.interpolation = "bicubic"
    config.augment.images = (FLIP, ("auto_augment", {"policy": "imagenet"}))

    config.optimizer.name = "rmsprop_tf"
    config.optimizer.learning_rate = 0.256
    config.optimizer.base_batch = 4096
    config.optimizer.schedule = "exponential"
    config.optimizer.schedule_arguments = {"factor": 0.97, "every": "2.4 epochs", "staircase": True}
    config.optimizer.warmup = "5 epochs"
    config.optimizer.weight_decay = 1e-5

    config.average.ema_decay = 0.9999
    config.average.ema_warmup = True
    config.best.metric = "val_ema/top1"

    return default.variant(config, variant, smoke_size=64, **VARIANTS)
