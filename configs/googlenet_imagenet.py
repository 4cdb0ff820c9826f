"""GoogLeNet on ImageNet. Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, section 6.

    python train.py --config=configs/googlenet_imagenet.py --workdir=runs/googlenet

For 1 to 8 GPUs with 16 GB. Wall time and accuracy: not measured here. Published top-1 on the
validation images, single crop:

    ""                69.8 %   torchvision, GoogLeNet_Weights.IMAGENET1K_V1 (TensorFlow's)
    googlenet_2014    68.7 %   Caffe's bvlc_googlenet, its quick solver
                      89.9 %   top-5: the paper, table 3

The paper: momentum 0.9, the rate times 0.96 every 8 epochs, crops of 8 to 100 % of the area,
auxiliary heads that count 0.3, an average of the weights in the end. It names neither rate
nor batch nor length; 0.01 for 32 images, 250 epochs and a decay of 2e-4 are those of Caffe's
replication, whose first solver this schedule is,
https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet. Without a variant it trains
the network with BatchNorm.

`:googlenet_2014` is the paper's network with Caffe's quick solver: 60 epochs of batches of
32, a rate that falls with the root of what is left.

Differs from the paper: one synchronous batch, where there were many asynchronous ones; an
exponential average of the weights for an average that is not described; of its photometric
changes only brightness, contrast and saturation; one interpolation, not a random one. Caffe
cuts 224 of 256 squashed pixels, changes nothing else and averages nothing.
"""

from ml_collections import ConfigDict

from configs import default

QUICK = {
    "model.name": "googlenet_2014",
    "batch_size": 32,
    "train_for": "60 epochs",
    "augment.images": (("random_horizontal_flip", {}),),
    "optimizer.schedule": "polynomial",
    "optimizer.schedule_arguments": {"power": 0.5},
    "optimizer.warmup": "0 steps",
    "average.ema_decay": 0.0,
    "best.metric": None,
}
VARIANTS = {"googlenet_2014": QUICK}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or "googlenet_2014", "smoke" or "googlenet_2014_smoke"."""
    config = default.imagenet()
    config.batch_size = 256
    config.train_for = "250 epochs"

    config.model.name = "googlenet"
    config.loss.aux_weight = 0.3

    config.augment.images = (
        ("random_horizontal_flip", {}),
        ("colour_jitter", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}),
    )

    config.optimizer.name = "momentum"
    config.optimizer.learning_rate = 0.01
    config.optimizer.base_batch = 32
    config.optimizer.schedule = "exponential"
    config.optimizer.schedule_arguments = {"factor": 0.96, "every": "8 epochs", "staircase": True}
    config.optimizer.warmup = "5 epochs"
    config.optimizer.weight_decay = 2e-4

    config.average.ema_decay = 0.9999
    config.best.metric = "val_ema/top1"

    return default.variant(config, variant, smoke_size=64, **VARIANTS)
