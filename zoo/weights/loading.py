"""Weights from anywhere into our models: `zoo.load`, `zoo.load_weights`, `zoo.preprocessing`."""

from collections.abc import Mapping
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple
import warnings

import numpy as np

from zoo.errors import WeightsError
from zoo.layers import Classifier
from zoo.registry import MODELS, create_model, find_model, registered_name
from zoo.weights.catalogue import find_published, imagenet_classes, published
from zoo.weights.families import LAYOUTS
from zoo.weights.importing import (
    Misfit,
    Report,
    Request,
    best_match,
    fill,
    fits,
    make_report,
    match,
)
from zoo.weights.layouts import Layout, rename
from zoo.weights.preprocessing import IMAGENET_MEAN, Preprocessing, are_names
from zoo.weights.sources import Origin, check_model, find, kind_of, open_tensors
from zoo.weights.tensors import Tensors

OURS = Layout("zoo", lambda model: ())  # its names are the paths in our tree


class Weights(NamedTuple):
    """What `load_weights` returns.

    Attributes:
      model: the module that the weights are for, with the fields that make it the network
        they were trained in (padding, epsilon of BatchNorm).
      variables: {"params": …} and, with BatchNorm, {"batch_stats": …}.
      preprocessing: from an image to the network's input.
      report: what became of every tensor.
    """

    model: Classifier
    variables: Any
    preprocessing: Preprocessing
    report: Report


class Loaded(NamedTuple):
    """What `load` returns."""

    model: Classifier
    variables: Any
    preprocess: Preprocessing


def load(
    name: str,
    weights: str | os.PathLike | None = None,
    *,
    layout: str | None = None,
    channels: int | None = None,
    seed: int = 0,
    **fields: Any,
) -> Loaded:
    """Returns a model, its published weights and the preprocessing that belongs to them.

    Args:
      name: of the model, see `zoo.list_models(pretrained=True)`.
      weights: where from, see `load_weights`; None for the first that the catalogue lists.
      layout: see `load_weights`.
      channels: see `load_weights`.
      seed: see `load_weights`.
      **fields: of the model, see `create_model`.

    Returns:
      (model, variables, preprocess): `model.apply(variables, preprocess(image)[None],
      train=False)` gives logits [1, K].

    Raises:
      WeightsError: see `load_weights`.
      ValueError: for an unknown name or field.
    """
    if weights is None:
        name = registered_name(name)
        rows = published(name)
        if not rows:
            raise WeightsError(f"{name}: no published weights are known; give a file of yours")
        weights = rows[0].weights
    found = load_weights(name, weights, layout=layout, channels=channels, seed=seed, **fields)
    return Loaded(found.model, found.variables, found.preprocessing)


def load_weights(
    name: str,
    source: str | os.PathLike,
    *,
    layout: str | None = None,
    channels: int | None = None,
    seed: int = 0,
    **fields: Any,
) -> Weights:
    """Returns a model filled with weights of torchvision, timm, Keras or ours, and a report.

    Nothing is executed and no pickle is read. What the file declares is checked before
    anything of it is placed: every tensor is used once or reported as unused, every array
    filled once.

    Args:
      name: of the model, see `zoo.list_models`.
      source: a file of safetensors or Keras's (.weights.h5, .h5, .keras), whatever its name;
        a folder with `config.json` and `model.safetensors`, whole or in shards; or a
        repository of the Hugging Face hub, "timm/resnet50.a1_in1k" or, pinned to a commit,
        "timm/resnet50.a1_in1k@COMMIT". For torch's .pth see `python -m zoo convert`.
      layout: whose names the file has, a key of `zoo.weights.families.LAYOUTS[name]`; needed
        only where the names fit several networks and no `config.json` tells.
      channels: of the images, 1 or 3 (any with preprocessing of your own); by default those
        of the file. The first kernel is adapted, see `adapt_channels`.
      seed: of a new head.
      **fields: of the model, see `create_model`. With `num_classes` a head of another size is
        left behind: None leaves the model without one, a number begins a new one.

    Raises:
      WeightsError: for a file that is missing, damaged, hostile or of another network; says
        what to do. Nothing is returned then.
      ValueError: for an unknown name or field.

    Example:
      >>> import jax, tempfile, zoo
      >>> model = zoo.create_model("lenet5", num_classes=10)
      >>> images = jax.numpy.zeros((1, 32, 32, 1))
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> digits = Preprocessing(32, mean=(0.3,), std=(0.4,), class_names=tuple("0123456789"))
      >>> folder = zoo.save_weights(tempfile.mkdtemp(), model, variables, digits)
      >>> zoo.load_weights("lenet5", folder).preprocessing == digits
      True
    """
    name = registered_name(name)
    return load_from(find(name, source), name, layout, channels, seed, fields)


def preprocessing(
    name: str, source: str | os.PathLike, *, layout: str | None = None
) -> Preprocessing:
    """Returns the preprocessing that belongs to weights, without reading the weights.

    Args:
      name: of the model.
      source: see `load_weights`. The catalogue's own are known without their files.
      layout: see `load_weights`; what a bare file of unknown origin is taken for.

    Raises:
      WeightsError: if nothing is there.
    """
    name = registered_name(name)
    row = find_published(os.fspath(source))
    if row is not None and not Path(source).exists():
        check_model(row, name)
        return row.preprocessing
    origin = find(name, source)
    with open_tensors(origin) as tensors:  # so that it is a file of weights
        prepared, notes = _preprocessing(origin, name, next(iter(_layouts(origin, name, layout))))
        for note in notes:
            warnings.warn(f"{origin.label}: {note}", stacklevel=2)
        return _normalised_inside(prepared, tensors)


def load_from(
    origin: Origin,
    name: str,
    layout: str | None,
    channels: int | None,
    seed: int,
    fields: Mapping[str, Any],
) -> Weights:
    """Does what `load_weights` says with weights that were found."""
    if channels is not None and (not isinstance(channels, int) or channels < 1):
        raise ValueError(f"channels={channels!r}: must be a whole number from 1 on")
    wanted = _request(origin, name, fields)
    layouts = _layouts(origin, name, layout)
    with open_tensors(origin) as tensors:
        try:
            matched = best_match(tensors, wanted, layouts, origin.label)
            given = wanted.image_shape[2]
            variables = fill(tensors, matched, wanted, channels or given, seed, origin.label)
        except Misfit as error:
            raise WeightsError(f"{error}{_guess(tensors, name, origin)}") from None
        except (TypeError, ValueError) as error:
            if isinstance(error, WeightsError) or not (origin.config and origin.config.ours):
                raise
            problem = str(error).splitlines()[0]
            raise WeightsError(
                f"{origin.config.path}: its fields make no {name} ({problem}); save it again"
            ) from error
        prepared, notes = _preprocessing(origin, name, matched.key)
        prepared = _normalised_inside(prepared, tensors)
        for note in notes:
            warnings.warn(f"{origin.label}: {note}", stacklevel=3)
        report = make_report(tensors, matched, name, origin.label, (*origin.notes, *notes))
    if not are_names(prepared.class_names, matched.model.num_classes) or report.new:
        prepared = prepared.replace(class_names=None)
    if channels in (1, 3):
        prepared = prepared.with_channels(channels)
    return Weights(matched.model, variables, prepared, report)


def _request(origin: Origin, name: str, fields: Mapping[str, Any]) -> Request:
    """Returns what to look for in the file."""
    image_shape, num_classes = find_model(name).image_shape, create_model(name).num_classes
    config = origin.config
    if config is not None:
        height, width, channels = config.image_shape or image_shape
        image_shape = (height, width, channels) if config.ours else (*image_shape[:2], channels)
        if config.ours or config.num_classes is not None:
            num_classes = config.num_classes
    elif origin.row is not None:
        num_classes = origin.row.num_classes
    create = functools.partial(create_model, name)
    return Request(name, create, fields, num_classes, image_shape)


def _layouts(origin: Origin, name: str, layout: str | None) -> Mapping[str, Layout]:
    """Returns the layouts that the file may have, of what is known without reading it."""
    config, known = origin.config, LAYOUTS.get(name, {})
    if layout is not None:
        if layout not in known:
            raise ValueError(f"layout={layout!r}: {name} has {[*known]}")
        return {layout: known[layout]}
    if config is not None and config.architecture is not None:
        if config.ours:
            found = {config.architecture: {"zoo": OURS._replace(fields=config.fields)}}
        else:
            found = _published_as(config.architecture)
        if name not in found:
            says = f"{config.path} says it is {config.architecture!r}, not {name!r}"
            known_names = [other for other in found if other in MODELS]
            if not known_names:
                raise WeightsError(f"{says}; this zoo has no such network")
            raise WeightsError(f"{says}: load it as {' or '.join(map(repr, known_names))}")
        return found[name]
    if origin.row is not None:
        return {origin.row.layout: known[origin.row.layout]}
    keras = kind_of(origin.files[0]) == "keras"
    return {key: known[key] for key in known if (key == "keras") == keras} | {"zoo": OURS}


def _published_as(architecture: str) -> dict[str, dict[str, Layout]]:
    """Returns our networks and layouts that another framework has under a name."""
    found: dict[str, dict[str, Layout]] = {}
    for ours, layouts in LAYOUTS.items():
        for key, layout in layouts.items():
            if layout.published == architecture and key != "keras":
                found.setdefault(ours, {})[key] = layout
    return found


def _preprocessing(origin: Origin, name: str, key: str) -> tuple[Preprocessing, tuple[str, ...]]:
    """Returns what belongs to the weights, and a note if it had to be assumed."""
    config, row = origin.config, origin.row
    if config is not None and config.preprocessing is not None:
        prepared = config.preprocessing
        if prepared.class_names is None and config.num_classes == 1000 and not config.ours:
            prepared = prepared.replace(class_names=imagenet_classes())
        return prepared, ()
    if row is not None:
        return row.preprocessing, ()
    row = next((row for row in published(name) if row.layout == key), None)
    if row is not None:
        return row.preprocessing, (f"preprocessing and class names taken to be {row.weights}'s",)
    size, _, channels = find_model(name).image_shape
    assumed = Preprocessing(size).with_channels(channels)
    note = f"preprocessing unknown, taken to be {size} pixels and ImageNet's mean and deviation"
    return assumed, (note,)


def _normalised_inside(prepared: Preprocessing, tensors: Tensors) -> Preprocessing:
    """Returns it with the mean and variance that a network of Keras keeps in its file.

    Those of ImageNet are left alone: with its own weights Keras divides by more than the
    deviation in the file, which makes it what the catalogue says.
    """
    if not {"normalization/0", "normalization/1"} <= set(tensors):
        return prepared
    mean, variance = (tensors[f"normalization/{i}"].read().ravel() for i in range(2))
    if np.allclose(mean, IMAGENET_MEAN, atol=1e-3):
        return prepared
    return prepared.replace(mean=tuple(map(float, mean)), std=tuple(map(float, variance**0.5)))


def _guess(tensors: Tensors, name: str, origin: Origin) -> str:
    """Returns which other network of the same class a file is of, if it is one."""
    for other, layouts in LAYOUTS.items():
        if other == name or find_model(other).module is not find_model(name).module:
            continue
        wanted = _request(origin, other, {})
        for key, layout in layouts.items():
            head = rename("head", layout.rules(wanted.create(**layout.fields)))
            if not any(theirs.startswith(head) for theirs in tensors):
                continue  # which is quick, and tracing is not
            if fits(tensors, match(tensors, wanted, key, layout)):
                return f". It is {other!r}: load it as that"
    return ""
