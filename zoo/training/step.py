"""The two compiled functions: one update, and one batch of evaluation."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.data.loader import Batch
from zoo.tasks.classification import Metrics
from zoo.training.optimizer import is_kernel
from zoo.training.state import TrainState

LossAndMetrics = Callable[[jax.Array, jax.Array, jax.Array], Metrics]  # logits, labels, mask


def weight_penalty(params: Any, *, l1: float, l2: float) -> jax.Array:
    """Returns l1 sum |w| + l2 sum w^2 over all kernels, as Keras counts them; float32 []."""
    kernels = [
        p
        for p, counts in zip(
            jax.tree.leaves(params), jax.tree.leaves(is_kernel(params)), strict=True
        )
        if counts
    ]
    return sum((l1 * jnp.abs(w).sum() + l2 * jnp.square(w).sum() for w in kernels), jnp.zeros(()))


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    prepare: Callable[..., jax.Array],
    metrics_of: LossAndMetrics,
    *,
    ema_decay: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
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
      l1: added to the loss for each kernel's absolute values; logged as "penalty".
      l2: likewise, for their squares.
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
            loss = total / jnp.maximum(count, 1)
            if l1 or l2:
                penalty = weight_penalty(params, l1=l1, l2=l2)
                metrics["penalty"] = (penalty, jnp.ones(()))
                loss += penalty
            return loss, (updated.get("batch_stats", {}), metrics)

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
