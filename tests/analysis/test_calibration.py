"""Calibration is measured as published and a known temperature is found again."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve

from zoo.analysis import figures
from zoo.analysis.calibration import (
    classwise_error,
    cross_fitted,
    fit_temperature,
    reliability,
)
from zoo.errors import ConfigError

RNG = np.random.default_rng(1)
N, K = 10000, 5
HONEST = 2 * RNG.normal(size=(N, K))  # logits whose softmax the labels are drawn from
P = np.exp(figures.log_softmax(HONEST))
LABELS = (RNG.random((N, 1)) > P.cumsum(1)).sum(1)


def top(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.exp(figures.log_softmax(logits)).max(1), logits.argmax(1) == LABELS


def test_honest_probabilities_have_no_error():
    for adaptive in (False, True):
        assert reliability(*top(HONEST), adaptive=adaptive).expected_error() < 0.02
        assert reliability(*top(4 * HONEST), adaptive=adaptive).expected_error() > 0.1
    assert classwise_error(P, LABELS) < 0.01
    assert classwise_error(np.exp(figures.log_softmax(4 * HONEST)), LABELS) > 0.05


@pytest.mark.parametrize("adaptive", [False, True])
def test_bars_are_those_of_scikit_learn(adaptive):
    p, truth = P[:500, 0], LABELS[:500] == 0
    found = reliability(p, truth, bins=10, adaptive=adaptive)
    strategy = "quantile" if adaptive else "uniform"
    accuracy, confidence = calibration_curve(truth, p, n_bins=10, strategy=strategy)
    there = found.counts > 0
    np.testing.assert_allclose(found.accuracy[there], accuracy)
    np.testing.assert_allclose(found.confidence[there], confidence)
    assert found.counts.sum() == 500
    gaps = np.abs(accuracy - confidence)
    assert found.largest_error() == pytest.approx(gaps.max())
    assert found.expected_error() == pytest.approx(gaps @ found.counts[there] / 500)


def test_weights_are_repetitions():
    p, right = (x[:100] for x in top(HONEST))
    weights = RNG.integers(3, size=100)
    weighted = reliability(p, right, weights=weights.astype(float))
    repeated = reliability(np.repeat(p, weights), np.repeat(right, weights))
    for ours, theirs in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_a_bin_holds_its_upper_edge():
    counts = reliability(np.array([0, 0.5, 0.51, 1]), np.ones(4), bins=2).counts
    np.testing.assert_array_equal(counts, [2, 2])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    logits = temperature * HONEST
    found = fit_temperature(logits, LABELS)
    assert found == pytest.approx(temperature, rel=0.05)

    def loss(log_t: float) -> float:
        return figures.cross_entropies(logits / np.exp(log_t), LABELS).mean()

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(float(np.exp(best.x)), rel=1e-5)
    assert fit_temperature(logits, figures.one_hot(LABELS, K)) == pytest.approx(found)


def test_of_sigmoids():
    truths = (RNG.random(HONEST.shape) < figures.sigmoid(HONEST)).astype(float)
    assert fit_temperature(3 * HONEST, truths, sigmoids=True) == pytest.approx(3, rel=0.05)


def test_two_classes_of_one_logit_have_the_temperature_of_two():
    z = HONEST[:, :1]
    truths = RNG.random(z.shape) < figures.sigmoid(2 * z)
    two = np.concatenate([np.zeros_like(z), z], axis=1)
    one = fit_temperature(z, truths.astype(float), sigmoids=True)
    assert one == pytest.approx(fit_temperature(two, truths[:, 0].astype(int)))


def test_limits():
    logits = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(logits, np.array([0, 1])) == 0.01  # all right: the surer the better
    assert fit_temperature(logits, np.array([1, 0])) == 100  # all wrong
    assert fit_temperature(np.zeros((2, 2)), np.array([0, 1])) == 100  # says nothing
    with pytest.raises(ConfigError, match="no examples"):
        fit_temperature(logits[:0], np.array([], int))
    with pytest.raises(ConfigError, match="folds"):
        cross_fitted(logits, np.array([0, 1]), folds=3)


def test_no_example_shapes_its_own_temperature():
    logits, temperatures = cross_fitted(2 * HONEST[:100], LABELS[:100], folds=4)
    of_row = (2 * HONEST[:100] / logits)[:, 0]
    for temperature in temperatures:
        fold = np.isclose(of_row, temperature)
        assert fold.sum() == 25
        others = fit_temperature(2 * HONEST[:100][~fold], LABELS[:100][~fold])
        assert temperature == pytest.approx(others)
