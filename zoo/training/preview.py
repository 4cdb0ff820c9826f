"""A look at what a configuration's augmentation makes of the data."""

import jax
from PIL import Image

from zoo.data.augment import make_augment
from zoo.data.grid import draw_grid
from zoo.data.loader import Examples, Order
from zoo.errors import ConfigError
from zoo.registry import find_model
from zoo.training.config import Config, make_preprocessing
from zoo.training.setup import open_data, training_crop
from zoo.training.step import augment_key
from zoo.weights.loading import load_weights


def preview(config: Config, split: str, *, step: int, rows: int, columns: int) -> Image.Image:
    """Returns a grid: a row per example, untouched and then in one epoch after the other.

    Args:
      config: see configs/default.py.
      split: "train", "validation" or "test"; only the first is augmented in training.
      step: whose batch is shown.
      rows: how many of its examples.
      columns: one more than epochs.

    Raises:
      ConfigError: for a configuration that cannot work, or a split that it has not.
    """
    source = getattr(open_data(config), split)
    if source is None:
        raise ConfigError(f"--split={split}: this recipe has none")
    weights = None
    if config.model.weights is not None:
        weights = load_weights(
            config.model.name, config.model.weights, channels=config.data.channels
        ).preprocessing
    published = find_model(config.model.name).image_shape
    prepared = make_preprocessing(config, weights, published, source.class_names)
    shape = (prepared.image_size, prepared.image_size, len(prepared.mean))
    bad = config.data.max_bad_examples
    crop = training_crop(config, prepared)
    cache = config.data.cache and crop is not None  # which is refused, as it is in training
    indices, epochs = Order(len(source), config.batch_size, config.seed).at(step)
    return draw_grid(
        Examples(source, prepared.pixels, shape, max_bad=bad),
        Examples(source, prepared.pixels, shape, max_bad=bad, crop=crop, cache=cache),
        make_augment(config.augment.images, config.augment.mix.to_dict(), shape),
        augment_key(jax.random.key(config.seed)),
        indices[:rows],
        columns=columns,
        epoch=int(epochs[0]),
    )
