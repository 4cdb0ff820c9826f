"""Which of a model's outputs a question is about: what it predicts, or the class that is named."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from zoo.analysis.trained import Trained
from zoo.errors import ConfigError, suggest


def find_class(trained: Trained, name: str) -> int:
    """Returns the number of a class.

    Args:
      trained: the model.
      name: of the class, or its number.

    Raises:
      ConfigError: if there is none.
    """
    names = trained.class_names
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise ConfigError(
        f"class {name!r}: {trained.label} has none of that name.{suggest(name, names)} Give one "
        f"of its {len(names)} ({', '.join(names[:3])}, …), or a number below that"
    )


def choose_classes(trained: Trained, logits: np.ndarray, name: str | None) -> np.ndarray:
    """Returns for each of some examples the class to ask about, int [B].

    Args:
      trained: the model.
      logits: [B, K] of the examples.
      name: of the class, see `find_class`; None for what is predicted of each.

    Raises:
      ConfigError: for a class that there is not, or none where outputs are no classes.
    """
    if name is not None:
        return np.full(len(logits), find_class(trained, name))
    if type(trained.task).__name__ == "Regression" and logits.shape[1] > 1:
        raise ConfigError(
            f"{trained.label} predicts several numbers; name the one to ask about, of "
            f"{', '.join(trained.class_names)}"
        )
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(int) if len(trained.class_names) > 1 else np.array([0])
    return logits.argmax(axis=1)


def describe_class(trained: Trained, logits: Any, chosen: int) -> str:
    """Returns an example's answer in words: a class with its probability, or a number.

    Args:
      trained: the model.
      logits: [K] of the example.
      chosen: the class, or output.
    """
    answer = np.asarray(trained.task.activation(jnp.asarray(logits)[None]))[0]
    if type(trained.task).__name__ == "Regression":
        return f"{trained.class_names[chosen]} {answer[chosen]:.4g}"
    if len(answer) == 1:
        answer = np.array([1 - answer[0], answer[0]])
    return f"{trained.class_names[chosen]} {answer[chosen]:.0%}"
