"""Test-time augmentation: a model looks at several views of an image.

"flip": the image and its mirror image. "five-crops": the corners and the centre of the resized
image, as large as the network's input; "ten-crops": and their mirror images (Krizhevsky et al.
2012, section 4.1). The resized image is the square that preprocessing cuts the centre from,
size / crop_fraction. What is said is the mean of probabilities over views.
"""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.analysis.running import Compute, logits_of
from zoo.analysis.trained import Trained
from zoo.data.loader import Examples
from zoo.data.source import Source
from zoo.errors import ConfigError, suggest
from zoo.images import resized_side

VIEWS = ("flip", "five-crops", "ten-crops")


def make_views(
    trained: Trained, source: Source, views: str, *, max_bad: int = 0
) -> tuple[Examples, Compute]:
    """Returns what `run_over` takes for several views: larger images, logits [B, V, K] of them.

    Args:
      trained: the model.
      source: the data.
      views: one of `VIEWS`.
      max_bad: how many images that cannot be decoded to leave out.

    Raises:
      ConfigError: for other views, or crops where there is no margin to cut them from.
    """
    if views not in VIEWS:
        raise ConfigError(f"views {views!r}: there are {', '.join(VIEWS)}.{suggest(views, VIEWS)}")
    logits, size = logits_of(trained), trained.preprocessing.image_size
    resized, prepared = size, trained.preprocessing
    if views != "flip":
        resized = resized_side(size, prepared.crop_fraction)
        if prepared.fit == "pad" or resized == size:
            raise ConfigError(
                f"views {views!r}: {trained.label} sees whole images (crop_fraction="
                f"{prepared.crop_fraction}, fit={prepared.fit!r}), so that there is nothing to "
                "cut its crops from; take 'flip'"
            )
        prepared = prepared.replace(image_size=resized, crop_fraction=1.0)
    shape = (resized, resized, trained.image_shape[2])
    examples = Examples(source, prepared.pixels, shape, max_bad=max_bad, set_by="max_bad")

    def compute(variables: Any, images: jax.Array) -> jax.Array:
        # One after the other: the network is compiled once, and memory is that of one view.
        each = jax.lax.map(lambda x: logits(variables, x), jnp.stack(views_of(images, views, size)))
        return jnp.moveaxis(each, 0, 1)

    return examples, compute


def views_of(images: jax.Array, views: str, size: int) -> list[jax.Array]:
    """Returns the views [B, size, size, C] of images [B, S, S, C].

    Args:
      images: at least as large as the views.
      views: one of `VIEWS`.
      size: of a view.
    """
    margin = images.shape[1] - size
    places = [(0, 0), (0, margin), (margin, 0), (margin, margin), (round(margin / 2),) * 2]
    if views == "flip":
        places = [(0, 0)]
    crops = [images[:, top : top + size, left : left + size] for top, left in places]
    return crops if views == "five-crops" else crops + [crop[:, :, ::-1] for crop in crops]
