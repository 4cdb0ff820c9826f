"""From a configuration to everything a run consists of, checked and not yet started."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.data.augment import make_prepare
from zoo.data.loader import Batch, Examples
from zoo.data.source import Source, Splits, open_splits
from zoo.errors import ConfigError, WeightsError
from zoo.layers import Classifier
from zoo.registry import create_model, find_model
from zoo.tasks import classification
from zoo.tasks.classification import Metrics
from zoo.training import mesh as meshes
from zoo.training.config import Config, Plan, make_plan, make_preprocessing, plain
from zoo.training.optimizer import make_optimizer, make_schedule
from zoo.training.report import versions, warn
from zoo.training.state import TrainState, create_state, parameter_count
from zoo.training.step import make_eval_step, make_train_step
from zoo.weights.importing import listed
from zoo.weights.loading import Weights, load_weights
from zoo.weights.preprocessing import Preprocessing
from zoo.weights.repository import CONFIG


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that a run consists of and that training does not change."""

    config: Config
    plan: Plan
    splits: Splits
    examples: dict[str, Examples]  # "train", "val", "test": those there are
    model: Classifier
    preprocessing: Preprocessing
    weights: Weights | None  # to begin with
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
        sections["images"] = self._images()
        sections["parameters"] = {
            self.config.model.name: f"{parameter_count(self.state_like.params):,}"
        }
        if self.weights is not None:
            report = self.weights.report
            sections["weights"] = {"from": report.source, "layout": report.layout}
            sections["weights"] |= {"arrays": len(report.used), "new": listed(report.new)}
            sections["weights"]["notes"] = "; ".join(report.notes) or "none"
        sections["devices"] = {
            "count": self.mesh.size,
            "kind": jax.devices()[0].device_kind,
            "processes": jax.process_count(),
        }
        sections["versions"] = versions()
        return sections

    def describe_data(self) -> dict[str, Any]:
        """Returns what a checkpoint remembers of the data, as JSON values."""
        named = zip(Splits._fields, self.splits, strict=True)
        prints = {f"{role}_split": s.fingerprint for role, s in named if s is not None}
        names = list(self.splits.train.class_names)
        return {"class_names": names, **prints, "preprocessing": self._images()}

    def _images(self) -> dict[str, Any]:
        """Returns how images are prepared, as JSON values."""
        values = dataclasses.asdict(self.preprocessing.replace(class_names=None))
        known = {key: value for key, value in values.items() if value is not None}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}


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


def build(
    config: Config,
    splits: Splits,
    devices: Sequence[meshes.Device] | None = None,
    begun_with: Path | None = None,
) -> Setup:
    """Makes model, optimiser and compiled steps; no array of them exists yet.

    Args:
      config: see configs/default.py.
      splits: the data.
      devices: to train on; all there are by default.
      begun_with: folder that may hold the weights that this run began with; they are used
        instead of `config.model.weights`, which may be gone or another by now.

    Raises:
      ConfigError: for a configuration that cannot work with these data and devices.
    """
    try:
        entry = find_model(config.model.name)
    except ValueError as error:
        raise ConfigError(f"config.model.name: {error}") from None
    mesh = meshes.make_mesh(devices)
    class_names = splits.train.class_names
    model, weights = _model(config, class_names, begun_with)
    preprocessing = make_preprocessing(
        config, weights and weights.preprocessing, entry.image_shape, class_names
    )
    size = preprocessing.image_size
    plan = make_plan(
        config,
        num_examples=len(splits.train),
        data_classes=len(class_names),
        image_shape=(size, size, len(preprocessing.mean)),
        num_devices=mesh.size,
    )
    schedule, optimizer = _schedule_and_optimizer(config, plan)

    def images() -> jax.Array:
        return jnp.zeros((1, *plan.image_shape))

    def init(given: Any) -> TrainState:
        variables = given or model.init(jax.random.key(config.seed), images(), train=False)
        return create_state(variables, optimizer, with_ema=config.ema_decay > 0)

    given = jax.device_get(weights.variables) if weights else None
    try:
        shapes = jax.eval_shape(init, given)
        if given:  # which were not traced with images of this size
            jax.eval_shape(lambda: model.apply(given, images(), train=False))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config.model: {error}") from error
    prepare = make_prepare(
        preprocessing.normalise, shift=config.augment.shift, flip=config.augment.flip
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
        examples=_examples(config, plan, preprocessing, splits),
        model=model,
        preprocessing=preprocessing,
        weights=weights,
        schedule=schedule,
        mesh=mesh,
        init=functools.partial(jax.jit(init, out_shardings=everywhere), given),
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


def _model(
    config: Config, class_names: Sequence[str], begun_with: Path | None
) -> tuple[Classifier, Weights | None]:
    """Returns the model, and the weights to begin with if the config names some."""
    fields = {
        "num_classes": config.model.num_classes or len(class_names),
        "dtype": jnp.dtype(config.model.dtype),
        **config.model.arguments.to_dict(),
    }
    try:
        if config.model.weights is None:
            return create_model(config.model.name, **fields), None
        source = config.model.weights
        if begun_with is not None and (begun_with / CONFIG).exists():
            source = begun_with
        weights = load_weights(
            config.model.name,
            source,
            channels=config.data.channels,
            seed=config.seed,
            **fields,
        )
    except WeightsError as error:
        raise ConfigError(f"config.model.weights: {error}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config.model: {error}") from error
    names = weights.preprocessing.class_names
    if names is not None and names != tuple(class_names):
        warn(
            f"the head of {weights.report.source} is kept, as it has as many classes, but they "
            f"are others: {', '.join(names[:3])}, … and {', '.join(class_names[:3])}, …"
        )
    return weights.model, weights


def _examples(
    config: Config, plan: Plan, preprocessing: Preprocessing, splits: Splits
) -> dict[str, Examples]:
    def examples(source: Source) -> Examples:
        if tuple(source.class_names) != tuple(splits.train.class_names):
            raise ConfigError(
                f"{config.data.name}: the splits differ in their classes, "
                f"{list(splits.train.class_names)[:5]}… and {list(source.class_names)[:5]}…"
            )
        return Examples(
            source,
            preprocessing.pixels,
            plan.image_shape,
            cache=config.data.cache,
            max_bad=config.data.max_bad_examples,
        )

    named = {"train": splits.train, "val": splits.validation, "test": splits.test}
    return {name: examples(source) for name, source in named.items() if source is not None}
