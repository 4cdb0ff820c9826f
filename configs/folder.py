"""One's own images, sorted into folders: PATH/train/CLASS/x.jpg and PATH/validation/CLASS/x.jpg.

    python train.py --config=configs/folder.py:/path/to/images --workdir=runs/mine

For one GPU; on a CPU take a smaller model and smaller images, as in
`--config.model.name=mobilenet_v3_small --config.data.image_size=128`. Wall time and accuracy
are those of your images: not measured. Without a path it reads the current folder, and with
`:smoke` it makes three steps on noise (a folder of that name is `./smoke`).

If there is no `validation` folder, a part of the others does, also of class folders alone:

    --config.data.train_split='train[:80%]' --config.data.validation_split='train[80%:]'

With few images, up to some thousands, begin with published weights; how images are prepared
comes with them, and the head is begun anew. The whole network at a tenth of the head's rate:

    --config.model.weights=timm/resnet50.a1_in1k \
        --config.optimizer.groups="(('head/.*', {}), ('.*', {'rate': 0.1}))"

or the head alone, which is the fastest and the safest with a few dozen images per class:

    --config.optimizer.groups="(('head/.*', {}), ('.*', {'frozen': True}))"

`--config.optimizer.layer_decay=0.7` lets the rate fall from stage to stage instead, and
`--config.best.patience="10 epochs"` stops when the validation gets no better. The names of
the parameters are in `python -m zoo describe resnet50`; with `--config.dry_run` one sees what
would train. Batches of 32 and AdamW with a rate of 1e-3 suit most networks here; RMSProp's and
momentum's recipes are in the files of the families.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is the path of the folder, or "smoke"."""
    config = default.get_config()
    config.batch_size = 32
    config.train_for = "30 epochs"

    config.model.name = "resnet50"
    config.task.arguments = {"label_smoothing": 0.1}

    config.data.name = f"folder:{variant or '.'}"
    config.data.test_split = ""
    config.data.max_bad_examples = 10
    config.data.threads = 4
    # Half of the image or more: what is to be told apart is mostly still in it.
    config.augment.crop = {"scale": (0.5, 1.0), "ratio": (3 / 4, 4 / 3)}
    jitter = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
    config.augment.images = (("random_horizontal_flip", {}), ("colour_jitter", jitter))

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = "2 epochs"
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0

    return default.variant(config, "smoke" if variant == "smoke" else "", smoke_size=64)
