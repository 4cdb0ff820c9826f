"""Every key that exists, with its default. A recipe is a few assignments on top of this.

Durations are strings with a unit: "500 steps", "2.5 epochs", "60000 examples".
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the defaults, locked: a key that is not here is an error."""
    config = ConfigDict()

    config.seed = 0  # keys initial weights, the order of examples and all augmentation
    config.batch_size = 128  # global: over all devices of all hosts
    config.train_for = "10 epochs"  # the whole run; the schedule ends with it
    config.log_every = "1 epoch"  # means over the steps since the last line
    config.evaluate_every = "1 epoch"  # on the validation split; also saves a checkpoint
    config.ema_decay = 0.0  # of a second, averaged set of weights; 0 keeps none

    config.model = ConfigDict()
    config.model.name = "lenet5"  # see zoo.list_models()
    config.model.weights = placeholder(str)  # to begin with: file, folder or hub id; None: random
    config.model.num_classes = placeholder(int)  # None: as many as the dataset has
    config.model.dtype = "float32"  # to compute in; or "bfloat16". Weights stay float32
    config.model.arguments = ConfigDict()  # further fields of the model's class

    config.data = ConfigDict()
    config.data.name = "digits"  # a TFDS name, idx:/path or folder:/path
    config.data.data_dir = placeholder(str)  # of TFDS; None: its usual directory
    config.data.train_split = "train"  # slices as in TFDS: "train[:90%]"
    config.data.validation_split = "validation"  # "" for none
    config.data.test_split = "test"  # for the final figure; "" for none
    config.data.image_key = "image"  # the TFDS feature that holds the image
    config.data.label_key = "label"  # the TFDS feature that holds the label
    # How images are prepared. None: as belongs to model.weights; without them as said here.
    config.data.image_size = placeholder(int)  # None: what the model was published for
    config.data.channels = placeholder(int)  # 1 or 3; None: what the model was published for
    config.data.fit = placeholder(str)  # "crop" (None), "squash" or "pad" to the square
    config.data.crop_fraction = placeholder(float)  # of the resized shorter side; None: 1
    config.data.interpolation = placeholder(str)  # "bilinear" (None), "nearest", "bicubic", …
    config.data.mean = placeholder(tuple)  # subtracted, on the scale 0 to 1; None: (0.5,)
    config.data.std = placeholder(tuple)  # divided by, one or one per channel; None: (0.5,)
    config.data.channel_order = placeholder(str)  # "RGB" (None), or "BGR" as Caffe
    config.data.cache = False  # keep the fitted images in memory
    config.data.max_bad_examples = 0  # undecodable images to pass over before giving up
    config.data.threads = 2  # that load batches, per host
    config.data.prefetch = 2  # batches to load ahead

    config.augment = ConfigDict()  # of training images only
    config.augment.shift = 0  # by up to so many pixels in each direction
    config.augment.flip = False  # left to right, every other image

    config.loss = ConfigDict()
    config.loss.label_smoothing = 0.0  # part of the target spread over all classes
    config.loss.l1 = 0.0  # times the sum of all kernels' absolute values, added to the loss
    config.loss.l2 = 0.0  # times the sum of their squares, likewise

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # any of optax that takes a learning rate
    config.optimizer.arguments = ConfigDict()  # its further ones: {"momentum": 0.9}
    config.optimizer.learning_rate = 0.1  # the peak
    config.optimizer.schedule = "cosine"  # or "constant", "linear" (to 0, as cosine)
    config.optimizer.warmup = "0 steps"  # linear, from 0 to the peak
    config.optimizer.weight_decay = 0.0  # of kernels; never of biases and normalisation
    config.optimizer.clip_norm = 0.0  # of the whole gradient; 0: no clipping

    config.checkpoint = ConfigDict()
    config.checkpoint.every = "1 epoch"  # besides the one at each evaluation
    config.checkpoint.keep = 2  # newest ones; the best is kept as well
    config.checkpoint.allow_changes = False  # continue though config or data changed

    return config.lock()


def variant(config: ConfigDict, name: str, **variants: dict) -> ConfigDict:
    """Returns the recipe changed as the variant of that name says; "" changes nothing.

    The name is what follows the colon of `--config=configs/x.py:name`.
    """
    if name and name not in variants:
        raise ValueError(f"no variant {name!r}; this recipe has {sorted(variants)}")
    config.update_from_flattened_dict(variants.get(name, {}))
    return config
