"""Every key that exists, with its default. A recipe is a few assignments on top of this.

Durations are strings with a unit: "500 steps", "2.5 epochs", "60000 examples".
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the defaults, locked: a key that is not here is an error."""
    config = ConfigDict()

    config.seed = 0  # keys initial weights, the order of examples and all augmentation
    config.seeds = 1  # trained at once, `seed` and those that follow; mean and deviation count
    config.batch_size = 128  # global: over all devices of all hosts
    config.accumulate = 1  # parts of a batch, one after the other, where memory is short
    config.train_for = "10 epochs"  # the whole run; the schedule ends with it
    config.log_every = "1 epoch"  # means over the steps since the last line
    config.evaluate_every = "1 epoch"  # on the validation split; also saves a checkpoint
    config.max_skipped = 10  # steps in a row that may be undone because they are not finite
    config.dry_run = False  # say what would train and what a step costs, and do nothing
    config.check_gradients = False  # compare them with finite differences, and do nothing
    config.onednn = True  # computes convolutions on x86 CPUs, where zoo[cpu] is installed
    # Where compiled programs are kept for the next start, a folder of yours alone; "": nowhere.
    config.compilation_cache = placeholder(str)  # None: ~/.cache/zoo/xla ($XDG_CACHE_HOME)

    config.model = ConfigDict()
    config.model.name = "lenet5"  # see zoo.list_models()
    config.model.weights = placeholder(str)  # to begin with: file, folder or hub id; None: random
    config.model.num_classes = placeholder(int)  # None: as many as the dataset has
    config.model.dtype = "float32"  # to compute in; or "bfloat16". Weights stay float32
    config.model.arguments = ConfigDict()  # further fields of the model's class

    config.task = ConfigDict()
    config.task.name = "classification"  # or "binary", "multilabel", "regression"
    config.task.arguments = ConfigDict()  # of its class: {"label_smoothing": 0.1}

    config.data = ConfigDict()
    config.data.name = "digits"  # a TFDS name, idx:/path, folder:/path or mock:CLASSES
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
    # Of what augment.crop cuts; evaluation is always exact. "scaled" decodes a JPEG at 1/2, 1/4 or
    # 1/8 where the part is larger than the image wanted by as much (1 of 255 levels off on
    # average); "fast", of zoo[fast], approximates everywhere (likewise), in 0.7 of the time.
    config.data.decoding = "scaled"  # or "exact", "fast"
    config.data.cache = False  # keep the fitted images in memory
    config.data.resident = placeholder(bool)  # on the devices; None: if cached and small
    config.data.features = placeholder(bool)  # keep what the head is given; None: if only it trains
    config.data.max_bad_examples = 0  # undecodable images to pass over before giving up
    config.data.threads = 2  # that load batches, per host
    config.data.prefetch = 2  # batches to load ahead

    # Of training images only; `python -m zoo augment --config=…` shows them.
    config.augment = ConfigDict()
    config.augment.crop = ConfigDict()  # random part while decoding: {"scale": (0.08, 1)}; or none
    config.augment.images = ()  # on the device, in order: (("random_horizontal_flip", {}), …)
    config.augment.mix = ConfigDict()  # {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}; or none

    config.loss = ConfigDict()
    config.loss.aux_weight = placeholder(float)  # of auxiliary heads; None: as in the paper
    config.loss.l1 = 0.0  # times the sum of all kernels' absolute values, added to the loss
    config.loss.l2 = 0.0  # times the sum of their squares, likewise

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # any of optax that takes a learning rate
    config.optimizer.arguments = ConfigDict()  # its further ones: {"momentum": 0.9}
    config.optimizer.learning_rate = 0.1  # the peak
    config.optimizer.base_batch = placeholder(int)  # that rate's; it grows with batch_size
    config.optimizer.schedule = "cosine"  # see zoo/training/schedules.py
    config.optimizer.schedule_arguments = ConfigDict()  # {"boundaries": ("30 epochs", …)}
    config.optimizer.final_fraction = 0.0  # of the peak, where the schedule ends
    config.optimizer.warmup = "0 steps"  # linear, from warmup_fraction of the peak to it
    config.optimizer.warmup_fraction = 0.0  # of the peak, where the warm-up begins
    config.optimizer.plateau = ConfigDict()  # on val/loss: {"factor": 0.1, "patience": 5}; or none
    config.optimizer.weight_decay = 0.0  # of kernels; never of biases and normalisation
    config.optimizer.decay = placeholder(str)  # pattern of what decays (and L1, L2); None: kernels
    config.optimizer.clip_norm = 0.0  # of the whole gradient; 0: no clipping
    config.optimizer.clip_value = 0.0  # of each number in it
    config.optimizer.clip_adaptive = 0.0  # of a unit's gradient by the norm of its weights
    config.optimizer.layer_decay = 1.0  # the rate's factor per stage away from the head
    # Stages for which there is no time stay frozen; with (), all train from the beginning.
    config.optimizer.unfreeze = ()  # when each does, from the last one back: ("5 epochs", …)
    # Frozen is True, or for how long: ("stage1.*", {"frozen": "5 epochs"}).
    config.optimizer.groups = ()  # (("stem.*", {"frozen": True}), ("stage.*", {"rate": 0.1}), …)

    config.average = ConfigDict()  # further sets of weights, evaluated beside the raw ones
    config.average.ema_decay = 0.0  # of an exponential moving average; 0: none
    config.average.ema_warmup = False  # begin with less: (1 + step) / (10 + step)
    config.average.swa_start = ""  # of a plain mean, "75 epochs"; "": none
    config.average.swa_every = "1 epoch"  # what goes into it

    config.best = ConfigDict()  # which weights count as the best, and when to stop early
    config.best.metric = placeholder(str)  # "val_ema/top1", "val/loss", …; None: the task's
    config.best.min_delta = 0.0  # by how much to be better, to count
    config.best.patience = ""  # to go on without a better one, "10 epochs"; "": to the end

    config.parallel = ConfigDict()  # README, "Scaling out"
    config.parallel.mode = "jit"  # one program over all devices; "pmap": one for each of them
    config.parallel.fsdp = 1  # devices that hold one copy of the state between them; "jit" only
    # Over what BatchNorm's statistics are taken: "global", "device", or as in "4 devices".
    config.parallel.batch_norm = placeholder(str)  # None: "global" in jit, "device" in pmap
    config.parallel.simulate_devices = 0  # on one CPU, to try what several do; 0: none
    config.parallel.join_within = 300.0  # seconds for all processes to meet at the start
    config.parallel.heartbeat = 100  # seconds after which a dead process is noticed; 5 or more
    # A run in which nothing advances for so long is ended; 0: no limit, as None is for one process.
    config.parallel.watchdog = placeholder(float)  # seconds; None: 300 if several

    config.checkpoint = ConfigDict()
    config.checkpoint.every = "1 epoch"  # besides the one at each evaluation
    config.checkpoint.keep = 2  # newest ones; the best is kept as well
    config.checkpoint.allow_changes = False  # continue though config or data changed

    return config.lock()


def imagenet() -> ConfigDict:
    """Returns the defaults of a recipe for ImageNet: its data, crops, mirroring and means."""
    config = get_config()
    config.log_every = "100 steps"
    config.data.name = "imagenet2012"
    config.data.validation_split = "validation"
    config.data.test_split = ""
    config.data.crop_fraction = 0.875
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.threads = 16
    config.augment.crop = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
    config.augment.images = (("random_horizontal_flip", {}),)
    return config


def variant(
    config: ConfigDict, name: str, *, smoke_size: int | None = None, **variants: dict
) -> ConfigDict:
    """Returns the recipe changed as the variant of that name says; "" changes nothing.

    Args:
      config: the recipe.
      name: what follows the colon of `--config=configs/x.py:name`.
      smoke_size: with it there are further variants, "smoke" and "NAME_smoke" for each of the
        others: three steps on eight images of noise of this size, to see that all works.
      **variants: dotted keys and their values; a dict takes the place of the whole old one.

    Raises:
      ValueError: for a variant that is not there.
    """
    smoke = {
        "batch_size": 8,
        "train_for": "3 steps",
        "log_every": "1 step",
        "evaluate_every": "3 steps",
        "data.name": "mock:10",
        "data.train_split": "train",
        "data.validation_split": "validation[:16]",
        "data.test_split": "test[:16]",
        "data.image_size": smoke_size,
        "data.cache": False,
        "optimizer.warmup": "1 step",
    }
    names = [name]
    if smoke_size and name not in variants:
        variants["smoke"] = smoke
        names = [name.removesuffix("_smoke"), "smoke"] if name.endswith("_smoke") else [name]
    for part in filter(None, names):
        if part not in variants:
            raise ValueError(f"no variant {part!r}; this recipe has {sorted(variants)}")
        config.update_from_flattened_dict(variants[part])
    return config
