"""Published weights, or your own, fitted to your pictures: a new head, then perhaps the rest.

    python train.py --config=configs/transfer.py:data=/path/to/pictures --workdir=runs/mine

The pictures are in /path/to/pictures/CLASS/x.jpg, of which a fifth is held out to validate, or
in train/CLASS/x.jpg and validation/CLASS/x.jpg. The variant has up to four parts, with a comma
between two: `:data=/path,model=mobilenet_v2,weights=runs/x/weights,train=stages`.

    data      a folder, or what config.data.name takes; by default the current folder
    model     of `python -m zoo list --pretrained`; by default resnet50
    weights   a file, a folder or an id of the hub, as zoo.load takes them; by default the model's
              first of timm's on the hub
    train     head    all else frozen, the averages of BatchNorm too. What the network hands to its
                      head is computed once; an epoch takes moments then, on any CPU
              stages  the head alone for 10 epochs, and then stage by stage from the last one back
                      (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.3)
              all     everything at once, each stage at 0.7 times the rate of the next one (section
                      3.1), on pictures that are cut and mirrored at random

For any CPU with `train=head`, the default; for one GPU otherwise. Start with it: with a few
dozen pictures a class it is hard to beat. Accuracy and wall time on a set of real pictures: see
the README; on yours: not measured. `--config.task.name=binary` with two classes gives one output,
the probability of the second in the order of the alphabet. `--config.dry_run=True` prints what
trains, and from which step on. With `:smoke` it makes three steps on noise, each with a stage
more that trains.
"""

from pathlib import Path
import re

from ml_collections import ConfigDict

from configs import default
from zoo.data.folder import find_split
from zoo.errors import suggest
from zoo.weights.catalogue import published

PARTS = ("data", "model", "weights", "train")
TRAIN = {
    "head": {
        "train_for": "50 epochs",
        # An evaluation, with the checkpoint before it, takes longer than an epoch.
        "log_every": "5 epochs",
        "evaluate_every": "5 epochs",
        "checkpoint.every": "5 epochs",
        "optimizer.learning_rate": 3e-3,
        "optimizer.groups": (("head/.*", {}), (".*", {"frozen": True})),
    },
    "stages": {
        "train_for": "25 epochs",
        "optimizer.learning_rate": 1e-3,
        "optimizer.unfreeze": ("10 epochs", "14 epochs", "18 epochs"),
        "optimizer.layer_decay": 0.7,
    },
    "all": {
        "train_for": "25 epochs",
        "optimizer.learning_rate": 1e-3,
        "optimizer.layer_decay": 0.7,
        "augment.crop": {"scale": (0.5, 1.0), "ratio": (3 / 4, 4 / 3)},
        "augment.images": (("random_horizontal_flip", {}),),
    },
}
VARIANTS = tuple(f"train={name}" for name in TRAIN)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "smoke", or `PARTS` with their values."""
    smoke = variant == "smoke"
    parts = _parts("model=mobilenet_v3_small,train=stages" if smoke else variant)
    config = default.get_config()
    config.batch_size = 32
    config.loss.aux_weight = 0.0  # auxiliary heads are for training from scratch

    config.model.name = parts["model"]
    config.model.weights = None if smoke else parts["weights"] or _weights(parts["model"])

    config.data.name = _data(parts["data"])
    config.data.max_bad_examples = 10
    config.data.threads = 4
    _choose_splits(config.data)

    config.optimizer.name = "adamw"
    config.optimizer.warmup = "1 epoch"
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0

    if parts["train"] not in TRAIN:
        known = ", ".join(TRAIN)
        raise ValueError(f"train={parts['train']!r}: must be one of {known}")
    config.update_from_flattened_dict(TRAIN[parts["train"]])
    if smoke:
        config.optimizer.unfreeze = ("1 step", "2 steps")
    return default.variant(config, "smoke" if smoke else "", smoke_size=64)


def _parts(variant: str) -> dict[str, str]:
    """Returns the value of each part, "data=/a,b,model=x" being two."""
    parts = {"data": ".", "model": "resnet50", "weights": "", "train": "head"}
    for text in filter(None, re.split(r",(?=\w+=)", variant)):
        name, equals, value = text.partition("=")
        if not equals or name not in PARTS:
            raise ValueError(
                f"{text!r}: no such part.{suggest(name, PARTS)} Write, with a comma between two, "
                f"{', '.join(f'{part}=…' for part in PARTS)}; or smoke"
            )
        parts[name] = value
    return parts


def _weights(model: str) -> str:
    """Returns where the hub has weights of a model."""
    on_hub = [row.weights for row in published(model) if row.weights.startswith("timm/")]
    if not on_hub:
        raise ValueError(f"model={model}: the hub has no weights of it; give weights=FILE, …")
    return on_hub[0]


def _data(text: str) -> str:
    """Returns a path as the name of a dataset; other names as they are."""
    is_path = ":" not in text.partition("/")[0] and ("/" in text or Path(text).is_dir())
    return f"folder:{text}" if is_path else text


def _choose_splits(data: ConfigDict) -> None:
    """Holds a fifth of a folder out if it has nothing to validate on, and tests if it can."""
    kind, _, path = data.name.partition(":")
    if kind != "folder":
        return
    root = Path(path)
    if find_split(root, "validation") is None:
        data.train_split, data.validation_split = "train[:80%]", "train[80%:]"
    if find_split(root, "test") is None:
        data.test_split = ""
