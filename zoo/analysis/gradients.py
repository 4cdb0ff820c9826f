"""How much each pixel has to do with a class: integrated gradients and SmoothGrad."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from zoo.analysis.colours import heat
from zoo.analysis.layers import score
from zoo.analysis.running import track
from zoo.analysis.trained import Trained
from zoo.data.grid import Cell, Row, draw_rows, side_of
from zoo.errors import ConfigError

BASELINES = {"black": 0, "grey": 128, "white": 255}


class Attribution(NamedTuple):
    """What `integrated_gradients` returns.

    Attributes:
      values: float32 [B, S, S, C], of each pixel; they add up to `change`.
      change: float32 [B], the score of the image less that of the baseline.
    """

    values: np.ndarray
    change: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """What is missing from the sum, float32 [B]: more steps make it smaller."""
        return self.change - self.values.sum((1, 2, 3))


def _slope(trained: Trained) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the score of normalised images, [B], and its gradient in them, both compiled."""
    run = functools.partial(trained.model.apply, train=False)

    def scores(variables: Any, x: jax.Array, classes: jax.Array) -> jax.Array:
        return score(run(variables, x), classes)  # pyright: ignore

    def total(x: jax.Array, variables: Any, classes: jax.Array) -> jax.Array:
        return scores(variables, x, classes).sum()

    gradient = jax.grad(total)
    return jax.jit(scores), jax.jit(lambda variables, x, classes: gradient(x, variables, classes))


def integrated_gradients(
    trained: Trained,
    images: np.ndarray,
    classes: np.ndarray,
    *,
    baseline: int = 0,
    steps: int = 50,
) -> Attribution:
    """Returns how much each pixel adds to a class's logit on the way from a baseline.

    Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks",
    https://arxiv.org/abs/1703.01365, equation 1: (x - x') times the mean of the gradients on the
    straight line from x' to x, here at the middle of each of `steps` equal parts (equation 3 has
    their ends).

    Args:
      trained: the model.
      images: uint8 [B, S, S, C].
      classes: int [B].
      baseline: grey level of x', from 0 to 255.
      steps: parts of the line.

    Raises:
      ConfigError: for a baseline or a number of steps that cannot be.
    """
    if not 0 <= baseline <= 255 or steps < 1:
        raise ConfigError(f"baseline={baseline}, steps={steps}: from 0 to 255, and 1 or more")
    scores, slope = _slope(trained)
    normalise, variables, classes = (
        trained.preprocessing.normalise,
        trained.variables,
        np.asarray(classes),
    )
    x, start = normalise(images), normalise(np.full_like(images, baseline))
    total = jnp.zeros_like(x)
    for i in track(range(steps), steps, "integrating", lambda _: 1):
        total += slope(variables, start + (i + 0.5) / steps * (x - start), classes)
    change = scores(variables, x, classes) - scores(variables, start, classes)
    return Attribution(np.asarray((x - start) * total / steps), np.asarray(change))


def smooth_gradients(
    trained: Trained,
    images: np.ndarray,
    classes: np.ndarray,
    *,
    noise: float = 0.15,
    samples: int = 25,
    seed: int = 0,
) -> np.ndarray:
    """Returns the mean of a class's gradients under noise, float32 [B, S, S, C].

    Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise",
    https://arxiv.org/abs/1706.03825, section 3.

    Args:
      trained: the model.
      images: uint8 [B, S, S, C].
      classes: int [B].
      noise: its deviation, a part of each image's range.
      samples: to average; with noise=0 and one sample this is the plain gradient.
      seed: of the noise.

    Raises:
      ConfigError: for noise or a number of samples that cannot be.
    """
    if noise < 0 or samples < 1:
        raise ConfigError(f"noise={noise}, samples={samples}: 0 or more, and 1 or more")
    _, slope = _slope(trained)
    x = trained.preprocessing.normalise(images)
    axes = (1, 2, 3)
    deviation = noise * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))
    total = jnp.zeros_like(x)
    for key in track(
        jax.random.split(jax.random.key(seed), samples), samples, "averaging", lambda _: 1
    ):
        moved = x + deviation * jax.random.normal(key, x.shape)
        total += slope(trained.variables, moved, classes)
    return np.asarray(total / samples)


def draw_gradients(
    images: np.ndarray, values: np.ndarray, texts: Sequence[str], names: Sequence[str]
) -> Image.Image:
    """Returns a picture: a row per image, as the network sees it and what each pixel counts.

    Args:
      images: uint8 [B, S, S, C].
      values: [B, S, S, C]; shown is the size of their sum over channels, up to its 99th
        percentile.
      texts: [B], written below the values.
      names: [B], of the images.
    """
    rows = []
    for image, value, text, name in zip(images, values, texts, names, strict=True):
        size = np.abs(value.sum(-1))
        bright = size / max(np.percentile(size, 99), np.finfo(np.float32).tiny)
        rows.append(Row([Cell(image, name), Cell(heat(bright.clip(0, 1)), text)]))
    return draw_rows(rows, side_of(images.shape[1]))
