"""Two models on the same examples: which is better, by how much, and where they disagree."""

import math
from typing import Any, NamedTuple

import numpy as np

from zoo.analysis.ensembles import check_same_examples
from zoo.analysis.intervals import RESAMPLES, bootstrap
from zoo.analysis.measuring import calculator, class_names_of
from zoo.analysis.outcomes import RIGHT, in_words, outcomes_of
from zoo.analysis.predictions import Predictions
from zoo.tasks.task import wilson_interval

MOST_LISTED = 100  # examples that only one has right


class Comparison(NamedTuple):
    """How often each of two models was right.

    Attributes:
      both: examples that both have right.
      only_first: examples that only the first has right.
      only_second: examples that only the second has right.
      neither: examples that both have wrong.
      difference: accuracy of the first less that of the second.
      interval: of the difference, 95 %: Newcombe's.
      p_value: of McNemar's exact test.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    interval: tuple[float, float]
    p_value: float


def compare(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Returns the paired comparison of two models.

    Args:
      first: bool [N], which examples the first has right.
      second: bool [N], the second, of the same examples.
    """
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second, neither = int((~first & second).sum()), int((~first & ~second).sum())
    return Comparison(
        both,
        only_first,
        only_second,
        neither,
        (only_first - only_second) / max(len(first), 1),
        newcombe_interval(both, only_first, only_second, neither),
        mcnemar_test(only_first, only_second),
    )


def mcnemar_test(only_first: int, only_second: int) -> float:
    """Returns how likely the discordant pairs are so uneven, or more, by chance: two-sided, exact.

    McNemar 1947, https://doi.org/10.1007/BF02295996, with the binomial distribution of one half.

    Example:
      >>> round(mcnemar_test(1, 9), 4)
      0.0215
    """
    n, k = only_first + only_second, min(only_first, only_second)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1)]
    return min(1.0, 2 * sum(math.exp(x - n * math.log(2)) for x in logs))


def newcombe_interval(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[float, float]:
    """Returns the 95 % interval of a difference of paired proportions.

    Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C,
    method 10: Wilson's intervals of both, and the correlation of the pairs.

    Example:
      >>> [round(x, 4) for x in newcombe_interval(14, 0, 5, 22)]
      [-0.2265, -0.0115]
    """
    n = both + only_first + only_second + neither
    if not n:
        return -1.0, 1.0
    p, q = (both + only_first) / n, (both + only_second) / n
    (low_p, high_p), (low_q, high_q) = (wilson_interval(x * n, n) for x in (p, q))
    margins = (
        (both + only_first)
        * (only_second + neither)
        * (both + only_second)
        * (only_first + neither)
    )
    product = both * neither - only_first * only_second
    if product > 0:
        product = max(product - n / 2, 0)  # continuity correction, as the paper has it
    phi = product / math.sqrt(margins) if margins else 0.0

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0))

    difference = p - q
    return (
        difference - distance(p - low_p, high_q - q),
        difference + distance(high_p - p, q - low_q),
    )


def compare_predictions(
    first: Predictions, second: Predictions, *, seed: int = 0, number: int = RESAMPLES
) -> dict[str, Any]:
    """Returns the paired comparison of what two models say of the same examples.

    Args:
      first: of one model.
      second: of the other.
      seed: of the bootstrap.
      number: of its resamples.

    Returns:
      "differences", by figure {"value", "interval"}, first - second, where the interval is that
      of resampled examples, the same ones for both. Where examples are right or wrong, the
      fields of `Comparison` of "figure" as well, and "disagreements", up to `MOST_LISTED`
      examples that only one has right, those first of which the other is the surest.

    Raises:
      ConfigError: for other classes, tasks or examples.
    """
    check_same_examples(first, second)
    a, b = outcomes_of(first), outcomes_of(second)
    of_a, of_b = calculator(a), calculator(b)

    def differences(weights: np.ndarray | None) -> dict[str, float]:
        values = of_b(weights)
        return {name: value - values[name] for name, value in of_a(weights).items()}

    drawn = bootstrap(differences, len(a.said), number=number, seed=seed)
    out: dict[str, Any] = {
        "models": [first.model, second.model],
        "split": first.data["split"],
        "examples": len(a.said),
        "differences": {
            name: {"value": value, "interval": drawn[name]}
            for name, value in differences(None).items()
        },
    }
    if a.right is None or b.right is None:
        return out
    out |= {"figure": RIGHT[first.task["name"]], **compare(a.right, b.right)._asdict()}
    return out | {"disagreements": _disagreements(first, second)}


def _disagreements(first: Predictions, second: Predictions) -> list[dict[str, Any]]:
    a, b = outcomes_of(first), outcomes_of(second)
    assert a.right is not None and b.right is not None
    names = class_names_of(first)
    surest = np.where(a.right, b.confidence, a.confidence)
    listed = sorted(np.flatnonzero(a.right != b.right), key=lambda i: -surest[i])[:MOST_LISTED]
    return [
        {
            "index": int(first.indices[i]),
            "place": first.places[int(i)],
            "true": in_words(a.truth[i], names),
            "first": in_words(a.said[i], names),
            "second": in_words(b.said[i], names),
            "right": "first" if a.right[i] else "second",
        }
        for i in listed
    ]
