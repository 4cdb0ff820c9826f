"""ResNet-20 to -110 on CIFAR-10. He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2.

    python train.py --config=configs/resnet_cifar10.py:resnet56 --workdir=runs/resnet56

For one GPU of any size. Wall time and accuracy: not measured here (CIFAR-10 was not to be
had). The paper's top-1 on the 10,000 test images (table 6), in %:

    resnet20   resnet32   resnet44   resnet56   resnet110
       91.25      92.49      92.83      93.03       93.57   (the best of five; mean 93.39)

64,000 steps of batches of 128, rate 0.1, a tenth of it after 32,000 and 48,000, decay 1e-4;
images padded by 4 pixels, cut and flipped. Without a variant: ResNet-20. As the paper
describes it, 45,000 images train and 5,000 validate;
`--config.data.train_split=train --config.data.validation_split=''` trains on all 50,000.

Differs from the paper: the mean of each channel is subtracted, not of each pixel, and the
channels are divided by their deviation; it tests the weights that did best on the validation
images, not the last ones; ResNet-110 starts with a rate that grows from a tenth over 400
steps, where the paper's stays at 0.01 until the training error falls below 80 %, which it
says takes about 400 steps; BatchNorm and biases do not decay.
"""

from ml_collections import ConfigDict

from configs import default

VARIANTS: dict[str, dict] = {
    name: {"model.name": name} for name in ("resnet20", "resnet32", "resnet44", "resnet56")
}
VARIANTS["resnet110"] = {
    "model.name": "resnet110",
    "optimizer.warmup": "400 steps",
    "optimizer.warmup_fraction": 0.1,
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is a name in `VARIANTS`, "smoke" or "NAME_smoke"."""
    config = default.get_config()
    config.batch_size = 128
    config.train_for = "64000 steps"

    config.model.name = "resnet20"

    config.data.name = "cifar10"
    config.data.train_split = "train[:45000]"
    config.data.validation_split = "train[45000:]"
    config.data.mean = (0.4914, 0.4822, 0.4465)  # of the training images
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.data.cache = True
    config.augment.images = (
        ("random_padding_crop", {"padding": 4}),
        ("random_horizontal_flip", {}),
    )

    config.optimizer.name = "momentum"
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "step"
    config.optimizer.schedule_arguments = {"boundaries": (32_000, 48_000), "factor": 0.1}
    config.optimizer.weight_decay = 1e-4

    return default.variant(config, variant, smoke_size=32, **VARIANTS)
