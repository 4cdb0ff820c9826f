"""What the benchmarks time: zoo's own training step, and its inference, on data made up here.

The training step is the one that `train.py` compiles, with all it does beside the mathematics:
pixels are normalised on the device, metrics are summed, a step that is not finite is undone.
Data are noise, and lie on the devices from the beginning.

JAX reads XLA's flags when it starts: whoever wants `XLA_FLAGS` gives them to a new process.
"""

from collections.abc import Callable, Mapping
import dataclasses
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from configs import default
import zoo
from zoo.data.loader import Batch
from zoo.registry import find_model
from zoo.training import mesh as meshes
from zoo.training.setup import Setup, build, open_data
from zoo.training.startup import with_flags
from zoo.training.state import TrainState, parameter_count

DROPPING = ("dropout_rate", "aux_dropout_rate", "drop_path_rate")
RATE = 1e-3  # of learning; so small that noise can be learned from for long


@dataclasses.dataclass(frozen=True)
class Training:
    """A training step and what it takes.

    Attributes:
      setup: all that the run consists of.
      init: makes the first state.
      step: jitted (state, batch, key) -> (state, metrics); it donates the state.
      batch: on the devices, {"image": uint8 [B, H, W, C], "label": int32 [B], …}.
      key: the run's.
      parameters: how many train.
    """

    setup: Setup
    init: Callable[[], TrainState]
    step: Any
    batch: Batch
    key: jax.Array
    parameters: int


@dataclasses.dataclass(frozen=True)
class Inference:
    """A forward pass and what it takes.

    Attributes:
      apply: jitted (variables, images) -> logits [B, classes].
      variables: initial ones; None where `apply` keeps them.
      images: on the device, [B, H, W, C], normal noise.
      parameters: how many the network has before anything is folded.
    """

    apply: Any
    variables: Any
    images: jax.Array
    parameters: int


def xla_flags() -> str:
    """Returns the flags with which zoo's programs start XLA on a CPU."""
    release = tuple(int(number) for number in metadata.version("jaxlib").split(".")[:2])
    return with_flags("", {"cpu"}, release)


def without_dropout(name: str) -> dict[str, float]:
    """Returns the fields that turn off what a model drops at random.

    Example:
      >>> without_dropout("googlenet")
      {'dropout_rate': 0.0, 'aux_dropout_rate': 0.0}
    """
    fields = find_model(name).module.__dataclass_fields__
    return {field: 0.0 for field in DROPPING if field in fields}


def training_config(
    name: str,
    *,
    batch_size: int,
    image_size: int | None = None,
    dtype: str = "float32",
    arguments: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns a configuration that trains a model on noise by SGD with momentum.

    Args:
      name: of the model.
      batch_size: over all devices.
      image_size: height and width; None for what the model was published for.
      dtype: to compute in.
      arguments: further fields of the model.
      changes: dotted keys of configs/default.py and their values, {"parallel.mode": "pmap"}.
    """
    config = default.get_config()
    config.update_from_flattened_dict(
        {
            "batch_size": batch_size,
            "train_for": "1000000 steps",
            "model.name": name,
            "model.dtype": dtype,
            "model.arguments": dict(arguments or {}),
            "data.name": "mock:1000",
            "data.validation_split": "",
            "data.test_split": "",
            "data.image_size": image_size,
            "data.channels": find_model(name).image_shape[2],
            "data.resident": False,
            "optimizer.name": "momentum",
            "optimizer.learning_rate": RATE,
            "optimizer.schedule": "constant",
            "optimizer.schedule_arguments": {},
            **(changes or {}),
        }
    )
    return config


def make_training(config: ConfigDict, *, seed: int = 0) -> Training:
    """Returns the training step of a configuration, compiled when it is first called.

    Args:
      config: see `training_config`.
      seed: of images and labels.

    Raises:
      ConfigError: for what cannot train.
    """
    setup = build(config, open_data(config))
    sharding = meshes.batch_sharding(setup.mesh)
    size: Any = config.batch_size
    batch = make_batch(size, setup.plan.image_shape, setup.plan.num_outputs, seed)
    return Training(
        setup=setup,
        init=setup.init,
        step=setup.train_step,
        batch=jax.device_put(batch, sharding),
        key=setup.make_key(),
        parameters=parameter_count(setup.state_like.params),
    )


def make_batch(
    batch_size: int, image_shape: tuple[int, int, int], classes: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Returns a batch of noise as zoo's loader makes it, on the host."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (batch_size, *image_shape), np.uint8),
        "label": rng.integers(0, classes, batch_size, np.int32),
        "mask": np.ones(batch_size, np.float32),
        "epoch": np.zeros(batch_size, np.int32),
        "index": np.arange(batch_size, dtype=np.int32),
    }


def make_inference(
    name: str,
    *,
    batch_size: int,
    image_size: int | None = None,
    dtype: str = "float32",
    arguments: Mapping[str, Any] | None = None,
    folded: bool = False,
    seed: int = 0,
) -> Inference:
    """Returns a model's forward pass, compiled when it is first called.

    Args:
      name: of the model.
      batch_size: of the images.
      image_size: height and width; None for what the model was published for.
      dtype: of images and of what is computed; weights stay float32.
      arguments: further fields of the model.
      folded: whether it is prepared by `zoo.for_inference`, which folds BatchNorm.
      seed: of weights and images.
    """
    height, width, channels = find_model(name).image_shape
    shape = (batch_size, image_size or height, image_size or width, channels)
    model: Any = zoo.create_model(name, dtype=jnp.dtype(dtype), **(arguments or {}))
    images = jax.random.normal(jax.random.key(seed), shape, jnp.dtype(dtype))
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, *shape[1:])), train=False))
    variables = init(jax.random.key(seed + 1))
    parameters = parameter_count(variables["params"])
    if folded:
        prepared = zoo.for_inference(model, variables)  # which keeps the weights
        return Inference(lambda _, images: prepared(images), None, images, parameters)
    apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
    return Inference(apply, jax.device_put(variables), images, parameters)
