"""The two compiled functions: one update, and one batch of evaluation."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.data.loader import Batch
from zoo.tasks.classification import Metrics
from zoo.training.state import TrainState

LossAndMetrics = Callable[[jax.Array, jax.Array, jax.Array], Metrics]  # logits, labels, mask


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    prepare: Callable[..., jax.Array],
    metrics_of: LossAndMetrics,
    *,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """Returns the pure function `(state, batch, key) -> (state, metrics)`.

    The key is the run's and never changes; what a step draws is keyed by its number, and
    what an example draws by its epoch and index. Written for the whole batch: under `jit`
    with a sharded batch, means and BatchNorm's statistics are those of all devices.

    Args:
      model: a linen module of the zoo.
      optimizer: optax's.
      prepare: makes the network's input of a batch and a key.
      metrics_of: masked sums and counts of logits, labels, mask; has "loss".
      ema_decay: of the averaged weights; 0 keeps none.
    """

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = jax.random.split(key)
        images = prepare(batch, augment_key)
        rngs = {"dropout": jax.random.fold_in(dropout_key, state.step)}

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, updated = model.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs=rngs
            )
            metrics = metrics_of(logits, batch["label"], batch["mask"])
            total, count = metrics["loss"]
            return total / jnp.maximum(count, 1), (updated.get("batch_stats", {}), metrics)

        gradient, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay:
            new = {"params": params, "batch_stats": batch_stats}
            ema = optax.incremental_update(new, ema, 1 - ema_decay)
        metrics["grad_norm"] = (optax.tree.norm(gradient), jnp.ones(()))
        state = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
        return state, metrics

    return train_step


def make_eval_step(
    model: nn.Module, prepare: Callable[..., jax.Array], metrics_of: LossAndMetrics
) -> Callable[[Any, Batch], Metrics]:
    """Returns the pure function `(variables, batch) -> metrics`; nothing is augmented."""

    def eval_step(variables: Any, batch: Batch) -> Metrics:
        logits: Any = model.apply(variables, prepare(batch), train=False)
        return metrics_of(logits, batch["label"], batch["mask"])

    return eval_step
