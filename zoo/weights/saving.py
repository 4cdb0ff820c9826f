"""Our own weights in the hub's layout: `model.safetensors` and `config.json`."""

from collections.abc import Mapping
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from zoo.errors import WeightsError
from zoo.layers import Classifier
from zoo.registry import identify
from zoo.weights.importing import Shapes, array_shapes, listed
from zoo.weights.layouts import flat
from zoo.weights.preprocessing import Preprocessing, are_names
from zoo.weights.repository import CONFIG, WEIGHTS, config_of
from zoo.weights.safetensors_files import replacing, write_safetensors


def save_weights(
    folder: str | os.PathLike, model: Classifier, variables: Any, preprocessing: Preprocessing
) -> Path:
    """Writes a folder that `zoo.load`, the hub and any reader of safetensors can read.

    Arrays are called by their path, as "params/stem_conv/kernel"; `config.json` has timm's
    keys, and under `zoo` the fields that make the model and the digest of the arrays.

    Args:
      folder: made if need be; what it held of both files is replaced.
      model: of `create_model` or `load`.
      variables: of that model.
      preprocessing: that the weights want, with their class names.

    Returns:
      The folder.

    Raises:
      WeightsError: if the variables are not the model's, or are not finite; nothing is
        written then.
      ValueError: for a field that JSON cannot hold, such as a function.
    """
    folder = Path(folder)
    name, fields = identify(model)
    try:
        json.dumps(fields)
    except TypeError:
        raise ValueError(
            f"{name} has fields that config.json cannot hold: {fields}; save it without, and "
            "give them again to load_weights"
        ) from None
    size, channels = preprocessing.image_size, len(preprocessing.mean)
    image_shape = (size, size, channels)
    arrays = flat(jax.device_get(variables))
    _check(arrays, array_shapes(model, image_shape), name)
    names = preprocessing.class_names
    if names is not None and not are_names(names, model.num_classes):
        raise WeightsError(f"{len(names)} class names for a head of {model.num_classes} classes")

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / WEIGHTS
    write_safetensors(file, {"/".join(path): a for path, a in arrays.items()}, {"format": "np"})
    with file.open("rb") as written:
        sha256 = hashlib.file_digest(written, "sha256").hexdigest()
    config = config_of(
        name,
        fields,
        model.num_classes,
        _features(model, variables, image_shape),
        preprocessing,
        {"version": zoo.__version__, "sha256": sha256},
    )
    with replacing(folder / CONFIG) as file:
        file.write((json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode())
    return folder


def _check(arrays: Mapping[Any, np.ndarray], shapes: Shapes, name: str) -> None:
    """Refuses variables that are not a model's, or that no one could use."""
    ours = {"/".join(path): shape.shape for path, shape in shapes.items()}
    given = {"/".join(path): np.shape(array) for path, array in arrays.items()}
    if ours != given:
        differing = sorted(n for n in {*ours, *given} if ours.get(n) != given.get(n))
        raise WeightsError(f"the variables are not those of this {name}: {listed(differing)}")
    bad = ["/".join(path) for path, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise WeightsError(f"NaN or infinity in {listed(bad)}; not saved")


def _features(model: Classifier, variables: Any, image_shape: tuple[int, ...]) -> int:
    """Returns how many numbers `pre_logits` has."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    method = functools.partial(model.apply, train=False, method="endpoints")
    return jax.eval_shape(method, variables, images)["pre_logits"].shape[-1]
