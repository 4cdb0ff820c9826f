"""Intervals hold the truth as often as they say."""

import numpy as np
import pytest

from zoo.analysis import figures
from zoo.analysis.intervals import bootstrap, percentiles, resamples


def test_resamples_are_as_large_and_seeded():
    first, again, other = (np.stack(list(resamples(10, number=5, seed=seed))) for seed in (0, 0, 1))
    assert (first.sum(1) == 10).all()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=500)
    found = bootstrap(lambda w: {"mean": figures.mean(values, w)}, 500)
    spread = 1.96 * values.std() / np.sqrt(500)
    assert found["mean"] == pytest.approx(
        (values.mean() - spread, values.mean() + spread), abs=0.03
    )


def test_what_is_often_undefined_has_no_interval():
    assert np.isnan(percentiles(np.array([np.nan] * 10 + [1.0] * 90))).all()
    assert percentiles(np.array([np.nan] + [1.0] * 99)) == (1, 1)
