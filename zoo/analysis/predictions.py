"""What a model said of every example of a split: the one record that all figures are made of."""

from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any
import zipfile

import numpy as np

from zoo.analysis.averaging import average_logits
from zoo.analysis.replacing import replacing
from zoo.analysis.running import examples_of, gather, logits_of, run_over, track
from zoo.analysis.trained import Trained
from zoo.analysis.views import make_views
from zoo.data.source import Source
from zoo.errors import DataError
from zoo.tasks.make import name_of
from zoo.tasks.task import Task

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Logits and truths of N examples.

    Attributes:
      logits: float32 [N, K].
      targets: as the data have them: labels, int [N], or numbers, float32 [N, K].
      indices: int [N], of the examples in their source.
      places: [N], where each comes from: a path, or a position.
      class_names: of the model.
      task: name and arguments of the task.
      model: where the model comes from.
      data: what was looked at: "name", "split", "fingerprint".
      bad: what could not be decoded, and why.
    """

    logits: np.ndarray
    targets: np.ndarray
    indices: np.ndarray
    places: Sequence[str]
    class_names: tuple[str, ...]
    task: dict[str, Any]
    model: str
    data: dict[str, str]
    bad: tuple[str, ...] = ()

    def save(self, file: Path) -> None:
        """Writes a file, .npz, that `load` reads: whole, or not at all."""
        words = {
            name: getattr(self, name)
            for name in ("places", "class_names", "task", "model", "data", "bad")
        }
        header = json.dumps({"version": VERSION, **words}).encode()
        with replacing(file) as scratch, scratch.open("wb") as out:
            np.savez_compressed(
                out,
                logits=self.logits,
                targets=self.targets,
                indices=self.indices,
                words=np.frombuffer(header, np.uint8),
            )

    @classmethod
    def load(cls, file: Path) -> "Predictions":
        """Reads what `save` has written.

        Raises:
          DataError: if it is not that.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                words = json.loads(arrays["words"].tobytes())
                if words.pop("version") != VERSION:
                    raise ValueError("of another version of zoo")
                words |= {name: tuple(words[name]) for name in ("class_names", "bad")}
                return cls(arrays["logits"], arrays["targets"], arrays["indices"], **words)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{file}: no predictions can be read from it ({error}); make it again with "
                "python -m zoo evaluate"
            ) from error


def predict(
    trained: Trained,
    source: Source,
    data: dict[str, str],
    *,
    batch_size: int = 64,
    threads: int = 2,
    max_bad: int = 0,
    views: str | None = None,
) -> Predictions:
    """Returns what a model says of every example of a source.

    Args:
      trained: the model.
      source: the data.
      data: what to call them: "name" and "split".
      batch_size: over all devices.
      threads: that decode.
      max_bad: how many images that cannot be decoded to leave out.
      views: of each image to average over, one of `zoo.analysis.views.VIEWS`; None: itself.
    """
    examples, compute = examples_of(trained, source, max_bad=max_bad), logits_of(trained)
    if views is not None:
        examples, compute = make_views(trained, source, views, max_bad=max_bad)
        data = {**data, "views": views}
    rows = run_over(trained, examples, compute, batch_size=batch_size, threads=threads)
    if views is not None:
        rows = (row._replace(outputs=_of_views(row.outputs, trained.task)) for row in rows)
    indices, targets, logits = gather(
        track(rows, len(source), "predicting", lambda row: len(row.indices))
    )
    task = trained.task
    return Predictions(
        logits.astype(np.float32),
        targets,
        indices,
        [source.describe(int(i)) for i in indices],
        trained.class_names,
        {"name": name_of(task), "arguments": dataclasses.asdict(task)},  # pyright: ignore
        trained.label,
        {**data, "fingerprint": source.fingerprint},
        tuple(examples.bad.values()),
    )


def _of_views(logits: np.ndarray, task: Task) -> np.ndarray:
    return average_logits(np.moveaxis(logits, 1, 0), task)


def probabilities(predictions: Predictions) -> np.ndarray:
    """Returns float64 [N, K] that sum to 1: softmax, or for one logit (1 - p, p) [N, 2]."""
    logits = predictions.logits.astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
