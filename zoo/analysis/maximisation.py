"""Images that excite a channel or a class most, found by climbing from noise.

Olah, Mordvintsev and Schubert 2017, "Feature visualization",
https://doi.org/10.23915/distill.00007: an image is given by its Fourier coefficients, scaled so
that all frequencies are climbed alike, and before each step it is shifted and scaled a little at
random, so that what only works on exact pixels is not found.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from zoo.analysis.layers import layers_of
from zoo.analysis.running import track
from zoo.analysis.trained import Trained
from zoo.data.grid import Cell, Row, draw_rows, side_of
from zoo.errors import ConfigError

# A square root of the covariance of colours in ImageNet's photographs (rows: red, green, blue;
# columns: brightness, red-blue, green-violet), scaled to a largest column of norm 1. Olah et al.,
# "preconditioning and parameterization".
COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOURS = COLOURS / np.linalg.norm(COLOURS, axis=0).max()

CHUNK = 16  # steps that are compiled as one


def maximise(
    trained: Trained,
    layer: str,
    channels: Sequence[int],
    *,
    steps: int = 256,
    rate: float = 0.05,
    jitter: float = 0.06,
    zoom: float = 0.1,
    total_variation: float = 0.0,
    centre: bool = False,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, S, S, C], one for each channel, and what they make of it, [N].

    What is maximised is the mean of the channel over all positions of the map, of an image
    without jitter and zoom in what is returned; for a class give the layer "logits".

    Args:
      trained: the model.
      layer: see `zoo.analysis.layers.layers_of`.
      channels: of the layer, [N].
      steps: of Adam.
      rate: of Adam.
      jitter: the largest shift in each direction, a part of the side.
      zoom: images are scaled by 1 - zoom to 1 + zoom.
      total_variation: weight of the mean absolute difference of neighbouring pixels (0 to 1).
      centre: maximise the position in the middle of the map alone.
      seed: of the noise to begin with, jitter and zoom.

    Raises:
      ConfigError: for a layer or numbers that cannot be.
    """
    if steps < 1 or rate <= 0 or not 0 <= jitter < 1 or not 0 <= zoom < 1 or total_variation < 0:
        raise ConfigError(
            f"steps={steps}, rate={rate}, jitter={jitter}, zoom={zoom}, "
            f"total_variation={total_variation}: steps from 1 on, a positive rate, jitter and zoom "
            "from 0 to 1, total_variation 0 or more"
        )
    outputs, chosen = layers_of(trained, layer), jnp.asarray(channels)
    to_pixels = _painter(trained.image_shape)
    optimizer = optax.adam(rate)

    def excited(variables: Any, pixels: jax.Array) -> jax.Array:
        x = outputs(variables, _normalise(trained, pixels))[layer]
        if x.ndim == 4:
            middle = x[:, x.shape[1] // 2, x.shape[2] // 2]
            x = middle if centre else x.mean((1, 2))
        return jnp.take_along_axis(x, chosen[:, None], 1)[:, 0]

    def loss(coefficients: jax.Array, variables: Any, key: jax.Array) -> jax.Array:
        pixels = to_pixels(coefficients)
        rough = sum(jnp.abs(jnp.diff(pixels, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
        moved = _moved(pixels, key, jitter, zoom)
        return (total_variation * rough - excited(variables, moved)).sum()

    @jax.jit
    def climb(state: Any, variables: Any, keys: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> Any:
            coefficients, memory = state
            slope = jax.grad(loss)(coefficients, variables, key)
            change, memory = optimizer.update(slope, memory)
            return (optax.apply_updates(coefficients, change), memory), None

        return jax.lax.scan(step, state, keys)[0]

    begin, *keys = jax.random.split(jax.random.key(seed), steps + 1)
    coefficients = _noise(begin, len(chosen), trained.image_shape)
    state = coefficients, optimizer.init(coefficients)
    parts = [jnp.stack(keys[i : i + CHUNK]) for i in range(0, steps, CHUNK)]
    for part in track(parts, steps, "climbing", len):
        state = climb(state, trained.variables, part)
    pixels = to_pixels(state[0])
    reached = jax.jit(excited)(trained.variables, pixels)
    return np.round(np.asarray(pixels) * 255).astype(np.uint8), np.asarray(reached)


def _noise(key: jax.Array, count: int, image_shape: tuple[int, int, int]) -> jax.Array:
    """Returns small coefficients to begin with, float32 [N, 2, H, W // 2 + 1, C]."""
    height, width, channels = image_shape
    return 0.01 * jax.random.normal(key, (count, 2, height, width // 2 + 1, channels))


def _painter(image_shape: tuple[int, int, int]) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from Fourier coefficients to pixels from 0 to 1, [N, H, W, C].

    Amplitudes fall with the frequency, as in photographs; colours vary as they do there.
    """
    height, width, channels = image_shape
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    scale = 1 / np.maximum(frequencies, 1 / max(height, width))
    scale *= math.sqrt(height * width)

    def paint(coefficients: jax.Array) -> jax.Array:
        spectrum = jax.lax.complex(coefficients[:, 0], coefficients[:, 1])
        x = jnp.fft.irfft2(spectrum * scale[..., None], (height, width), axes=(1, 2)) / 4
        if channels == 3:
            x = x @ jnp.asarray(COLOURS.T, x.dtype)
        return jax.nn.sigmoid(x)

    return paint


def _normalise(trained: Trained, pixels: jax.Array) -> jax.Array:
    """Returns the network's input of pixels from 0 to 1."""
    return trained.preprocessing.normalise(pixels * 255)


def _moved(pixels: jax.Array, key: jax.Array, jitter: float, zoom: float) -> jax.Array:
    """Returns images [N, H, W, C] shifted and scaled about their centre, grey behind them."""
    size = jnp.asarray(pixels.shape[1:3], jnp.float32)
    shifting, scaling = jax.random.split(key)
    scale = jnp.exp(jax.random.uniform(scaling, (), minval=-1, maxval=1) * math.log1p(zoom))
    shift = jax.random.uniform(shifting, (2,), minval=-1, maxval=1) * jitter * size
    return 0.5 + jax.image.scale_and_translate(
        pixels - 0.5,
        pixels.shape,
        (1, 2),
        jnp.full(2, scale),
        shift + (1 - scale) * size / 2,
        "linear",
        antialias=False,
    )


def draw_maximised(images: np.ndarray, texts: Sequence[str], columns: int = 3) -> Image.Image:
    """Returns images uint8 [N, S, S, C] in rows, with a text [N] below each."""
    cells = [Cell(image, text) for image, text in zip(images, texts, strict=True)]
    rows = [Row(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return draw_rows(rows, side_of(images.shape[1]))
