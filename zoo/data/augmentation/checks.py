"""What numbers an augmentation accepts; traced ones cannot be looked at and pass."""

from collections.abc import Callable, Iterable, Sequence
import inspect
import math
import numbers
from typing import Any

import jax

from zoo.errors import ConfigError, suggest


def check_number(name: str, value: Any, least: float, most: float = math.inf) -> None:
    """Refuses what is not a number within [least, most].

    Raises:
      ConfigError: with the value and what is allowed.
    """
    if isinstance(value, jax.Array):
        return
    if not isinstance(value, numbers.Real) or not least <= float(value) <= most:
        allowed = f"from {least:g} to {most:g}" if most < math.inf else f"{least:g} or more"
        raise ConfigError(f"{name}={value!r}: give a number, {allowed}")


def check_count(name: str, value: Any) -> None:
    """Refuses what is not a whole number greater than 0.

    Raises:
      ConfigError: with the value and what is allowed.
    """
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}={value!r}: give a whole number, 1 or more")


def check_range(name: str, value: Any, least: float, most: float = math.inf) -> None:
    """Refuses what is not two ascending numbers, greater than `least` and at most `most`.

    Raises:
      ConfigError: with the value and what is allowed.
    """
    pair = list(value) if isinstance(value, Sequence) else []
    right = len(pair) == 2 and all(isinstance(v, numbers.Real) for v in pair)
    if not right or not least < pair[0] <= pair[1] <= most:
        allowed = f" and at most {most:g}" if most < math.inf else ""
        raise ConfigError(
            f"{name}={value!r}: give two ascending numbers, greater than {least:g}{allowed}"
        )


def check_name(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuses a name that is not in the list.

    Raises:
      ConfigError: with the value, the close matches and the list.
    """
    if value not in allowed:
        raise ConfigError(
            f"{name}={value!r} does not exist.{suggest(str(value), allowed)} "
            f"There are {', '.join(allowed)}"
        )


def check_arguments(
    name: str, function: Callable, given: Iterable[str], supplied: Sequence[str]
) -> None:
    """Refuses arguments that a function does not have, and the lack of one that it needs.

    Args:
      name: what to call the function.
      function: whose arguments they are.
      given: their names.
      supplied: names of those that come from elsewhere.

    Raises:
      ConfigError: with the close matches and the arguments there are.
    """
    parameters = inspect.signature(function).parameters
    accepted = {key: p.default for key, p in parameters.items() if key not in supplied}
    given = list(given)
    for argument in given:
        if argument not in accepted:
            raise ConfigError(
                f"{name} has no argument {argument!r}.{suggest(argument, accepted)} "
                f"It has {', '.join(accepted)}"
            )
    for argument, default in accepted.items():
        if default is inspect.Parameter.empty and argument not in given:
            raise ConfigError(f"{name} needs the argument {argument!r}")
