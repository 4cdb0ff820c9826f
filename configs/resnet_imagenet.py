"""ResNet on ImageNet: the recipe that all others are compared with, and a modern one.

    python train.py --config=configs/resnet_imagenet.py:resnet101 --workdir=runs/resnet101

For 8 GPUs or TPU cores; `--config.batch_size=1024` raises the rate in proportion,
`--config.model.dtype=bfloat16` is for those that compute faster in it. Wall time and
accuracy: not measured here. Published top-1 on the validation images, single crop, in %:

                                  resnet18     34     50    101    152
    Goyal et al. 2017, table 1                       76.4
    torchvision IMAGENET1K_V1        69.8    73.3   76.1   77.4   78.3
    torchvision IMAGENET1K_V2, `:modern`            80.9   81.9   82.3

and IMAGENET1K_V1 of the wider ones, after 100 epochs: resnext50_32x4d 77.6,
resnext101_32x8d 79.3, wide_resnet50_2 78.5, wide_resnet101_2 78.8.

Without a variant: ResNet-50 as in Goyal et al. 2017, https://arxiv.org/abs/1706.02677,
section 5.1: 90 epochs, rate 0.1 for 256 images, a tenth of it after 30, 60 and 80 epochs,
five epochs of warm-up, decay 1e-4 but not of BatchNorm, crops of 8 to 100 % of the area.
Differs from He et al. 2015, https://arxiv.org/abs/1512.03385, section 3.4: they watch the
validation error instead of the epoch, and crop 224 of 256 to 480 pixels. Differs from Goyal
et al.: momentum is plain and not Nesterov's, which they found to make no difference; no
shift of colours; the warm-up begins at 0 and is there for small batches too; BatchNorm's
statistics are those of the whole batch, theirs of the 32 images of a device; the bias of the
head does not decay.

`:modern` is torchvision's second recipe, for ResNet-50,
https://pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-primitives/:
600 epochs of batches of 1024, rate 0.5 along a cosine, TrivialAugment, random erasing,
label smoothing, mixup or cutmix, decay 2e-5, an average of the weights. Differs from it: no
repeated augmentation, which does not exist here (each image once per epoch, not four
times); it trains and validates at 224 pixels, not at 176 and 224; mixup or cutmix is drawn
for each image, not for each batch; the average takes in every step from the first, not every
32nd after the warm-up; the bias of the head does not decay. Others than ResNet-50 by
`--config.model.name`.
"""

from ml_collections import ConfigDict

from configs import default

MODELS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"),
)
MODERN = {
    "batch_size": 1024,
    "train_for": "600 epochs",
    "task.arguments": {"label_smoothing": 0.1},
    "data.crop_fraction": 224 / 232,
    "augment.images": (
        ("random_horizontal_flip", {}),
        ("trivial_augment_wide", {"fill": 0}),
        # By the mean, which is 0 for the network.
        ("random_erasing", {"probability": 0.1, "ratio": (0.3, 3.3), "fill": (124, 116, 104)}),
    ),
    "augment.mix": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0},
    "optimizer.learning_rate": 0.5,
    "optimizer.base_batch": 1024,
    "optimizer.schedule": "cosine",
    "optimizer.schedule_arguments": {},
    "optimizer.warmup": "5 epochs",
    "optimizer.warmup_fraction": 0.01,
    "optimizer.weight_decay": 2e-5,
    # Theirs, 0.99998 scaled by 1024 * 32 / 600 every 32 steps, for every step.
    "average.ema_decay": 0.999966,
    "best.metric": "val_ema/top1",
}
VARIANTS = {name: {"model.name": name} for name in MODELS} | {"modern": MODERN}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is a name in `VARIANTS`, "smoke" or "NAME_smoke"."""
    config = default.imagenet()
    config.batch_size = 256
    config.train_for = "90 epochs"

    config.model.name = "resnet50"

    config.optimizer.name = "momentum"
    config.optimizer.learning_rate = 0.1
    config.optimizer.base_batch = 256
    config.optimizer.schedule = "step"
    config.optimizer.schedule_arguments = {
        "boundaries": ("30 epochs", "60 epochs", "80 epochs"),
        "factor": 0.1,
    }
    config.optimizer.warmup = "5 epochs"
    config.optimizer.weight_decay = 1e-4

    return default.variant(config, variant, smoke_size=64, **VARIANTS)
