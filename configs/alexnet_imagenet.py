"""AlexNet on ImageNet: torchvision's network and its training, or those of 2012.

    python train.py --config=configs/alexnet_imagenet.py --workdir=runs/alexnet

For one GPU with 16 GB, and as many CPU cores as there are to decode for it. Wall time and
accuracy: not measured here. Published top-1 on the validation images, single crop:

    ""              56.5 %   torchvision, AlexNet_Weights.IMAGENET1K_V1
    alexnet_2012    59.3 %   Krizhevsky et al. 2012, table 2, one network, mean of 10 crops

Without a variant: 90 epochs of batches of 256, rate 0.01, a tenth of it after 30 and 60
epochs; https://github.com/pytorch/vision/tree/main/references/classification.

`:alexnet_2012` is Krizhevsky, Sutskever and Hinton 2012, section 5,
https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html:
batches of 128, rate 0.01, a tenth of it when the validation gets no better, three times;
pixels on their own scale, less the mean. Differs from the paper: the mean is that of each
channel; no shift along the principal colours; crops are as large as the paper's (227 of 256
pixels of the shorter side, for photographs of 4 by 3) and may lie outside the central
square; how long to wait for better is ours, 3 epochs; the plateau is that of the loss;
weights start as zoo/models/alexnet.py says; biases do not decay.
"""

from ml_collections import ConfigDict

from configs import default

PAPER = {
    "model.name": "alexnet_2012",
    "batch_size": 128,
    "data.crop_fraction": 227 / 256,
    "data.std": (1 / 255, 1 / 255, 1 / 255),
    # Of an image of 4 by 3: (227 / 256) ** 2 * 3 / 4, and always square.
    "augment.crop": {"scale": (0.59, 0.59), "ratio": (1.0, 1.0)},
    "optimizer.base_batch": 128,
    "optimizer.schedule": "constant",
    "optimizer.schedule_arguments": {},
    "optimizer.plateau": {"factor": 0.1, "patience": 3, "min_scale": 1e-3},
    "optimizer.weight_decay": 5e-4,
}
VARIANTS = {"alexnet_2012": PAPER}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or "alexnet_2012", "smoke" or "alexnet_2012_smoke"."""
    config = default.imagenet()
    config.batch_size = 256
    config.train_for = "90 epochs"

    config.model.name = "alexnet"

    config.optimizer.name = "momentum"
    config.optimizer.learning_rate = 0.01
    config.optimizer.base_batch = 256
    config.optimizer.schedule = "step"
    config.optimizer.schedule_arguments = {"boundaries": ("30 epochs", "60 epochs"), "factor": 0.1}
    config.optimizer.weight_decay = 1e-4

    return default.variant(config, variant, smoke_size=64, **VARIANTS)
