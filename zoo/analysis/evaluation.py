"""Models evaluated on splits of data: all figures and what follows from them, in a folder."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
from pathlib import Path
import re
from typing import Any

import numpy as np

from zoo.analysis.comparison import compare_predictions
from zoo.analysis.diagnosis import ROLES, Error, diagnose
from zoo.analysis.ensembles import ensemble
from zoo.analysis.intervals import RESAMPLES
from zoo.analysis.measuring import measure
from zoo.analysis.opening import open_source
from zoo.analysis.outcomes import RIGHT
from zoo.analysis.predictions import Predictions, predict
from zoo.analysis.scaling import scale
from zoo.analysis.trained import Trained
from zoo.data.source import Source
from zoo.errors import ConfigError
from zoo.tasks.make import name_of
from zoo.training.report import environment, write_json

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read and computed with.

    Attributes:
      batch_size: over all devices.
      threads: that decode.
      max_bad: how many images of a split that cannot be decoded to leave out.
      views: one of `zoo.analysis.views.VIEWS`; None: the image itself.
    """

    batch_size: int = 64
    threads: int = 2
    max_bad: int = 0
    views: str | None = None


def parse_splits(texts: Iterable[str]) -> dict[str, str]:
    """Returns what each split is called, and which it is.

    Args:
      texts: of SPLIT, NAME=SPLIT, or several of them with commas between.

    Raises:
      ConfigError: for an empty one, or two of one name.

    Example:
      >>> parse_splits(["train,test", "train-dev=train[90%:]"])
      {'train': 'train', 'test': 'test', 'train-dev': 'train[90%:]'}
    """
    out: dict[str, str] = {}
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        name, equals, split = text.partition("=")
        if not name or (equals and not split) or name in out:
            raise ConfigError(
                f"split {text!r}: give SPLIT, or NAME=SPLIT to call it by another name, each "
                "name once"
            )
        out[name] = split if equals else name
    return out


def resolve(trained: Trained, data: str | None, texts: Sequence[str] | None) -> dict[str, str]:
    """Returns the splits to look at a model with: what each is called, and which it is.

    Of the data of the model's own run, "train", "validation" and "test" are what the run had
    in these roles. By default it is "test", or "validation" where the run has no test split.

    Args:
      trained: the model.
      data: see `open_source`.
      texts: see `parse_splits`; None for the default.

    Raises:
      ConfigError: for a role that the run has no split in.
    """
    own = trained.config if trained.is_own(data) else {}
    roles = {role: own.get(f"data.{role}_split") for role in ("train", "validation", "test")}
    if texts is None:
        texts = [next((role for role in ("test", "validation") if roles[role]), "test")]
    splits = parse_splits(texts)
    for name, split in splits.items():
        if own and split in roles:
            if not roles[split]:
                raise ConfigError(
                    f"{trained.label}: its run had no {split} split; name another, or {split}[:] "
                    "for the whole split of that name"
                )
            splits[name] = str(roles[split])
    return splits


def open_splits_of(
    first: Trained, trained: Trained, data: str | None, splits: Mapping[str, str]
) -> dict[str, Source]:
    """Returns the sources to look at a model with, by the splits' names.

    Args:
      first: the model whose run's data are taken where none are named.
      trained: the model, whose classes the sources' labels are of.
      data: see `open_source`.
      splits: what each is called, and which it is.

    Raises:
      ConfigError: see `open_source`; or for targets that are not the task's.
    """
    if first.is_own(data):
        trained = dataclasses.replace(trained, config=first.config)
    name = data or str(trained.data_name)
    sources = {key: open_source(trained, data, split) for key, split in splits.items()}
    for source in sources.values():
        check_kind(trained, source, name)
    return sources


def predict_splits(
    models: Sequence[Trained], data: str | None, splits: Mapping[str, str], reading: Reading
) -> list[dict[str, Predictions]]:
    """Returns what each model says of each split, by the splits' names.

    Args:
      models: all are asked about the same examples.
      data: see `open_source`; None for those of the first model's run.
      splits: what each is called, and which it is.
      reading: how.

    Raises:
      ConfigError: see `open_splits_of`.
      DataError: for missing or damaged files.
    """
    options = dataclasses.asdict(reading)
    name = data or str(models[0].data_name)
    out = []
    for trained in models:
        sources = open_splits_of(models[0], trained, data, splits)
        out.append(
            {
                key: predict(trained, source, {"name": name, "split": key}, **options)
                for key, source in sources.items()
            }
        )
    return out


def with_ensemble(
    groups: Sequence[Mapping[str, Predictions]], fitted: Sequence[Predictions], how: str
) -> tuple[list[Mapping[str, Predictions]], list[Predictions]]:
    """Returns both with one more: what all models say together.

    Args:
      groups: of each model, its predictions by split.
      fitted: of each model, its predictions that a temperature is fitted on; or none.
      how: see `zoo.analysis.ensembles.ensemble`.
    """
    together = {split: ensemble([group[split] for group in groups], how) for split in groups[0]}
    return [*groups, together], [*fitted, ensemble(fitted, how)] if fitted else []


def evaluate(
    groups: Sequence[Mapping[str, Predictions]],
    *,
    fitted: Sequence[Predictions] = (),
    compared: bool = False,
    human_error: float = 0.0,
    seed: int = 0,
    number: int = RESAMPLES,
) -> tuple[dict[str, Any], dict[str, Predictions]]:
    """Returns everything that predictions say, and these by the name of their file.

    Args:
      groups: of each model, or ensemble, its predictions by split.
      fitted: of each of them, those that a temperature is fitted on; none: none is.
      compared: the first two are compared.
      human_error: see `zoo.analysis.diagnosis.diagnose`.
      seed: of the bootstrap, and of folds.
      number: of the bootstrap's resamples.

    Returns:
      "evaluations": of each model and split what `measure` returns, with "model", "task",
      "data", "file", "bad" and, of `zoo.analysis.scaling.scale`, "temperature"; "comparisons",
      of each split; "diagnoses", of each model that was evaluated on "train" and another of
      `zoo.analysis.diagnosis.ROLES`.

    Raises:
      ConfigError: for what does not go together.
    """
    drawn = {"seed": seed, "number": number}
    out: dict[str, Any] = {"version": VERSION, "evaluations": [], "diagnoses": []}
    files: dict[str, Predictions] = {}
    for i, group in enumerate(groups):
        mine = []
        for split, predictions in group.items():
            several = len(groups) > 1, len(group) > 1
            name = _file(files, i if several[0] else None, split if several[1] else None)
            files[name] = predictions
            found = _described(predictions, name) | measure(predictions, **drawn)
            if fitted:
                found["temperature"] = scale(predictions, fitted[i], **drawn)
            mine.append(found)
        out["evaluations"] += mine
        out["diagnoses"] += _diagnosis(mine, human_error)
    if compared:
        pairs = [(groups[0][split], groups[1][split]) for split in groups[0]]
        out["comparisons"] = [compare_predictions(a, b, **drawn) for a, b in pairs]
    return out, files


def _file(taken: Mapping[str, Any], model: int | None, split: str | None) -> str:
    """Returns the name of a file for predictions that is not taken."""
    parts = ["predictions", "" if model is None else str(model + 1), split or ""]
    stem = re.sub(r"[^\w.-]+", "_", "_".join(filter(None, parts))).rstrip("_")
    return f"{stem}_{len(taken) + 1}.npz" if f"{stem}.npz" in taken else f"{stem}.npz"


def _described(predictions: Predictions, file: str) -> dict[str, Any]:
    fields = ("model", "task", "data", "bad")
    return {name: getattr(predictions, name) for name in fields} | {"file": file}


def _diagnosis(evaluations: Sequence[Mapping[str, Any]], human: float) -> list[dict[str, Any]]:
    """Returns the parts of a model's error, if it was measured where that takes."""
    errors, right = {}, RIGHT.get(evaluations[0]["task"]["name"])
    for found in evaluations:
        figure = found["figures"][right or "loss"]
        errors[found["data"]["split"]] = Error.of(figure, proportion=right is not None)
    errors = {role: errors[role] for role in ROLES if role in errors}
    if "train" not in errors or len(errors) < 2:
        return []
    parts, largest = diagnose(errors, human)
    return [
        {
            "model": evaluations[0]["model"],
            "figure": right or "loss",
            "human_error": human,
            "errors": {role: error._asdict() for role, error in errors.items()},
            "parts": [part._asdict() for part in parts],
            "largest": largest,
        }
    ]


def write(folder: Path, results: Mapping[str, Any], files: Mapping[str, Predictions]) -> None:
    """Writes evaluation.json, last, and predictions to a folder, which is made.

    What is not a finite number is null in the file.

    Raises:
      ConfigError: if that cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, predictions in files.items():
            predictions.save(folder / name)
        write_json(folder / "evaluation.json", plain({**results, "environment": environment()}))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written to ({error.strerror})") from error


def check_kind(trained: Trained, source: Source, name: str) -> None:
    """Raises ConfigError unless a source has targets such as the model's task wants.

    Args:
      trained: the model.
      source: the data.
      name: of the data, for the message.
    """
    shape, task = tuple(getattr(source, "target_shape", ())), name_of(trained.task)
    outputs = (trained.model.num_classes,)
    labels = task in ("classification", "binary")
    if shape != outputs and not (labels and not shape):
        has = f"{shape[0]} numbers for each image" if shape else "a label for each image"
        wants = "labels" if labels else f"{outputs[0]} numbers for each image"
        raise ConfigError(f"{name}: has {has}; {trained.label}, a {task}, wants {wants}")


def plain(value: Any) -> Any:
    """Returns a tree of dicts, lists, texts and numbers as JSON has them; NaN becomes None."""
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
