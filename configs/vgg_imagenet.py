"""VGG on ImageNet. Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556, section 3.

    python train.py --config=configs/vgg_imagenet.py:vgg19 --workdir=runs/vgg19

For 4 GPUs with 24 GB each; on one, `--config.accumulate=4`. Wall time: not measured here
(the paper: two to three weeks on four Titan Black). Accuracy: not measured here. Published
top-1 on the validation images, in %:

                  vgg11   vgg13   vgg16   vgg19   vgg11_bn  vgg13_bn  vgg16_bn  vgg19_bn
    paper          70.4    71.3    74.4    74.5
    torchvision    69.0    69.9    71.6    72.4       70.4      71.6      73.4      74.2

The paper's are of whole images (table 3, smallest side 256 for A and B, and 384 after
training at many sizes for D and E); torchvision's (IMAGENET1K_V1) of single crops, after
90 epochs with decay 1e-4 and a tenth of the rate after 30 and 60, and those with BatchNorm
at ten times this rate.

Batches of 256 at rate 0.01, a tenth of it when the validation gets no better, three times;
74 epochs, decay 5e-4, dropout. Without a variant: vgg16 (D). The variants with BatchNorm
train alike. Differs from the paper: no colour shift; deeper networks do not begin with the
weights of A, but at once, as section 3.1 says is possible with a better initialisation; crops
have the sizes that the paper's have (224 of 256 to 512 pixels, for photographs of 4 by 3),
but their area is even, not their side; how long to wait for better is ours, 3 epochs; the
plateau is that of the loss; channels are divided by their deviation; biases do not decay.
"""

from ml_collections import ConfigDict

from configs import default

SIZES = ("vgg11", "vgg13", "vgg16", "vgg19")
VARIANTS = {name: {"model.name": name} for size in SIZES for name in (size, f"{size}_bn")}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is a name in `VARIANTS`, "smoke" or "NAME_smoke"."""
    config = default.imagenet()
    config.batch_size = 256
    config.train_for = "74 epochs"

    config.model.name = "vgg16"

    # Of an image of 4 by 3: (224 / 512) ** 2 * 3 / 4 to (224 / 256) ** 2 * 3 / 4.
    config.augment.crop = {"scale": (0.14, 0.57), "ratio": (1.0, 1.0)}

    config.optimizer.name = "momentum"
    config.optimizer.learning_rate = 0.01
    config.optimizer.base_batch = 256
    config.optimizer.schedule = "constant"
    config.optimizer.plateau = {"factor": 0.1, "patience": 3, "min_scale": 1e-3}
    config.optimizer.weight_decay = 5e-4

    return default.variant(config, variant, smoke_size=64, **VARIANTS)
