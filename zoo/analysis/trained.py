"""A trained model, from wherever it is: a workdir, one of its checkpoints, weights of others."""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import ConfigError, WeightsError
from zoo.layers import Classifier
from zoo.registry import create_model, registered_name
from zoo.tasks.make import make_task
from zoo.tasks.task import Task
from zoo.training.checkpoint import Checkpoints, Damaged
from zoo.weights.catalogue import find_published
from zoo.weights.loading import load_weights
from zoo.weights.preprocessing import Preprocessing
from zoo.weights.repository import CONFIG, read_config, with_tuples

HOW = (
    "give a workdir of train.py (runs/x), one of its checkpoints (runs/x@1200), a folder of "
    "weights (runs/x/weights_ema), or MODEL=WEIGHTS for others' (resnet50=timm/resnet50.a1_in1k)"
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model, its weights and all that belongs to them.

    Attributes:
      label: where it comes from, for messages.
      model: the module.
      variables: of the model.
      preprocessing: from an image to the network's input.
      task: what its outputs are.
      class_names: one for each output, or of the two classes of a binary task; "0", "1", …
        where they are not known.
      workdir: of the run that it comes from; None for weights of others.
      config: the flat configuration of that run; {} for weights of others.
    """

    label: str
    model: Classifier
    variables: Any
    preprocessing: Preprocessing
    task: Task
    class_names: tuple[str, ...]
    workdir: Path | None
    config: Mapping[str, Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[S, S, C] of the network's input."""
        return _image_shape(self.preprocessing)

    @property
    def data_name(self) -> str | None:
        """What the run calls its data, `config.data.name`; None for weights of others."""
        return self.config["data.name"] if self.config else None

    def is_own(self, data: str | None) -> bool:
        """Returns whether data of this name, None by default, are those of its run."""
        return bool(self.config) and data in (None, self.data_name)


def open_trained(source: str) -> Trained:
    """Returns a trained model.

    Args:
      source: a workdir of `train.py`, whose best weights are taken; WORKDIR@STEP for one of its
        checkpoints; a folder or file of weights or a repository of the hub, as
        `zoo.load_weights` takes them, with MODEL= in front where the source does not say of
        which model they are.

    Raises:
      ConfigError: if there is nothing, or not enough to know what it is.
      WeightsError: see `zoo.load_weights`.
    """
    name, where = _split(source)
    path, _, step = where.rpartition("@")
    if path and step.isdigit() and _is_workdir(Path(path)):
        return _of_checkpoint(Path(path), int(step))
    workdir = Path(where)
    if _is_workdir(workdir):
        if not (workdir / "weights" / CONFIG).exists():
            raise ConfigError(
                f"{where}: holds no weights yet, as nothing was evaluated; wait, or take a "
                f"checkpoint, {where}@STEP, of {_steps(workdir)}"
            )
        return _of_weights(source, name, workdir / "weights", workdir)
    of_run = workdir.parent if _is_workdir(workdir.parent) else None
    return _of_weights(source, name, where, of_run)


def _split(source: str) -> tuple[str | None, str]:
    """Splits MODEL=WEIGHTS; a path may have a = of its own."""
    name, equals, where = source.partition("=")
    if not equals or "/" in name or Path(source).exists():
        return None, source
    try:
        return registered_name(name), where
    except ValueError as error:
        raise ConfigError(f"{source!r}: {error}") from None


def _is_workdir(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / "checkpoints").is_dir()


def _steps(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def _of_weights(label: str, name: str | None, where: str | Path, workdir: Path | None) -> Trained:
    name = name or _name_of(label, where)
    weights = load_weights(name, where)
    config = _read_run(workdir) if workdir else {}
    return _trained(label, weights.model, weights.variables, weights.preprocessing, workdir, config)


def _name_of(label: str, where: str | Path) -> str:
    """Returns of which model weights are, if that can be known without reading them."""
    row = find_published(str(where).partition("@")[0])
    if row is not None:
        return row.model
    file = Path(where) / CONFIG
    if not Path(where).exists():
        raise ConfigError(f"{label!r}: no such file or folder; {HOW}")
    if file.is_file():
        config = read_config(file)
        if config.ours and config.architecture:
            return config.architecture
    raise ConfigError(f"{label!r}: does not say of which model it is; {HOW}")


def _of_checkpoint(workdir: Path, step: int) -> Trained:
    """Returns the raw weights of one step."""
    label = f"{workdir}@{step}"
    if step not in _steps(workdir):
        raise ConfigError(f"{label}: there are the steps {_steps(workdir)}")
    with contextlib.closing(Checkpoints.to_read(workdir / "checkpoints")) as checkpoints:
        try:
            variables, record = checkpoints.restore_variables(step)
        except Damaged as damage:
            raise WeightsError(f"{label}: the checkpoint is damaged ({damage})") from damage
    config, data = record["config"], record["data"]
    prepared = with_tuples(data["preprocessing"])
    preprocessing = Preprocessing(**prepared, class_names=tuple(data["class_names"]))
    model = _model_of(workdir, config, data["class_names"])
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False),
        jax.random.key(0),
        jnp.zeros((1, *_image_shape(preprocessing))),
    )
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, dict(shapes)):
        raise ConfigError(f"{label}: a checkpoint of several replicas; take {workdir}/seeds/SEED")
    return _trained(label, model, variables, preprocessing, workdir, config)


def _model_of(workdir: Path, config: Mapping[str, Any], names: Sequence[str]) -> Classifier:
    """Returns the module of a run, from the weights it has exported or else its configuration."""
    for folder in (workdir / "weights", workdir / "initial_weights"):
        if (folder / CONFIG).exists():
            name = _name_of(str(folder), folder)
            return load_weights(name, folder).model
    outputs = config["model.num_classes"] or _task(config, names).outputs(len(names))
    return create_model(
        config["model.name"],
        num_classes=outputs,
        dtype=jnp.dtype(config["model.dtype"]),
        **with_tuples(config["model.arguments"]),
    )


def _read_run(workdir: Path) -> dict[str, Any]:
    try:
        return json.loads((workdir / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{workdir / CONFIG}: cannot be read ({error})") from error


def _trained(
    label: str,
    model: Classifier,
    variables: Any,
    preprocessing: Preprocessing,
    workdir: Path | None,
    config: Mapping[str, Any],
) -> Trained:
    outputs = model.num_classes
    if outputs is None:
        raise ConfigError(f"{label}: these weights have no head, and so nothing to predict with")
    names = preprocessing.class_names or tuple(map(str, range(max(outputs, 2))))
    # Weights of others are of a classification.
    name = "classification" if outputs > 1 else "binary"
    config_of_task = config or {"task.name": name, "task.arguments": {}}
    task = _task(config_of_task, names)
    return Trained(label, model, variables, preprocessing, task, names, workdir, config)


def _task(config: Mapping[str, Any], names: Sequence[str]) -> Task:
    """Returns the task of a run."""
    name = config["task.name"]
    arguments = with_tuples(config["task.arguments"])
    if name == "regression":
        arguments.setdefault("names", tuple(names))
    return make_task(name, arguments)


def _image_shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    size = preprocessing.image_size
    return size, size, len(preprocessing.mean)
