"""Small trained models with random weights, made without compiling anything."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from zoo.analysis.trained import Trained
from zoo.tasks.make import make_task
from zoo.weights.preprocessing import Preprocessing


def random_variables(model: Any, shape: tuple[int, ...], *, positive: bool = False) -> Any:
    """Returns random weights; scales and variances are positive, or all of them."""
    init = functools.partial(model.init, train=False)
    images = jnp.zeros((1, *shape))
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        kind = path[-1].key
        if positive or kind in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        size = np.sqrt(2 / max(np.prod(leaf.shape[:-1]), 1)) if kind == "kernel" else 0.1
        return (rng.normal(size=leaf.shape) * size).astype(np.float32)

    shapes = jax.eval_shape(init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, dict(shapes))


def make_trained(name: str, size: int, channels: int, **fields: Any) -> Trained:
    """Returns a model with random weights and ten classes a to j."""
    model = zoo.create_model(name, num_classes=10, **fields)
    names = tuple("abcdefghij")
    prepared = Preprocessing(
        size, (0.5,) * channels, (0.5,) * channels, crop_fraction=1.0, class_names=names
    )
    variables = random_variables(model, (size, size, channels))
    task = make_task("classification", {})
    return Trained(name, model, variables, prepared, task, names, None, {})
