"""From a configuration to everything a run consists of, checked and not yet started."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.data.augment import make_prepare
from zoo.data.loader import Batch, Examples
from zoo.data.source import Source, Splits, open_splits
from zoo.errors import ConfigError
from zoo.images import fit_image
from zoo.registry import create_model, find_model
from zoo.tasks import classification
from zoo.tasks.classification import Metrics
from zoo.training import mesh as meshes
from zoo.training.config import Config, Plan, make_plan, plain
from zoo.training.optimizer import make_optimizer, make_schedule
from zoo.training.report import versions
from zoo.training.state import TrainState, create_state, parameter_count
from zoo.training.step import make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that a run consists of and that training does not change."""

    config: Config
    plan: Plan
    splits: Splits
    examples: dict[str, Examples]  # "train", "val", "test": those there are
    model: nn.Module
    schedule: optax.Schedule
    mesh: jax.sharding.Mesh
    state_like: TrainState  # shapes, types and shardings
    # Jitted, with their shardings; train_step donates its state.
    init: Callable[[], TrainState]
    make_key: Callable[[], jax.Array]
    train_step: Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]
    eval_step: Callable[[Any, Batch], Metrics]

    def describe(self) -> dict[str, dict[str, Any]]:
        """Returns what a person wants to know of the run before it starts."""
        sections: dict[str, dict[str, Any]] = {"run": {}}
        for key, value in plain(self.config).items():
            section, _, name = key.rpartition(".")
            sections.setdefault(section or "run", {})[name] = value
        plan = dataclasses.asdict(self.plan)
        sections["derived"] = plan | {"steps_per_epoch": f"{self.plan.steps_per_epoch:.4g}"}
        sizes = {name: f"{len(examples):,}" for name, examples in self.examples.items()}
        sections["dataset"] = sizes | {"classes": len(self.splits.train.class_names)}
        sections["parameters"] = {
            self.config.model.name: f"{parameter_count(self.state_like.params):,}"
        }
        sections["devices"] = {
            "count": self.mesh.size,
            "kind": jax.devices()[0].device_kind,
            "processes": jax.process_count(),
        }
        sections["versions"] = versions()
        return sections


def describe_data(splits: Splits) -> dict[str, Any]:
    """Returns what a checkpoint remembers of the data: classes and fingerprints."""
    named = zip(Splits._fields, splits, strict=True)
    prints = {f"{role}_split": source.fingerprint for role, source in named if source is not None}
    return {"class_names": list(splits.train.class_names), **prints}


def open_data(config: Config) -> Splits:
    """Opens what `config.data` names."""
    data = config.data
    return open_splits(
        data.name,
        train=data.train_split,
        validation=data.validation_split,
        test=data.test_split,
        data_dir=data.data_dir,
        image_key=data.image_key,
        label_key=data.label_key,
    )


def build(config: Config, splits: Splits, devices: Sequence[meshes.Device] | None = None) -> Setup:
    """Makes model, optimiser and compiled steps; no array exists yet.

    Args:
      config: see configs/default.py.
      splits: the data.
      devices: to train on; all there are by default.

    Raises:
      ConfigError: for a configuration that cannot work with these data and devices.
    """
    try:
        entry = find_model(config.model.name)
    except ValueError as error:
        raise ConfigError(f"config.model.name: {error}") from None
    mesh = meshes.make_mesh(devices)
    plan = make_plan(
        config,
        num_examples=len(splits.train),
        data_classes=len(splits.train.class_names),
        published_shape=entry.image_shape,
        num_devices=mesh.size,
    )
    schedule, optimizer = _schedule_and_optimizer(config, plan)
    try:
        model = create_model(
            config.model.name,
            num_classes=plan.num_classes,
            dtype=jnp.dtype(config.model.dtype),
            **config.model.arguments.to_dict(),
        )

        def init() -> TrainState:
            key = jax.random.key(config.seed)
            return create_state(
                model, optimizer, key, plan.image_shape, with_ema=config.ema_decay > 0
            )

        shapes = jax.eval_shape(init)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config.model: {error}") from error
    prepare = make_prepare(
        mean=config.data.mean,
        std=config.data.std,
        shift=config.augment.shift,
        flip=config.augment.flip,
    )
    metrics_of = functools.partial(
        classification.metrics, label_smoothing=config.loss.label_smoothing
    )
    everywhere, rows = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    train_step = make_train_step(
        model,
        optimizer,
        prepare,
        metrics_of,
        ema_decay=config.ema_decay,
        l1=config.loss.l1,
        l2=config.loss.l2,
    )
    eval_step = make_eval_step(model, prepare, classification.metrics)
    return Setup(
        config=config,
        plan=plan,
        splits=splits,
        examples=_examples(config, plan, splits),
        model=model,
        schedule=schedule,
        mesh=mesh,
        init=jax.jit(init, out_shardings=everywhere),
        make_key=jax.jit(lambda: jax.random.key(config.seed), out_shardings=everywhere),
        train_step=jax.jit(
            train_step,
            in_shardings=(everywhere, rows, everywhere),
            out_shardings=everywhere,
            donate_argnums=0,
        ),
        eval_step=jax.jit(eval_step, in_shardings=(everywhere, rows), out_shardings=everywhere),
        state_like=jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=everywhere), shapes
        ),
    )


def _schedule_and_optimizer(
    config: Config, plan: Plan
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    schedule = make_schedule(
        config.optimizer.schedule,
        learning_rate=config.optimizer.learning_rate,
        total_steps=plan.total_steps,
        warmup_steps=plan.warmup_steps,
    )
    optimizer = make_optimizer(
        config.optimizer.name,
        schedule,
        arguments=config.optimizer.arguments.to_dict(),
        weight_decay=config.optimizer.weight_decay,
        clip_norm=config.optimizer.clip_norm,
    )
    return schedule, optimizer


def _examples(config: Config, plan: Plan, splits: Splits) -> dict[str, Examples]:
    size, _, channels = plan.image_shape
    fitted = functools.partial(
        fit_image,
        size=size,
        channels=channels,
        fit=config.data.fit,
        crop_fraction=config.data.crop_fraction,
        interpolation=config.data.interpolation,
    )

    def examples(source: Source) -> Examples:
        if tuple(source.class_names) != tuple(splits.train.class_names):
            raise ConfigError(
                f"{config.data.name}: the splits differ in their classes, "
                f"{list(splits.train.class_names)[:5]}… and {list(source.class_names)[:5]}…"
            )
        return Examples(
            source,
            fitted,
            plan.image_shape,
            cache=config.data.cache,
            max_bad=config.data.max_bad_examples,
        )

    named = {"train": splits.train, "val": splits.validation, "test": splits.test}
    return {name: examples(source) for name, source in named.items() if source is not None}
