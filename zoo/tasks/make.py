"""Tasks by name."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from zoo.errors import ConfigError, suggest
from zoo.tasks.binary import Binary
from zoo.tasks.classification import Classification
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.task import Task

TASKS: dict[str, Any] = {
    "classification": Classification,
    "binary": Binary,
    "multilabel": MultiLabel,
    "regression": Regression,
}


def name_of(task: Task) -> str:
    """Returns the name of `TASKS` that a task has.

    Example:
      >>> name_of(MultiLabel())
      'multilabel'
    """
    return next(name for name, kind in TASKS.items() if type(task) is kind)


def make_task(name: str, arguments: Mapping[str, Any]) -> Task:
    """Returns a task.

    Args:
      name: one of `TASKS`.
      arguments: of its class.

    Raises:
      ConfigError: for an unknown name or argument, with the close ones, or a wrong value.

    Example:
      >>> make_task("binary", {"threshold": 0.3}).best.metric
      'accuracy'
    """
    if name not in TASKS:
        raise ConfigError(
            f"{name!r} is not a task.{suggest(name, TASKS)} There are {', '.join(TASKS)}"
        )
    accepted = [field.name for field in dataclasses.fields(TASKS[name])]
    for argument in arguments:
        if argument not in accepted:
            raise ConfigError(
                f"the task {name!r} has no argument {argument!r}.{suggest(argument, accepted)} "
                f"It has {', '.join(accepted)}"
            )
    return TASKS[name](**arguments)
