"""Two models on the same examples: which is better, by how much, and where they disagree."""

import math
from typing import NamedTuple

import numpy as np

from zoo.tasks.task import wilson_interval


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
