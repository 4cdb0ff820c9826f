"""From a configuration to everything a run consists of, checked and not yet started."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.data.crop import Crop, make_crop
from zoo.data.loader import Batch, Examples
from zoo.data.resident import chosen, size_of
from zoo.data.source import Source, Splits, open_splits
from zoo.errors import ConfigError, WeightsError
from zoo.layers import Classifier
from zoo.registry import create_model, find_model
from zoo.tasks.make import make_task
from zoo.tasks.task import Best, Metrics, Task, best_of, figures
from zoo.training import mesh as meshes
from zoo.training.averages import Averages
from zoo.training.config import Config, Plan, make_plan, make_preprocessing, plain
from zoo.training.features import FromFeatures
from zoo.training.hosts import describe_processes
from zoo.training.optimization import Optimization, make_optimization
from zoo.training.parallel import Parallel, make_parallel
from zoo.training.report import versions, warn
from zoo.training.startup import describe_compiler
from zoo.training.state import TrainState, create_state, parameter_count
from zoo.training.steps import Shared, make_steps
from zoo.weights.importing import listed
from zoo.weights.loading import Weights, load_weights
from zoo.weights.preprocessing import Preprocessing
from zoo.weights.repository import CONFIG


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that a run consists of and that training does not change, from one step on."""

    config: Config
    plan: Plan
    splits: Splits
    examples: dict[str, Examples]  # "train", "val", "test": those there are
    resident: bool  # whether the devices hold the data
    seeds: tuple[int, ...]  # of all replicas; see `zoo.training.replicas`
    model: Classifier
    task: Task
    best: Best  # by what evaluations are compared, such as "val/top1"
    preprocessing: Preprocessing
    weights: Weights | None  # to begin with
    optimization: Optimization
    features: FromFeatures | None  # what takes the place of the model, if images are not needed
    parallel: Parallel
    state_like: TrainState  # shapes, types and shardings
    # Jitted, with their shardings; those that return a state donate the one they are given.
    # By default these two are of `config.seed`.
    init: Callable[..., TrainState]
    make_key: Callable[..., jax.Array]
    train_step: Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]
    observe: Callable[[TrainState, Any], TrainState]  # tells the plateau of a loss
    eval_step: Callable[[Any, Batch], Metrics]
    statistics_step: Callable[[Any, Batch, jax.Array], Any]
    make_loss: Callable[[Classifier], Callable[..., Any]]  # of a model; see `step.make_loss`
    feature_step: Callable[[Any, Any], jax.Array] | None  # (variables, pixels), likewise
    start: int  # after which step this begins
    stop: int  # after which step it is another, the first of `later`, or the training ends
    later: "tuple[Setup, ...]" = ()  # the same with more that trains
    alone: "Setup | None" = None  # of one replica, where this is of several

    def at(self, step: int) -> "Setup":
        """Returns the setup of the next step after so many."""
        return next((s for s in (self, *self.later) if step < s.stop), (self, *self.later)[-1])

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """All devices."""
        return self.parallel.mesh

    def describe(self) -> dict[str, dict[str, Any]]:
        """Returns what a person wants to know of the run before it starts."""
        sections: dict[str, dict[str, Any]] = {"run": {}}
        for key, value in plain(self.config).items():
            if value in (None, "", [], {}):
                continue
            section, _, name = key.rpartition(".")
            sections.setdefault(section or "run", {})[name] = value
        plan = dataclasses.asdict(self.plan)
        sections["derived"] = plan | {"steps_per_epoch": f"{self.plan.steps_per_epoch:.4g}"}
        sizes = {name: f"{len(examples):,}" for name, examples in self.examples.items()}
        kind = "targets" if self.examples["train"].target_shape else "classes"
        sections["dataset"] = sizes | {kind: len(self.splits.train.class_names)}
        sections["dataset"]["held_by"] = self._held_by()
        sections["images"] = self._images()
        count = parameter_count((self.alone or self).state_like.params)
        sections["parameters"] = {self.config.model.name: f"{count:,}"}
        for setup in (self, *self.later):
            if setup.optimization.frozen.params is not None:
                when = f"frozen from step {setup.start} on" if setup.start else "frozen"
                sections["parameters"][when] = setup.describe_frozen()
        if self.weights is not None:
            report = self.weights.report
            sections["weights"] = {"from": report.source, "layout": report.layout}
            sections["weights"] |= {"arrays": len(report.used), "new": listed(report.new)}
            sections["weights"]["notes"] = "; ".join(report.notes) or "none"
        sections["devices"] = {
            "count": self.mesh.size,
            "kind": jax.devices()[0].device_kind,
            **describe_processes(self.config),
        }
        sections["compiler"] = describe_compiler()
        sections["versions"] = versions()
        return sections

    def _held_by(self) -> str:
        """Returns in words where the data are."""
        images = "devices" if self.resident else "host"
        if self.features is None:
            return images
        until = f" up to step {self.stop}, then images by the {images}" if self.later else ""
        return f"devices, as what the head is given instead of images{until}"

    def describe_frozen(self) -> str:
        """Returns in words what does not train."""
        frozen, state = self.optimization.frozen, (self.alone or self).state_like
        sizes = [p.size for p in jax.tree.leaves(state.params)]
        still = jax.tree.leaves(frozen.params) or [False] * len(sizes)
        count = sum(size for size, stays in zip(sizes, still, strict=True) if stays)
        kept, averages = sum(jax.tree.leaves(frozen.statistics)), jax.tree.leaves(state.batch_stats)
        return f"{count:,} parameters and {kept} of {len(averages)} averages of BatchNorm"

    def describe_data(self) -> dict[str, Any]:
        """Returns what a checkpoint remembers of the data, as JSON values."""
        named = zip(Splits._fields, self.splits, strict=True)
        prints = {f"{role}_split": s.fingerprint for role, s in named if s is not None}
        names = list(self.splits.train.class_names)
        data = {"class_names": names, **prints, "preprocessing": self._images()}
        together = self.config.batch_size
        if self.state_like.batch_stats:
            together = self.plan.batch_per_device * self.parallel.norm_devices
        return data | {"examples that BatchNorm sees together": together}

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
    parallel = make_parallel(
        config.parallel.mode,
        devices,
        fsdp=config.parallel.fsdp,
        batch_norm=config.parallel.batch_norm,
    )
    mesh = parallel.mesh
    seeds = _seeds(config)
    class_names = splits.train.class_names
    task = _task(config, splits.train)
    outputs = _outputs(config, task, len(class_names))
    model, weights = _model(config, outputs, class_names, begun_with)
    preprocessing = make_preprocessing(
        config, weights and weights.preprocessing, entry.image_shape, class_names, outputs
    )
    size = preprocessing.image_size
    plan = make_plan(
        config,
        num_examples=len(splits.train),
        num_outputs=outputs,
        image_shape=(size, size, len(preprocessing.mean)),
        num_devices=mesh.size,
    )
    given = jax.device_get(weights.variables) if weights else None
    shapes = _shapes(model, given, plan)
    optimization = make_optimization(config, plan, model, shapes)
    averages = Averages(
        config.average.ema_decay, config.average.ema_warmup, plan.swa_start, plan.swa_every
    )

    def init(given: Any, seed: jax.typing.ArrayLike) -> TrainState:
        images = jnp.zeros((1, *plan.image_shape))
        variables = given or model.init(jax.random.key(seed), images, train=False)
        return create_state(
            variables,
            optimization.optimizer,
            with_ema=averages.ema_decay > 0,
            with_swa=averages.swa_start is not None,
        )

    resident = _resident(config, plan, splits)
    everywhere = meshes.replicated(mesh)
    jit = functools.partial(jax.jit, out_shardings=everywhere)
    state_like = jax.eval_shape(init, given, config.seed)
    spread = parallel.spread(state_like)
    start, key_of = jax.jit(init, out_shardings=spread), jit(jax.random.key)
    shared = Shared(config, plan, model, shapes, task, preprocessing, averages, parallel, spread)
    counts = [len(source) for source in splits if source is not None]
    stages = [make_steps(shared, optimization, 0, sum(counts))]
    for step in optimization.thaws:
        later = make_optimization(config, plan, model, shapes, step)
        stages.append(make_steps(shared, later, step, sum(counts)))
    setup = Setup(
        config=config,
        plan=plan,
        splits=splits,
        examples=_examples(config, plan, preprocessing, splits, task, resident=resident),
        resident=resident,
        seeds=seeds,
        model=model,
        task=task,
        best=_best(config, plan, task, averages, validated=splits.validation is not None),
        preprocessing=preprocessing,
        weights=weights,
        parallel=parallel,
        init=lambda seed=config.seed: start(given, np.uint32(seed)),
        make_key=lambda seed=config.seed: key_of(np.uint32(seed)),
        state_like=jax.tree.map(
            lambda array, sharding: jax.ShapeDtypeStruct(
                array.shape, array.dtype, sharding=sharding
            ),
            state_like,
            spread,
        ),
        **stages[0],
    )
    return dataclasses.replace(
        setup, later=tuple(dataclasses.replace(setup, **stage) for stage in stages[1:])
    )


def _seeds(config: Config) -> tuple[int, ...]:
    """Returns the seeds of all replicas, having checked that there can be several."""
    seeds = tuple(range(config.seed, config.seed + config.seeds))
    if len(seeds) == 1:
        return seeds
    asked = f"config.seeds={len(seeds)}"
    if seeds[-1] >= 2**32:
        raise ConfigError(f"{asked}: config.seed={seeds[0]} leaves no room, up to 2**32 - 1")
    if config.model.weights is not None:
        raise ConfigError(
            f"{asked} draws initial weights for each, but config.model.weights="
            f"{config.model.weights!r} gives them; train the seeds one by one"
        )
    if jax.process_count() > 1:
        raise ConfigError(
            f"{asked} trains in one process, and there are {jax.process_count()}; start one, or "
            "train the seeds one by one"
        )
    return seeds


def _resident(config: Config, plan: Plan, splits: Splits) -> bool:
    """Returns whether the devices hold the data."""
    counts = {
        role: len(source)
        for role, source in zip(Splits._fields, splits, strict=True)
        if source is not None
    }
    return chosen(
        config.data.resident,
        size_of(counts, plan.image_shape),
        cached=config.data.cache,
        cropped=bool(config.augment.crop),
        alone=jax.process_count() == 1,
        needed=config.seeds > 1,
    )


def _task(config: Config, train: Source) -> Task:
    """Returns the task; the targets of a regression are called as the data call them."""
    arguments = config.task.arguments.to_dict()
    if config.task.name == "regression" and getattr(train, "target_shape", ()):
        names = tuple(arguments.setdefault("names", train.class_names))
        if names != tuple(train.class_names) and set(names) == set(train.class_names):
            raise ConfigError(
                f"config.task.arguments.names={names!r}: the data have them in the order "
                f"{train.class_names!r}; leave names out"
            )
    try:
        return make_task(config.task.name, arguments)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"config.task: {error}") from error


def _outputs(config: Config, task: Task, data_classes: int) -> int:
    """Returns the size of the head: what the task wants, or more classes if so configured."""
    try:
        wanted = task.outputs(data_classes)
    except ConfigError as error:
        raise ConfigError(f"config.task: {error}") from None
    given = config.model.num_classes
    if given is not None and given < wanted:
        raise ConfigError(
            f"config.model.num_classes={given}, but {config.data.name} has {wanted} "
            "classes; leave it out to take as many as the data have"
        )
    if given not in (None, wanted) and config.task.name != "classification":
        raise ConfigError(
            f"config.model.num_classes={given}, but the task {config.task.name!r} has {wanted} "
            "output(s); leave it out"
        )
    return given or wanted


def _best(config: Config, plan: Plan, task: Task, averages: Averages, *, validated: bool) -> Best:
    """Returns by what evaluations are compared, having checked that there is such a figure."""
    for key, wanted in (
        ("best.metric", config.best.metric),
        ("best.patience", config.best.patience),
        ("optimizer.plateau", config.optimizer.plateau),
    ):
        if wanted and not validated:
            raise ConfigError(
                f"config.{key}={plain(config)[key]!r} goes by the validation split, and there is "
                "none; name one, as in --config.data.validation_split='train[90%:]'"
            )
    if config.best.metric is None:
        return task.best._replace(metric=f"val/{task.best.metric}")
    sets = ["val"]
    sets += ["val_ema"] if averages.ema_decay else []
    sets += ["val_swa"] if averages.swa_start is not None else []
    known = [f"{group}/{name}" for group in sets for name in figures(task, plan.num_outputs)]
    if config.best.metric not in known:
        raise ConfigError(
            f"config.best.metric={config.best.metric!r}: there are {', '.join(known)}"
        )
    group, _, name = config.best.metric.partition("/")
    return best_of(task, name)._replace(metric=f"{group}/{name}")


def _shapes(model: Classifier, given: Any, plan: Plan) -> Any:
    """Returns the shapes of the model's variables, having checked that it takes the images."""
    images = jax.ShapeDtypeStruct((1, *plan.image_shape), jnp.float32)
    try:
        if given is None:
            init = functools.partial(model.init, train=False)
            return jax.eval_shape(init, jax.random.key(0), images)
        jax.eval_shape(functools.partial(model.apply, train=False), given, images)
        return jax.eval_shape(lambda: given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config.model: {error}") from error


def _model(
    config: Config, outputs: int, class_names: Sequence[str], begun_with: Path | None
) -> tuple[Classifier, Weights | None]:
    """Returns the model, and the weights to begin with if the config names some."""
    fields = {
        "num_classes": outputs,
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


def training_crop(config: Config, preprocessing: Preprocessing) -> Crop | None:
    """Returns what cuts training pictures while they are decoded, None for nothing."""
    return make_crop(
        config.augment.crop.to_dict(),
        seed=config.seed,
        size=preprocessing.image_size,
        channels=len(preprocessing.mean),
        interpolation=preprocessing.interpolation,
        decoding=config.data.decoding,
    )


def _examples(
    config: Config,
    plan: Plan,
    preprocessing: Preprocessing,
    splits: Splits,
    task: Task,
    *,
    resident: bool,
) -> dict[str, Examples]:
    def check(targets: np.ndarray, name: str) -> None:
        task.check_targets(targets, plan.num_outputs, name)

    def examples(source: Source, crop: Crop | None = None) -> Examples:
        if tuple(source.class_names) != tuple(splits.train.class_names):
            raise ConfigError(
                f"{config.data.name}: the splits differ in their classes, "
                f"{list(splits.train.class_names)[:5]}… and {list(source.class_names)[:5]}…"
            )
        return Examples(
            source,
            preprocessing.pixels,
            plan.image_shape,
            # What the devices hold is read once. (A crop refuses the cache.)
            cache=config.data.cache and not (resident and crop is None),
            max_bad=config.data.max_bad_examples,
            check=check,
            crop=crop,
        )

    crop = training_crop(config, preprocessing)
    held_out = {"val": splits.validation, "test": splits.test}
    return {
        "train": examples(splits.train, crop),
        **{name: examples(source) for name, source in held_out.items() if source is not None},
    }
