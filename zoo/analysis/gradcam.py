"""Grad-CAM: where in an image a model saw what speaks for a class.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization", https://arxiv.org/abs/1610.02391, equations 1 and 2:

    alpha_k = mean over positions of dy / dA_k,    map = max(0, sum over k of alpha_k A_k)

with the channels A_k of a layer and the logit y of the class.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from zoo.analysis.colours import overlay
from zoo.analysis.layers import endpoint_maps, layer_shapes, with_slope
from zoo.analysis.trained import Trained
from zoo.data.grid import Cell, Row, draw_rows, side_of
from zoo.errors import ConfigError


def grad_cam(
    trained: Trained, images: np.ndarray, classes: np.ndarray, layer: str | None = None
) -> np.ndarray:
    """Returns what speaks for a class at each position of a map, float32 [B, H', W'], 0 or more.

    Args:
      trained: the model.
      images: uint8 [B, S, S, C], as `trained.preprocessing.pixels` gives them.
      classes: int [B], see `zoo.analysis.classes.choose_classes`.
      layer: see `zoo.analysis.layers.layers_of`; None for the last map.

    Raises:
      ConfigError: for a layer that the model does not have, or that has no positions.
    """
    layer = layer or endpoint_maps(trained)[-1]
    shapes = layer_shapes(trained.model, trained.variables, trained.image_shape, [layer])
    if len(shapes[layer]) != 3:
        raise ConfigError(f"layer {layer!r} has no positions; take a map, such as a strideN")
    slope = with_slope(trained, layer)

    @jax.jit
    def compute(variables, images, classes):
        reached, gradient = slope(variables, trained.preprocessing.normalise(images), classes)
        weights = gradient.mean((1, 2), keepdims=True)
        return jax.nn.relu((weights * reached).sum(-1)).astype(jnp.float32)

    return np.asarray(compute(trained.variables, images, jnp.asarray(classes)))


def enlarge(values: np.ndarray, side: int) -> np.ndarray:
    """Returns a map [H, W] as [side, side], bilinear."""
    pil = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(pil.resize((side, side), Image.Resampling.BILINEAR))


def draw_grad_cam(
    images: np.ndarray, maps: np.ndarray, texts: Sequence[str], names: Sequence[str]
) -> Image.Image:
    """Returns a picture: a row per image, as the network sees it and under its map.

    Args:
      images: uint8 [B, S, S, C].
      maps: [B, H', W'] of `grad_cam`; each is stretched to its own largest value.
      texts: [B], written below the maps.
      names: [B], of the images.
    """
    side = images.shape[1]
    rows = []
    for image, values, text, name in zip(images, maps, texts, names, strict=True):
        warm = enlarge(values / max(values.max(), np.finfo(np.float32).tiny), side)
        rows.append(Row([Cell(image, name), Cell(overlay(image, warm.clip(0, 1)), text)]))
    return draw_rows(rows, side_of(side))
