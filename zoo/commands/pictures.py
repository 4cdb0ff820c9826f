"""What `python -m zoo inspect` does: computes, draws and writes each kind of picture."""

import argparse
from pathlib import Path
from typing import Any

from zoo.commands.shared import begin, check_counts, check_png, write_png
from zoo.errors import ConfigError

MOST = 64  # rows of a picture, which are computed at once


def _open(arguments: argparse.Namespace) -> Any:
    """Returns the model, after a look at what can be checked without it."""
    check_png(arguments.out)
    check_counts(arguments, "channels", "count", "batch_size")
    from zoo.analysis.trained import open_trained

    begin()
    return open_trained(arguments.model)


def _few(paths: list[str]) -> list[str]:
    """Returns the files of images, if a picture can have a row for each."""
    if not 0 < len(paths) <= MOST:
        raise ConfigError(f"{len(paths)} images: a picture has a row for each; give 1 to {MOST}")
    return paths


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _only(arguments: argparse.Namespace) -> list[int] | None:
    """Returns the channels that are asked for by number."""
    if arguments.only is None:
        return None
    parts = _split(arguments.only)
    if not parts or not all(part.isdigit() for part in parts):
        raise ConfigError(f"--only={arguments.only}: give numbers of channels, as in 3,17,40")
    return [int(part) for part in parts]


def draw_patches(arguments: argparse.Namespace) -> None:
    """Draws the parts of a dataset's images that excite channels most."""
    only, layers = _only(arguments), _split(arguments.layers)
    trained = _open(arguments)
    from zoo.analysis.opening import open_data
    from zoo.analysis.patches import choose_channels, draw_patches, find_patches
    from zoo.analysis.running import examples_of

    channels = choose_channels(trained, layers, arguments.channels, only)
    source = open_data(trained, arguments.data, arguments.split)
    examples = examples_of(trained, source)
    found = find_patches(
        trained, examples, channels, arguments.count, batch_size=arguments.batch_size
    )
    write_png(draw_patches(found, examples), arguments.out, f"patches of {len(source):,} images")


def draw_neighbours(arguments: argparse.Namespace) -> None:
    """Draws images beside those that the network takes to be most like them."""
    trained = _open(arguments)
    from zoo.analysis.features import extract
    from zoo.analysis.neighbour_pictures import draw_neighbours
    from zoo.analysis.neighbours import nearest
    from zoo.analysis.opening import open_data
    from zoo.analysis.running import examples_of
    from zoo.data.files import FilesSource, list_images

    queries = FilesSource(_few(list_images(arguments.images)))
    source = open_data(trained, arguments.data, arguments.split)
    asked, features = (
        extract(trained, s, arguments.layer, pool=True, batch_size=arguments.batch_size)[0]
        for s in (queries, source)
    )
    found = nearest(asked, features, arguments.count)
    picture = draw_neighbours(examples_of(trained, queries), examples_of(trained, source), found)
    write_png(picture, arguments.out, f"the nearest of {len(source):,} images")


def draw_filters(arguments: argparse.Namespace) -> None:
    """Draws the kernels of a layer that sees the image."""
    trained = _open(arguments)
    from zoo.analysis.filters import draw_filters, find_filters

    name, kernels = find_filters(trained, arguments.layer)
    size = "x".join(map(str, kernels.shape[1:]))
    write_png(draw_filters(kernels), arguments.out, f"{len(kernels)} kernels of {name}, {size}")


def draw_maps(arguments: argparse.Namespace) -> None:
    """Draws what layers put out for one image."""
    only = _only(arguments)
    trained = _open(arguments)
    from zoo.analysis.feature_maps import draw_feature_maps, feature_maps
    from zoo.analysis.layers import endpoint_maps
    from zoo.analysis.patches import choose_channels

    layers = _split(arguments.layers) if arguments.layers else endpoint_maps(trained)
    channels = choose_channels(trained, layers, arguments.channels, only)
    image = trained.preprocessing.pixels(arguments.image)
    maps = feature_maps(trained, image, channels)
    write_png(draw_feature_maps(image, maps, channels), arguments.out, ", ".join(maps))


def _ask(arguments: argparse.Namespace, trained: Any) -> tuple[Any, Any, list[str], list[str]]:
    """Returns images as the network sees them, classes to ask about, answers, names of files."""
    import jax
    import numpy as np

    from zoo.analysis.classes import choose_classes, describe_class
    from zoo.analysis.running import logits_of
    from zoo.data.files import list_images

    paths = _few(list_images(arguments.images))
    images = np.stack([trained.preprocessing.pixels(path) for path in paths])
    run = jax.jit(logits_of(trained))
    logits = np.asarray(run(trained.variables, trained.preprocessing.normalise(images)))
    classes = choose_classes(trained, logits, arguments.name)
    answers = [describe_class(trained, *pair) for pair in zip(logits, classes, strict=True)]
    return images, classes, answers, [Path(path).name for path in paths]


def draw_gradcam(arguments: argparse.Namespace) -> None:
    """Draws where in images the model saw a class."""
    trained = _open(arguments)
    from zoo.analysis.gradcam import draw_grad_cam, grad_cam

    images, classes, answers, names = _ask(arguments, trained)
    maps = grad_cam(trained, images, classes, arguments.layer)
    write_png(draw_grad_cam(images, maps, answers, names), arguments.out, "; ".join(answers))


def draw_gradients(arguments: argparse.Namespace) -> None:
    """Draws how much each pixel has to do with a class."""
    trained = _open(arguments)
    from zoo.analysis import gradients

    images, classes, answers, names = _ask(arguments, trained)
    what = "; ".join(answers)
    if arguments.method == "smooth":
        options = {"noise": arguments.noise, "samples": arguments.samples, "seed": arguments.seed}
        values = gradients.smooth_gradients(trained, images, classes, **options)
    else:
        level = gradients.BASELINES[arguments.baseline]
        found = gradients.integrated_gradients(
            trained, images, classes, baseline=level, steps=arguments.steps
        )
        values, worst = found.values, abs(found.gap).max()
        what += f"; pixels add up to the change of the logit within {worst:.2g}"
    write_png(gradients.draw_gradients(images, values, answers, names), arguments.out, what)


def draw_maximise(arguments: argparse.Namespace) -> None:
    """Draws images made to excite channels or classes most."""
    only, names = _only(arguments), _split(arguments.names or "")
    if names and (arguments.layer != "logits" or only is not None):
        raise ConfigError("--class is of the layer logits, and cannot go with --only")
    trained = _open(arguments)
    from zoo.analysis.classes import find_class
    from zoo.analysis.maximisation import draw_maximised, maximise
    from zoo.analysis.patches import choose_channels

    layer = arguments.layer
    only = [find_class(trained, name) for name in names] or only
    chosen = choose_channels(trained, [layer], arguments.channels, only)[layer].tolist()
    options = ("steps", "rate", "jitter", "zoom", "total_variation", "centre", "seed")
    images, reached = maximise(
        trained, layer, chosen, **{name: getattr(arguments, name) for name in options}
    )
    called = [trained.class_names[c] if layer == "logits" else f"#{c}" for c in chosen]
    texts = [f"{name} {value:.3g}" for name, value in zip(called, reached, strict=True)]
    write_png(draw_maximised(images, texts), arguments.out, f"{len(texts)} images for {layer}")
