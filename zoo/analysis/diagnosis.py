"""Where a model's error comes from, and what helps: bias, variance, mismatch, overfitting.

Ng, "Machine learning yearning", 2018, chapters 20 to 28 and 40 to 43
(https://info.deeplearning.ai/machine-learning-yearning-book): each error on the way from human
beings to the test set is the one before plus a part that has its own cause.
"""

from collections.abc import Mapping
import itertools
import math
from typing import Any, NamedTuple

from zoo.analysis.intervals import Interval
from zoo.errors import ConfigError

ROLES = ("train", "train-dev", "validation", "test")  # in the order of the way

ADVICE = {
    "avoidable bias": (
        "a larger model, or another architecture",
        "train longer, with another optimiser or learning rate",
        "less regularisation: weight decay, dropout, augmentation",
        "look at wrong training examples: are images large and clear enough, and labels right?",
    ),
    "variance": (
        "more training data",
        "more augmentation, mixup or CutMix",
        "more regularisation: weight decay, dropout, stochastic depth; stop earlier",
        "begin with published weights, or train fewer layers of them",
        "a smaller model",
    ),
    "data mismatch": (
        "find by looking at errors how validation images differ from training images",
        "collect training images of the kind that is validated on",
        "make training images like them: by augmentation, or by synthesis",
    ),
    "overfitting of the validation set": (
        "a larger validation set, or a new one",
        "choose among fewer models and settings by it",
    ),
}


class Error(NamedTuple):
    """An error with its 95 % interval.

    Attributes:
      value: 1 - accuracy, or another figure of which less is better.
      interval: of it.
    """

    value: float
    interval: Interval

    @classmethod
    def of(cls, figure: Mapping[str, Any], *, proportion: bool) -> "Error":
        """Returns what a figure, "value" and "interval", makes of an error.

        Args:
          figure: of `zoo.analysis.measuring.measure`.
          proportion: whether it says how much is right, and the error is the rest to 1.
        """
        value, (low, high) = figure["value"], figure["interval"]
        return cls(1 - value, (1 - high, 1 - low)) if proportion else cls(value, (low, high))


class Part(NamedTuple):
    """One part of the error.

    Attributes:
      name: a key of `ADVICE`.
      between: the two errors that it is the difference of, "human" among them.
      value: the difference; less than 0 where the later error is the smaller one.
      interval: of the difference, 95 %; all above 0 says that the part is there.
      advice: what usually makes it smaller, the most usual first.
    """

    name: str
    between: tuple[str, str]
    value: float
    interval: Interval
    advice: tuple[str, ...]


class Diagnosis(NamedTuple):
    """The parts of an error.

    Attributes:
      parts: from human error to the last one that is known.
      largest: the name of the largest one; None if none is above 0.
    """

    parts: tuple[Part, ...]
    largest: str | None


def diagnose(errors: Mapping[str, Error], human: float = 0.0) -> Diagnosis:
    """Returns the parts of an error, in the order of their causes.

    Without "train-dev", examples of the training distribution that were not trained on, a
    difference between training and validation counts as variance, which it is if both are from
    one distribution.

    Args:
      errors: by role: "train" and at least one more of `ROLES`.
      human: what people get wrong on such images, a stand-in for the best that is possible.

    Raises:
      ConfigError: for other roles, or an error that cannot be.
    """
    if "train" not in errors or len(errors) < 2 or not set(errors) <= set(ROLES):
        raise ConfigError(
            f"errors of {', '.join(errors) or 'nothing'}: give that of train and of at least one "
            f"of {', '.join(ROLES[1:])}"
        )
    if not 0 <= human < math.inf:
        raise ConfigError(f"human error {human!r}: must be 0 or more")
    way = ["human", *(role for role in ROLES if role in errors)]
    known = {"human": Error(human, (human, human)), **errors}
    parts = []
    for before, after in itertools.pairwise(way):
        name = _cause(before, after)
        value = known[after].value - known[before].value
        interval = difference_interval(known[after], known[before])
        parts.append(Part(name, (before, after), value, interval, ADVICE[name]))
    largest = max(parts, key=lambda part: part.value)
    return Diagnosis(tuple(parts), largest.name if largest.value > 0 else None)


def difference_interval(first: Error, second: Error) -> Interval:
    """Returns the 95 % interval of the difference of two independent errors, first - second.

    Of proportions with Wilson's intervals it is Newcombe's 1998,
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10;
    of others see Zou and Donner 2008, https://doi.org/10.1002/sim.3095.

    Example:
      >>> from zoo.tasks.task import wilson_interval
      >>> errors = (Error(n / m, wilson_interval(n, m)) for n, m in ((56, 70), (48, 80)))
      >>> [round(x, 4) for x in difference_interval(*errors)]
      [0.0524, 0.3339]
    """
    difference = first.value - second.value
    down = math.hypot(first.value - first.interval[0], second.interval[1] - second.value)
    up = math.hypot(first.interval[1] - first.value, second.value - second.interval[0])
    return difference - down, difference + up


def _cause(before: str, after: str) -> str:
    """Returns what makes the error after larger than the one before."""
    if before == "human":
        return "avoidable bias"
    if before == "train":
        return "variance"
    return "data mismatch" if before == "train-dev" else "overfitting of the validation set"
