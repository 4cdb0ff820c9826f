"""Two models on the same examples, against published numbers and scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from zoo.analysis.comparison import compare, mcnemar_test, newcombe_interval


@pytest.mark.parametrize("pairs", [(0, 0), (0, 6), (7, 7), (30, 12), (700, 812), (100000, 99000)])
def test_mcnemar_is_a_binomial_test(pairs):
    n = sum(pairs)
    expected = binomtest(pairs[0], n).pvalue if n else 1.0
    assert mcnemar_test(*pairs) == pytest.approx(expected, rel=1e-6)


def test_the_interval_is_the_published_one():
    # Fagerland, Lydersen and Laake 2017, "Statistical analysis of contingency tables", chapter 8:
    # 1, 1, 7 and 12 children of Bentur et al. 2009.
    low, high = newcombe_interval(1, 1, 7, 12)
    assert (low, high) == pytest.approx((-0.5070, -0.0261), abs=1e-3)


def test_comparison():
    first = np.array([1, 1, 1, 1, 0, 0, 1, 1], bool)
    second = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    found = compare(first, second)
    assert found[:4] == (3, 3, 1, 1)
    assert found.difference == pytest.approx(0.25)
    assert found.interval[0] < 0.25 < found.interval[1]
    back = compare(second, first)
    assert back.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    assert back.p_value == found.p_value == pytest.approx(0.625)


def test_the_interval_holds_what_it_should():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        p = rng.random(300)  # how easy each example is: answers of both go together
        right = [rng.random(300) < np.minimum(1, p + gain) for gain in (0.1, 0.0)]
        low, high = compare(*right).interval
        held.append(low <= 0.1 - 0.005 <= high)  # E min(1, p + 0.1) - E p
    assert 0.92 < np.mean(held) < 0.99
