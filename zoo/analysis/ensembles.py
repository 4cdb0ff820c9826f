"""Several models asked together."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from zoo.analysis.averaging import average_logits
from zoo.analysis.predictions import Predictions
from zoo.errors import ConfigError
from zoo.tasks.make import make_task
from zoo.tasks.regression import Regression
from zoo.tasks.task import Task


def ensemble(members: Sequence[Predictions], how: str = "probabilities") -> Predictions:
    """Returns what several models say together of the same examples.

    The models may have any architectures, image sizes and preprocessing.

    Args:
      members: of each model, of the same source.
      how: "probabilities" or "logits", see `average_logits`.

    Raises:
      ConfigError: for fewer than two, or of other classes, tasks or examples.
    """
    if len(members) < 2:
        raise ConfigError("an ensemble is of two models or more")
    first = members[0]
    for other in members[1:]:
        check_same_examples(first, other)
    task = make_task(first.task["name"], first.task["arguments"])
    logits = np.stack([_in_scale_of(task, other) for other in members])
    label = " + ".join(member.model for member in members)
    return dataclasses.replace(
        first,
        logits=average_logits(logits, task, how).astype(np.float32),
        model=f"mean of {how} of {label}",
    )


def check_same_examples(first: Predictions, second: Predictions) -> None:
    """Raises ConfigError unless both are about the same examples, classes and task."""
    names = first.class_names, second.class_names
    if first.task["name"] != second.task["name"]:
        kinds = first.task["name"], second.task["name"]
        raise ConfigError(
            f"{first.model} is of the task {kinds[0]} and {second.model} of {kinds[1]}; "
            "models of one task go together"
        )
    if names[0] != names[1]:
        differing = [pair for pair in zip(*names, strict=False) if pair[0] != pair[1]]
        what = f", as in {differing[0][0]!r} and {differing[0][1]!r}" if differing else ""
        raise ConfigError(
            f"{first.model} has {len(names[0])} classes and {second.model} {len(names[1])}, and "
            f"they are not the same ones in the same order{what}; give models of the same data"
        )
    if not np.array_equal(first.indices, second.indices) or not np.array_equal(
        first.targets, second.targets
    ):
        raise ConfigError(f"{first.model} and {second.model}: looked at different examples")


def _in_scale_of(task: Task, member: Predictions) -> np.ndarray:
    """Returns logits; those of a regression as if standardised as the first model's are."""
    if not isinstance(task, Regression):
        return member.logits
    theirs = make_task("regression", member.task["arguments"])
    assert isinstance(theirs, Regression)
    values = member.logits.astype(np.float64) * (theirs.std or 1.0) + (theirs.mean or 0.0)
    return (values - (task.mean or 0.0)) / (task.std or 1.0)
