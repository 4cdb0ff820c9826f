"""What lies in a repository of weights, on the hub or in a folder.

`config.json` says what network the weights are for, and their preprocessing. Its keys are
those that timm writes, at the root or, newer, under `pretrained_cfg`; ours are the same,
with what timm has no word for under `zoo`. The weights are in `model.safetensors`, or in
the shards that an index names.
"""

from collections.abc import Mapping
import dataclasses
import json
from pathlib import Path
import re
from typing import Any

from zoo.errors import WeightsError
from zoo.weights.preprocessing import Preprocessing
from zoo.weights.safetensors_files import open_regular

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

MAX_JSON_BYTES = 16 * 2**20
SHARD = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)

FORMAT = 1  # of what is under `zoo`

# Arguments of timm's constructors that leave the network what it is.
UNCHANGED = {"num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate"}

# What timm calls the ways to fit an image into the square; "pad" is ours.
CROP_MODES = {"center": "crop", "squash": "squash", "pad": "pad"}


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file that somebody else wrote.

    Raises:
      WeightsError: if it is no regular file, is larger than 16 MiB, is not JSON, is nested too
        deep or is no object.
    """
    with open_regular(path) as file:
        text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise WeightsError(
            f"{path} has {path.stat().st_size:,} bytes; at most {MAX_JSON_BYTES:,} are read"
        )
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise WeightsError(f"{path} is nested too deep to be read") from error
    except ValueError as error:  # also of text that is not UTF-8
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must hold an object, has {type(content).__name__}")
    return content


def shards(index: Path, repo: str) -> list[str]:
    """Returns the files that an index names, which are to be next to it."""
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise WeightsError(f"{repo}: {INDEX} has no 'weight_map' from tensors to files")
    for file in files.values():
        if not isinstance(file, str) or not SHARD.fullmatch(file):
            raise WeightsError(
                f"{repo}: {INDEX} names the file {str(file)[:100]!r}; only names of .safetensors "
                f"files next to it are allowed. Do not use this repository"
            )
    return sorted(set(files.values()))


@dataclasses.dataclass(frozen=True)
class Config:
    """What a `config.json` says; None where it says nothing.

    Attributes:
      path: of the file, for messages.
      architecture: the network's name where the file comes from; ours if `ours`.
      num_classes: of the head.
      image_shape: [H, W, C] of the network's input.
      preprocessing: whole, or None if the file has no image size.
      ours: whether `save_weights` wrote it.
      fields: of our model, besides those of its name; {} unless `ours`.
      sha256: of `model.safetensors`, if it is known.
    """

    path: Path
    architecture: str | None
    num_classes: int | None
    image_shape: tuple[int, int, int] | None
    preprocessing: Preprocessing | None
    ours: bool
    fields: Mapping[str, Any]
    sha256: str | None


def read_config(path: Path) -> Config:
    """Returns what a `config.json` says; keys that are not known are passed over.

    Raises:
      WeightsError: if it is no JSON object, or a known key has an impossible value.
    """
    root = read_json(path)
    nested = root.get("pretrained_cfg")
    given = {**root, **nested} if isinstance(nested, dict) else root
    given = {key: value for key, value in given.items() if value is not None}
    ours = root.get("zoo")
    try:
        if ours is not None and ours.get("format") != FORMAT:
            raise ValueError(f"zoo format {ours.get('format')!r}; this zoo reads {FORMAT}")
        num_classes, architecture = given.get("num_classes"), root.get("architecture")
        fields = ours["fields"] if ours else {}
        changed = set(root.get("model_args") or {}) - UNCHANGED
        for key, value, holds in (
            ("num_classes", num_classes, num_classes is None or int(num_classes) > 0),
            ("architecture", architecture, isinstance(architecture, str | None)),
            ("fields", fields, isinstance(fields, dict) and "num_classes" not in fields),
            ("model_args", root.get("model_args"), ours is not None or not changed),
        ):
            if not holds:
                raise ValueError(f"{key} {value!r}")
        return Config(
            path,
            architecture=architecture,
            num_classes=None if num_classes is None else int(num_classes),
            image_shape=_image_shape(given.get("input_size")),
            preprocessing=_preprocessing(given),
            ours=ours is not None,
            fields=with_tuples(fields),
            sha256=ours["sha256"] if ours else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise WeightsError(
            f"{path}: cannot be understood ({error}); correct or remove it"
        ) from error


def _preprocessing(given: Mapping[str, Any]) -> Preprocessing | None:
    """Returns what timm's keys say, None if they do not even give a size."""
    shape = _image_shape(given.get("input_size"))
    if shape is None:
        return None
    test_shape = _image_shape(given.get("test_input_size"))
    mode = given.get("crop_mode", "center")
    if mode not in CROP_MODES:
        raise ValueError(f"crop_mode {mode!r}; known are {sorted(CROP_MODES)}")
    names = given.get("label_names")
    values = {
        "image_size": shape[0],
        "mean": given.get("mean"),
        "std": given.get("std"),
        "interpolation": given.get("interpolation", "bicubic"),  # as timm does
        "crop_fraction": given.get("crop_pct"),
        "fit": CROP_MODES[mode],
        "channel_order": given.get("channel_order"),
        "class_names": tuple(names) if isinstance(names, list) else None,
        "test_image_size": test_shape and test_shape[0],
        "test_crop_fraction": given.get("test_crop_pct"),
    }
    known = {key: with_tuples(value) for key, value in values.items() if value is not None}
    return Preprocessing(**known).with_channels(shape[2])


def _image_shape(size: Any) -> tuple[int, int, int] | None:
    """Returns timm's [C, H, W] as [H, W, C]."""
    if size is None:
        return None
    channels, height, width = map(int, size)
    if height != width:
        raise ValueError(f"input size {height}x{width}; only squares are known")
    return height, width, channels


def config_of(
    name: str,
    fields: Mapping[str, Any],
    num_classes: int | None,
    num_features: int,
    preprocessing: Preprocessing,
    about: Mapping[str, str],
) -> dict[str, Any]:
    """Returns the `config.json` of a model of ours; `read_config` reads it back.

    Args:
      name: as registered.
      fields: of the model, besides those of its name; JSON values.
      num_classes: of its head; None without one.
      num_features: of `pre_logits`.
      preprocessing: of the weights.
      about: the file and what wrote it: `version` of zoo, `sha256` of the arrays.
    """
    p, channels = preprocessing, len(preprocessing.mean)
    modes = {fit: mode for mode, fit in CROP_MODES.items()}
    pretrained = {
        "input_size": [channels, p.image_size, p.image_size],
        "test_input_size": p.test_image_size and [channels, p.test_image_size, p.test_image_size],
        "interpolation": p.interpolation,
        "crop_pct": p.crop_fraction,
        "test_crop_pct": p.test_crop_fraction,
        "crop_mode": modes[p.fit],
        "mean": list(p.mean),
        "std": list(p.std),
        "num_classes": num_classes,
        "channel_order": p.channel_order,
    }
    config = {
        "architecture": name,
        "num_classes": num_classes,
        "num_features": num_features,
        "label_names": p.class_names and list(p.class_names),
        "pretrained_cfg": {key: value for key, value in pretrained.items() if value is not None},
        "zoo": {"format": FORMAT, **about, "fields": dict(fields)},
    }
    return {key: value for key, value in config.items() if value is not None}


def with_tuples(value: Any) -> Any:
    """Returns JSON values with tuples for lists, as fields of a module are."""
    if isinstance(value, list | tuple):
        return tuple(with_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return value
