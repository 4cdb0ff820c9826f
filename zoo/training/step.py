"""The two compiled functions: one update, and one batch of evaluation."""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.data.loader import Batch
from zoo.tasks.task import Metrics, Task, mixable, total_loss
from zoo.training.accumulation import accumulate
from zoo.training.averages import Averages
from zoo.training.groups import only_this_batch, use_frozen_statistics
from zoo.training.optimizer import Mask, is_kernel
from zoo.training.parallel import Parallel
from zoo.training.state import TrainState

Normalise = Callable[[jax.Array], jax.Array]  # uint8 [B, H, W, C] -> float32
# (batch, key, targets [B, …]) -> uint8 images and targets, changed
Augment = Callable[[Batch, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def augment_key(key: jax.Array) -> jax.Array:
    """Returns what augmentation is keyed by, of a run's key."""
    return jax.random.split(key)[0]


@dataclasses.dataclass(frozen=True)
class Penalty:
    """What is added to the loss for the size of the weights, as Keras counts it.

    Attributes:
      l1: times the sum of absolute values.
      l2: times the sum of squares.
      mask: params -> tree of bool, what counts.
    """

    l1: float = 0.0
    l2: float = 0.0
    mask: Mask = is_kernel

    def __bool__(self) -> bool:
        return bool(self.l1 or self.l2)

    def __call__(self, params: Any) -> jax.Array:
        """Returns l1 sum |w| + l2 sum w^2; float32 []."""

        def one(w: jax.Array, counts: bool) -> jax.Array:
            size = self.l1 * jnp.abs(w).sum() + self.l2 * jnp.square(w).sum()
            return size if counts else jnp.zeros_like(size)

        return jax.tree.reduce(jnp.add, jax.tree.map(one, params, self.mask(params)), jnp.zeros(()))


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What does not train; see `zoo.training.groups`.

    Attributes:
      params: tree of bool like the parameters; None if all train.
      statistics: tree of bool like BatchNorm's averages.
    """

    params: Any = None
    statistics: Any = None

    def without(self, gradient: Any) -> Any:
        """Returns the gradient with 0 for what is frozen, which need not be computed then."""
        if self.params is None:
            return gradient
        return jax.tree.map(lambda g, f: jnp.zeros_like(g) if f else g, gradient, self.params)

    def keep(self, old: Any, new: Any) -> Any:
        """Returns BatchNorm's new averages, the old ones of what is frozen: bit for bit."""
        if self.statistics is None:
            return new
        return jax.tree.map(lambda o, n, f: o if f else n, old, new, self.statistics)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    task: Task,
    normalise: Normalise,
    augment: Augment,
    *,
    mixes: bool = False,
    aux_weight: float = 0.0,
    penalty: Penalty = Penalty(),
    frozen: Frozen = Frozen(),
    parts: int = 1,
    averages: Averages | None = None,
    parallel: Parallel | None = None,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """Returns the pure function `(state, batch, key) -> (state, metrics)`.

    The key is the run's and never changes; what a step draws is keyed by its number, and
    what an example draws by its epoch and index. Written for the whole batch; only the
    gradient is computed as `parallel` says.

    Args:
      model: of the zoo.
      optimizer: optax's.
      task: whose loss is minimised.
      normalise: makes the network's input of pixels.
      augment: changes pixels, and targets where it mixes examples.
      mixes: whether it does; targets then become probabilities first.
      aux_weight: what an auxiliary head's loss counts; 0 for models that have none.
      penalty: logged as "penalty".
      frozen: what does not train.
      parts: in how many the batch is worked off, one after the other.
      averages: of the weights, to keep; None for none.
      parallel: how it is spread over devices; None for one program over the whole batch.
    """
    loss_of = make_loss(
        model, task, normalise, aux_weight=aux_weight, frozen=frozen, numbered=parts > 1
    )
    gradient_of = accumulate(loss_of, parts, parallel.across if parallel else ())
    gradient_of = parallel.map(gradient_of) if parallel else gradient_of

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        targets = batch["label"]
        if mixes:
            targets = mixable(targets, model.num_classes)
        images, targets = augment(batch, augment_key(key), targets)
        examples = {"image": images, "target": targets, "mask": batch["mask"]}
        dropout_key = jax.random.fold_in(jax.random.split(key)[1], state.step)
        gradient, batch_stats, metrics = gradient_of(
            state.params, state.batch_stats, examples, dropout_key
        )
        if penalty:
            value, slope = jax.value_and_grad(penalty)(state.params)
            gradient = jax.tree.map(jnp.add, gradient, slope)
            metrics["penalty"] = (value, jnp.ones(()))
        gradient = frozen.without(gradient)
        batch_stats = frozen.keep(state.batch_stats, batch_stats)
        metrics["grad_norm"] = (optax.tree.norm(gradient), jnp.ones(()))
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema, swa = (averages or Averages()).update(
            state, {"params": params, "batch_stats": batch_stats}
        )
        new = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=ema,
            swa=swa,
        )
        return new, metrics

    return train_step


def make_loss(
    model: nn.Module,
    task: Task,
    normalise: Normalise,
    *,
    aux_weight: float = 0.0,
    frozen: Frozen = Frozen(),
    numbered: bool = False,
) -> Callable[..., tuple[jax.Array, tuple[jax.Array, Any, Metrics]]]:
    """Returns the loss in training mode, as `accumulate` takes it.

    It takes params, batch_stats, examples {"image", "target", "mask"}, their part's number
    and a key for dropout, and returns the sum of the losses and (count, batch_stats, metrics).

    Args:
      model: of the zoo.
      task: whose loss it is.
      normalise: makes the network's input of pixels.
      aux_weight: what an auxiliary head's loss counts; 0 for models that have none.
      frozen: what does not train.
      numbered: whether parts have keys of their own.
    """

    def loss_of(params: Any, batch_stats: Any, examples: Batch, part: jax.Array, key: jax.Array):
        key = jax.random.fold_in(key, part) if numbered else key
        with use_frozen_statistics(frozen.statistics):
            out, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                normalise(examples["image"]),
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
                method="endpoints",
            )
        targets, mask = examples["target"], examples["mask"]
        total, count = total_loss(task, out, targets, mask, aux_weight=aux_weight)
        metrics = task.metrics(out["logits"], targets, mask, train=True)
        if aux_weight and "aux_logits" in out:
            metrics["total_loss"] = (total, count)
        return total, (count, updated.get("batch_stats", {}), metrics)

    return loss_of


def make_eval_step(
    model: nn.Module, task: Task, normalise: Normalise
) -> Callable[[Any, Batch], Metrics]:
    """Returns the pure function `(variables, batch) -> metrics`; nothing is augmented."""

    def eval_step(variables: Any, batch: Batch) -> Metrics:
        logits: Any = model.apply(variables, normalise(batch["image"]), train=False)
        return task.metrics(logits, batch["label"], batch["mask"], train=False)

    return eval_step


def make_statistics_step(
    model: nn.Module, normalise: Normalise, augment: Augment, *, frozen: Frozen = Frozen()
) -> Callable[[Any, Batch, jax.Array], Any]:
    """Returns `(variables, batch, key) -> batch_stats`: BatchNorm's statistics of one batch.

    Their mean over the training data belongs to averaged weights, which no batch was ever
    normalised with (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, section 3.2).
    A frozen BatchNorm keeps its own, with which the others were trained.
    """

    def statistics_step(variables: Any, batch: Batch, key: jax.Array) -> Any:
        images, _ = augment(batch, augment_key(key), mixable(batch["label"], model.num_classes))
        with only_this_batch(), use_frozen_statistics(frozen.statistics):
            _, updated = model.apply(
                variables,
                normalise(images),
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.split(key)[1]},
            )
        return updated["batch_stats"]

    return statistics_step
