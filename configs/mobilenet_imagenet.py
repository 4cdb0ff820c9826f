"""MobileNet v1, v2 and v3 on ImageNet, each with its paper's recipe.

    python train.py --config=configs/mobilenet_imagenet.py:v3_large --workdir=runs/v3_large

For 8 GPUs with 24 GB, v3 for 32 TPU cores. Wall time and accuracy: not measured here.
Published top-1 on the validation images, single crop, in %:

                    paper     others
    v1              70.6      70.4 Keras (the authors' weights)
    v1_075          68.4
    v1_050          63.7
    v1_025          50.6
    "", v2          72.0      71.9 torchvision IMAGENET1K_V1, by another recipe
    v2_140          74.7      75.0 the authors' page
    v3_large        75.2      74.0 torchvision IMAGENET1K_V1, by another recipe
    v3_small        67.4      67.7 likewise

v1: Howard et al. 2017, https://arxiv.org/abs/1704.04861, section 3.2: as Inception v3, with
less augmentation, no label smoothing and no decay of depthwise kernels. Differs: one
synchronous batch of 256 for many asynchronous ones; crops of 35 % of the area and more, for
the paper says only that small ones are limited; 100 epochs.

v2: Sandler et al. 2018, https://arxiv.org/abs/1801.04381, section 6.1: RMSProp with momentum,
rate 0.045, decay 4e-5, 16 workers with batches of 96. The paper's 16 workers are asynchronous;
what is here are the numbers of the authors' page, with which 8 GPUs reach 72.0 %: 96 images
each, a rate that grows with them, times 0.98 every 2.5 epochs, label smoothing, an average,
700,000 steps (420 epochs),
https://github.com/tensorflow/models/tree/master/research/slim/nets/mobilenet. The warm-up
is ours, for eight times the rate.

v3: Howard et al. 2019, https://arxiv.org/abs/1905.02244, section 6.1.1: batches of 4096,
RMSProp with momentum, rate 0.1, decay 1e-5, dropout, an average. It falls "at a rate of
0.01 every 3 epochs", which is read as times 0.99; 600 epochs are torchvision's, for the paper
names no length; the warm-up is ours.

All: images as for Inception, with the colour changes of its authors' code; epsilon 1 within
the root for v1 and v2 is that of the authors' code. BatchNorm and biases do not decay.
"""

from ml_collections import ConfigDict

from configs import default

V1 = {
    "batch_size": 256,
    "train_for": "100 epochs",
    "task.arguments": {},
    "augment.crop": {"scale": (0.35, 1.0), "ratio": (3 / 4, 4 / 3)},
    "augment.images": (("random_horizontal_flip", {}),),
    "optimizer.base_batch": 256,
    "optimizer.schedule_arguments": {"factor": 0.94, "every": "2 epochs", "staircase": True},
    "optimizer.warmup": "0 steps",
    "optimizer.decay": "(?!.*depthwise).*kernel",
}
V3 = {
    "batch_size": 4096,
    "train_for": "600 epochs",
    "task.arguments": {},
    "optimizer.arguments": {},
    "optimizer.learning_rate": 0.1,
    "optimizer.base_batch": 4096,
    "optimizer.schedule_arguments": {"factor": 0.99, "every": "3 epochs", "staircase": True},
    "optimizer.weight_decay": 1e-5,
}
VARIANTS = {
    "v1": {"model.name": "mobilenet_v1", **V1},
    "v1_075": {"model.name": "mobilenet_v1_075", **V1},
    "v1_050": {"model.name": "mobilenet_v1_050", **V1},
    "v1_025": {"model.name": "mobilenet_v1_025", **V1},
    "v2": {},
    "v2_140": {"model.name": "mobilenet_v2_140"},
    "v3_large": {"model.name": "mobilenet_v3_large", **V3},
    "v3_small": {"model.name": "mobilenet_v3_small", **V3},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is a name in `VARIANTS`, "smoke" or "NAME_smoke"."""
    config = default.imagenet()
    config.batch_size = 768
    config.train_for = "420 epochs"

    config.model.name = "mobilenet_v2"
    config.task.arguments = {"label_smoothing": 0.1}

    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.5, 0.5, 0.5)
    jitter = {"brightness": 32 / 255, "contrast": 0.5, "saturation": 0.5, "hue": 0.2}
    config.augment.images = (("random_horizontal_flip", {}), ("colour_jitter", jitter))

    config.optimizer.name = "rmsprop_tf"
    config.optimizer.arguments = {"eps": 1.0}
    config.optimizer.learning_rate = 0.045
    config.optimizer.base_batch = 96
    config.optimizer.schedule = "exponential"
    config.optimizer.schedule_arguments = {"factor": 0.98, "every": "2.5 epochs", "staircase": True}
    config.optimizer.warmup = "5 epochs"
    config.optimizer.weight_decay = 4e-5

    config.average.ema_decay = 0.9999
    config.average.ema_warmup = True
    config.best.metric = "val_ema/top1"

    return default.variant(config, variant, smoke_size=64, **VARIANTS)
