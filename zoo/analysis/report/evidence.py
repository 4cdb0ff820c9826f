"""What a report is made of: the run's own records, and what its model says of its splits."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from zoo.analysis.diagnosis import ROLES
from zoo.analysis.opening import open_source
from zoo.analysis.predictions import Predictions, predict
from zoo.analysis.trained import Trained
from zoo.data.source import Source, Target
from zoo.errors import ConfigError, DataError
from zoo.training.report import read_metrics

PROBE = 16  # examples that tell whether predictions are those of these weights


class Part:
    """Some examples of a source.

    Args:
      source: the data.
      indices: int [N], of the examples.
    """

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices
        self.class_names = source.class_names
        self.fingerprint = f"{len(indices)} of {source.fingerprint}"
        self.target_shape = getattr(source, "target_shape", ())
        encoded = getattr(source, "encoded", None)
        if encoded is not None:
            self.encoded = lambda index: encoded(int(indices[index]))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        return self._source[int(self._indices[index])]

    def describe(self, index: int) -> str:
        """Returns where an example comes from."""
        return self._source.describe(int(self._indices[index]))


@dataclasses.dataclass(frozen=True)
class Look:
    """A split that the model has been run over.

    Attributes:
      source: its images, or those of them that were looked at.
      predictions: what the model says of them.
      size: of the whole split.
    """

    source: Source
    predictions: Predictions
    size: int


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a report is made of.

    Attributes:
      trained: the model.
      looks: at splits, by role, in the order of `ROLES`.
      focus: the role of the split whose errors are shown one by one.
      lines: of metrics.jsonl.
      results: of results.json; {} if the run has not ended.
      environment: of env.json; {} if it is not there.
    """

    trained: Trained
    looks: Mapping[str, Look]
    focus: str
    lines: Sequence[Mapping[str, Any]]
    results: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def look(self) -> Look:
        """The look at the split whose errors are shown."""
        return self.looks[self.focus]


def gather(
    trained: Trained,
    *,
    focus: str | None = None,
    train_dev: str = "",
    train_examples: int = 2000,
    batch_size: int = 64,
    say: Callable[[str], None] = print,
) -> Evidence:
    """Runs a model over the splits of its run, where `evaluate` has not done so already.

    Args:
      trained: a model that comes from a run.
      focus: the split whose errors are to be shown: "test" or "validation"; None for the
        first of them that the run has, or else the sample of the training split.
      train_dev: images of the training distribution that were not trained on, as a split of
        the run's data: "train[90%:]"; "" for none.
      train_examples: how many of the training split to look at, drawn at random.
      batch_size: over all devices.
      say: is told what is going on.

    Raises:
      ConfigError: if the model comes from no run, or the run has no such split.
      DataError: for missing or damaged files.
    """
    workdir, config = trained.workdir, trained.config
    if workdir is None:
        raise ConfigError(f"{trained.label}: comes from no run of train.py; give a workdir")
    own = {role: config[f"data.{role}_split"] for role in ROLES if role != "train-dev"}
    specs = {**own, "train-dev": train_dev}
    roles = [role for role in ROLES if specs[role]]
    if focus is None:
        focus = next(role for role in ("test", "validation", "train") if role in roles)
    if focus not in roles:
        raise ConfigError(f"--split={focus}: the run has {', '.join(roles)}")
    looks = {}
    for role in roles:
        source = open_source(trained, split=specs[role])
        most = train_examples if role == "train" else len(source)
        looks[role] = _look(trained, source, str(specs[role]), most, batch_size, say)
    lines = read_metrics(workdir / "metrics.jsonl")
    records = (_read(workdir / name) for name in ("results.json", "env.json"))
    return Evidence(trained, looks, focus, lines, *records)


def _look(
    trained: Trained,
    source: Source,
    split: str,
    most: int,
    batch_size: int,
    say: Callable[[str], None],
) -> Look:
    size = len(source)
    if most < size:
        drawn = np.random.default_rng(0).choice(size, most, replace=False)
        source = Part(source, np.sort(drawn))
    known = None if most < size else _known(trained, source, batch_size)
    if known is not None:
        say(f"{split}: {size:,} examples, as evaluated before")
        return Look(source, known, size)
    say(f"{split}: {len(source):,} examples" + f" of {size:,}" * (most < size))
    return Look(source, _predict(trained, source, split, batch_size), size)


def _predict(trained: Trained, source: Source, split: str, batch_size: int) -> Predictions:
    config = trained.config
    return predict(
        trained,
        source,
        {"name": str(config["data.name"]), "split": split},
        batch_size=batch_size,
        threads=config["data.threads"],
        max_bad=config["data.max_bad_examples"],
    )


def _known(trained: Trained, source: Source, batch_size: int) -> Predictions | None:
    """Returns what `evaluate` has kept, if it is of these data and of these weights."""
    assert trained.workdir is not None
    for file in sorted((trained.workdir / "evaluation").glob("predictions*.npz")):
        try:
            found = Predictions.load(file)
        except DataError:
            continue  # it is made anew
        same = (found.data.get("fingerprint"), found.class_names, "views" in found.data)
        if same != (source.fingerprint, trained.class_names, False):
            continue
        some = found.indices[:PROBE]
        probe = _predict(trained, Part(source, some), "", batch_size).logits
        expected = found.logits[: len(some)]
        tolerance = 1e-2 * max(float(np.abs(expected).max()), 1e-6)  # bfloat16 has three digits
        if probe.shape == expected.shape and np.allclose(probe, expected, atol=tolerance):
            return found
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
