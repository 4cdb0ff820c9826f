"""What a model says of one image, as the columns of a table and in words, for each task."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from zoo.analysis.trained import Trained
from zoo.data.files import to_text
from zoo.errors import ConfigError
from zoo.tasks.binary import Binary
from zoo.tasks.classification import Classification
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression

Value = str | float
DIGITS = 6  # significant ones of every number; float32 has seven, and the last is rounding


class Answers(NamedTuple):
    """How a model's outputs become answers.

    Attributes:
      columns: names and types, `str` or `float`, of what is said of an image.
      compute: logits [B, K] to a tuple of arrays [B, …], on the device.
      values: one row of each of those arrays to a value for each column.
      words: these values to a text for a person.
    """

    columns: dict[str, type]
    compute: Callable[[jax.Array], tuple[jax.Array, ...]]
    values: Callable[[Sequence[Any]], list[Value]]
    words: Callable[[Sequence[Value]], str]


def answers_of(trained: Trained, top: int = 5) -> Answers:
    """Returns how a model's outputs become answers.

    * Of a classification: `class`, `probability`, `class_2`, `probability_2`, …, the most probable
      first, and of equals the first of the model's classes.
    * Of a binary one: `class`, by the task's threshold, and its `probability`.
    * Of several labels: `labels`, those over the threshold with | between them, and
      `probability_NAME` for each.
    * Of a regression: a column for each target, by its name.

    Args:
      trained: the model.
      top: how many classes to name at most; of a classification only.

    Raises:
      ConfigError: for fewer than one.
    """
    if top < 1:
        raise ConfigError(f"--top={top}: must be 1 or more")
    names = tuple(map(to_text, trained.class_names))
    task = trained.task
    if isinstance(task, Classification):
        return _classes(task, names, min(top, len(names)))
    if isinstance(task, Binary):
        return _two_classes(task, names)
    if isinstance(task, MultiLabel):
        return _labels(task, names)
    assert isinstance(task, Regression)
    return _numbers(task)


def _classes(task: Classification, names: Sequence[str], top: int) -> Answers:
    endings = ["", *(f"_{rank}" for rank in range(2, top + 1))]
    columns: dict[str, type] = {}
    for ending in endings:
        columns |= {f"class{ending}": str, f"probability{ending}": float}

    def values(row: Sequence[Any]) -> list[Value]:
        said: list[Value] = []
        for p, index in zip(*row, strict=True):
            said += [names[index], _number(p)]
        return said

    return Answers(
        columns, lambda logits: tuple(jax.lax.top_k(task.activation(logits), top)), values, _pairs
    )


def _two_classes(task: Binary, names: Sequence[str]) -> Answers:
    def values(row: Sequence[Any]) -> list[Value]:
        p = float(row[0][0])
        yes = p > task.threshold
        return [names[int(yes)], _number(p if yes else 1 - p)]

    columns = {"class": str, "probability": float}
    return Answers(columns, lambda logits: (task.activation(logits),), values, _pairs)


def _labels(task: MultiLabel, names: Sequence[str]) -> Answers:
    def values(row: Sequence[Any]) -> list[Value]:
        true = [name for name, p in zip(names, row[0], strict=True) if p > task.threshold]
        return ["|".join(true), *map(_number, row[0])]

    def words(row: Sequence[Value]) -> str:
        numbers = [float(p) for p in row[1:]]
        ranked = sorted(zip(names, numbers, strict=True), key=lambda pair: -pair[1])
        true = [f"{name} {_percent(p)}" for name, p in ranked if p > task.threshold]
        return ", ".join(true) or f"nothing (nearest: {ranked[0][0]} {_percent(ranked[0][1])})"

    columns = {"labels": str, **{f"probability_{name}": float for name in names}}
    return Answers(columns, lambda logits: (task.activation(logits),), values, words)


def _numbers(task: Regression) -> Answers:
    names = [to_text(name) for name in task.names]
    taken = ("file", "error")
    columns: dict[str, type] = {f"{n}_predicted" if n in taken else n: float for n in names}

    def words(row: Sequence[Value]) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in zip(names, row, strict=True))

    return Answers(
        columns,
        lambda logits: (task.activation(logits),),
        lambda row: [*map(_number, row[0])],
        words,
    )


def _pairs(row: Sequence[Value]) -> str:
    pairs = zip(row[::2], row[1::2], strict=True)
    return ", ".join(f"{name} {_percent(float(p))}" for name, p in pairs)


def _percent(p: float) -> str:
    return f"{100 * p:.1f} %"


def _number(value: Any) -> float:
    return float(f"{float(value):.{DIGITS}g}")
