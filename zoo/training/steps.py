"""The compiled functions of a run: as many sets of them as more begins to train on the way.

What is frozen is known to the compiler, which leaves out what only it would need: gradients,
and moments of BatchNorm. So each time something is frozen no longer, other functions go on
with the same state.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.data.augment import make_augment
from zoo.layers import Classifier
from zoo.registry import registered_name
from zoo.tasks.task import AUX_WEIGHTS, Task
from zoo.training import mesh as meshes
from zoo.training.averages import Averages
from zoo.training.config import Config, Plan
from zoo.training.features import FromFeatures, chosen, from_features
from zoo.training.guard import guard
from zoo.training.optimization import Optimization
from zoo.training.parallel import Parallel
from zoo.training.step import make_eval_step, make_loss, make_statistics_step, make_train_step
from zoo.weights.preprocessing import Preprocessing


class Shared(NamedTuple):
    """What all steps of a run have in common, whatever trains.

    Attributes:
      config: see configs/default.py.
      plan: what follows from it.
      model: of the zoo.
      shapes: of its variables.
      task: whose loss is minimised.
      preprocessing: makes the network's input of images.
      averages: of the weights, to keep.
      parallel: how a batch is spread over devices.
      spread: shardings of the state.
    """

    config: Config
    plan: Plan
    model: Classifier
    shapes: Any
    task: Task
    preprocessing: Preprocessing
    averages: Averages
    parallel: Parallel
    spread: Any


def make_steps(
    shared: Shared, optimization: Optimization, start: int, examples: int
) -> dict[str, Any]:
    """Returns the fields of a `Setup` that depend on what trains.

    Args:
      shared: see there.
      optimization: from `start` on.
      start: after which step these functions go on.
      examples: of all splits together.

    Raises:
      ConfigError: if features are asked for and cannot be had.
    """
    config, plan, model = shared.config, shared.plan, shared.model
    spread, normalise = shared.spread, shared.preprocessing.normalise
    everywhere = meshes.replicated(shared.parallel.mesh)
    rows = meshes.batch_sharding(shared.parallel.mesh)
    jit = functools.partial(jax.jit, out_shardings=everywhere)  # metrics
    change = functools.partial(jax.jit, donate_argnums=0)  # of the state
    augment = make_augment(config.augment.images, config.augment.mix.to_dict(), plan.image_shape)
    features = _features(shared, optimization, start, examples)
    make = {"model": model, "task": shared.task, "normalise": normalise}
    kept = {"aux_weight": _aux_weight(config), "frozen": optimization.frozen}
    seen: dict[str, Any] = make if features is None else make | {"model": features}
    if features is not None:
        seen["normalise"] = _as_it_is
    train_step = make_train_step(
        **seen,
        **kept,
        optimizer=optimization.optimizer,
        augment=augment,
        mixes=bool(config.augment.mix),
        penalty=optimization.penalty,
        parts=config.accumulate,
        averages=shared.averages,
        parallel=shared.parallel,
    )
    return {
        "start": start,
        "stop": min([*optimization.thaws, plan.total_steps]),
        "optimization": optimization,
        "features": features,
        "feature_step": features
        and jax.jit(_feature_step(features, normalise), out_shardings=rows),
        "train_step": change(
            guard(train_step),
            in_shardings=(spread, rows, everywhere),
            out_shardings=(spread, everywhere),
        ),
        "observe": (
            change(lambda state, loss: optimization.observe(state, loss), out_shardings=spread)
            if optimization.plateau
            else optimization.observe
        ),
        "eval_step": jit(make_eval_step(**seen)),
        "statistics_step": jit(
            make_statistics_step(model, normalise, augment, frozen=optimization.frozen)
        ),
        "make_loss": functools.partial(make_loss, task=shared.task, normalise=normalise, **kept),
    }


def _as_it_is(features: jax.Array) -> jax.Array:
    return features


def _feature_step(
    features: FromFeatures, normalise: Callable[[jax.Array], jax.Array]
) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns `(variables, pixels) -> features`, uint8 [B, H, W, C] -> [B, …]."""
    return lambda variables, pixels: features.of_images(variables, normalise(pixels))


def _aux_weight(config: Config) -> float:
    if config.loss.aux_weight is not None:
        return config.loss.aux_weight
    return AUX_WEIGHTS.get(registered_name(config.model.name), 0.0)


def _features(
    shared: Shared, optimization: Optimization, start: int, examples: int
) -> FromFeatures | None:
    """Returns what takes the place of the model where images are not needed, else None."""
    config, shape = shared.config, shared.plan.image_shape
    # Later on more trains, and nobody asks for the same again.
    wanted = None if start and config.data.features else config.data.features
    if wanted is False or (wanted is None and optimization.frozen.params is None):
        return None
    augment = config.augment
    found, why = from_features(
        shared.model,
        shared.shapes,
        optimization.frozen,
        shape,
        augmented=bool(augment.crop or augment.images or augment.mix),
        aux_weight=_aux_weight(config),
    )
    size = 0
    if found is not None:
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        each = jax.eval_shape(found.of_images, shared.shapes, images)
        size = examples * math.prod(each.shape) * each.dtype.itemsize
    # Where each device has a program, dropout is computed around what features are put into.
    one_program = shared.parallel.mode == "jit" and jax.process_count() == 1
    alone = one_program and config.seeds == 1
    return found if chosen(wanted, found, why, alone=alone, size=size) else None
