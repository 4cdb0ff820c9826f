"""One image on its way through a network: channels of its maps, layer by layer."""

from collections.abc import Mapping

import jax
import numpy as np
from PIL import Image

from zoo.analysis.colours import heat, stretch
from zoo.analysis.layers import layers_of
from zoo.analysis.trained import Trained
from zoo.data.grid import SMALLEST, Cell, Row, draw_rows
from zoo.errors import ConfigError


def feature_maps(
    trained: Trained, image: np.ndarray, channels: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns channels of layers for one image, float32 [H', W', C] by layer.

    Args:
      trained: the model.
      image: uint8 [S, S, C], as `trained.preprocessing.pixels` gives it.
      channels: which ones by layer, see `zoo.analysis.patches.choose_channels`.

    Raises:
      ConfigError: for a layer that the model does not have, or that has no positions.
    """
    run = jax.jit(layers_of(trained, *channels))
    found = run(trained.variables, trained.preprocessing.normalise(image)[None])
    for name, value in found.items():
        if value.ndim != 4:
            raise ConfigError(f"layer {name!r} has no positions to draw: {list(value.shape[1:])}")
    return {name: np.asarray(found[name][0], np.float32)[..., channels[name]] for name in channels}


def draw_feature_maps(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    channels: Mapping[str, np.ndarray],
    side: int = SMALLEST,
) -> Image.Image:
    """Returns a picture: the image, then a row for each layer, each channel from dark to bright.

    Args:
      image: uint8 [S, S, C].
      maps: of `feature_maps`.
      channels: likewise.
      side: of each map in the picture, in pixels.
    """
    rows = [Row([Cell(image)], "the image as the network sees it")]
    for name, values in maps.items():
        bright = heat(stretch(values, (0, 1)))  # [H', W', C, 3]
        cells = [Cell(bright[:, :, i], f"#{c}") for i, c in enumerate(channels[name])]
        shape = "x".join(map(str, values.shape[:2]))
        rows.append(Row(cells, f"{name}, {shape}"))
    return draw_rows(rows, side)
