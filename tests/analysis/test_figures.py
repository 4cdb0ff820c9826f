"""Every figure is what scikit-learn makes of the same predictions."""

import numpy as np
import pytest
from sklearn import metrics

from zoo.analysis import figures

N, K = 200, 7
RNG = np.random.default_rng(0)
LABELS = RNG.integers(5, size=N)  # two of the classes never occur
LOGITS = RNG.normal(size=(N, K)) + 1.5 * figures.one_hot(LABELS, K)
LOGITS[:, 6] -= 100  # and one of them is never said
SAID = LOGITS.argmax(1)
P = np.exp(figures.log_softmax(LOGITS))
TRUTHS = RNG.random((N, K)) < np.linspace(0, 0.6, K)  # of labels; the first is of no example
WEIGHTS = RNG.integers(4, size=N).astype(float)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_classes(weights):
    matrix = figures.confusion_matrix(LABELS, SAID, K, weights)
    expected = metrics.confusion_matrix(LABELS, SAID, labels=range(K), sample_weight=weights)
    np.testing.assert_array_equal(matrix, expected)
    counts = figures.class_counts(LABELS, SAID, K, weights)
    kw = {"sample_weight": weights, "zero_division": 0}
    each = metrics.precision_recall_fscore_support(LABELS, SAID, labels=range(K), **kw)
    np.testing.assert_allclose([*counts.scores(), counts.true], each)
    for kind in ("macro", "micro", "weighted"):
        expected = metrics.precision_recall_fscore_support(LABELS, SAID, average=kind, **kw)
        np.testing.assert_allclose(figures.average(counts.occurring(), kind), expected[:3])
    kappa = metrics.cohen_kappa_score(LABELS, SAID, sample_weight=weights)
    assert figures.cohen_kappa(counts) == pytest.approx(kappa)
    balanced = np.mean(each[1][np.asarray(each[3]) > 0])
    assert figures.balanced_accuracy(counts) == pytest.approx(balanced)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_labels(weights):
    said = LOGITS > 0.5
    counts = figures.label_counts(TRUTHS, said, weights)
    kw = {"sample_weight": weights, "zero_division": 0}
    each = metrics.precision_recall_fscore_support(TRUTHS, said, **kw)
    np.testing.assert_allclose([*counts.scores(), counts.true], each)
    for kind in ("macro", "micro", "weighted"):
        expected = metrics.precision_recall_fscore_support(TRUTHS, said, average=kind, **kw)
        np.testing.assert_allclose(figures.average(counts, kind), expected[:3])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_scores(weights):
    scores, truth = np.round(LOGITS[:, 1], 1), TRUTHS[:, 4]  # with many ties
    area, precision = figures.Ranking(scores, truth).areas(weights)
    expected = metrics.roc_auc_score(truth, scores, sample_weight=weights)
    assert area == pytest.approx(expected)
    expected = metrics.average_precision_score(truth, scores, sample_weight=weights)
    assert precision == pytest.approx(expected)
    assert np.isnan(figures.Ranking(scores, np.zeros(N, bool)).areas(weights)).all()
    area, precision = figures.Ranking(scores, np.ones(N, bool)).areas(weights)
    assert np.isnan(area) and precision == 1
    assert np.isnan(figures.Ranking(scores[:0], truth[:0]).areas()).all()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_probabilities(weights):
    for k in (1, 2, 5):
        expected = metrics.top_k_accuracy_score(
            LABELS, LOGITS, k=k, labels=range(K), sample_weight=weights
        )
        right = figures.top_k(LOGITS, LABELS, k)
        assert figures.mean(right, weights) == pytest.approx(expected)
    loss = metrics.log_loss(LABELS, P, labels=range(K), sample_weight=weights)
    brier = metrics.brier_score_loss(
        LABELS, P, labels=range(K), sample_weight=weights, scale_by_half=False
    )
    soft = figures.one_hot(LABELS, K)
    for targets in (LABELS, soft):
        losses = figures.cross_entropies(LOGITS, targets)
        assert figures.mean(losses, weights) == pytest.approx(loss)
        briers = figures.brier_scores(P, targets)
        assert figures.mean(briers, weights) == pytest.approx(brier)
    z, t = LOGITS[:, :1], TRUTHS[:, 4:5]
    expected = metrics.log_loss(t[:, 0], figures.sigmoid(z)[:, 0], sample_weight=weights)
    losses = figures.sigmoid_cross_entropies(z, t.astype(float))
    assert figures.mean(losses[:, 0], weights) == pytest.approx(expected)


def test_a_probability_of_zero_has_a_finite_loss():
    losses = figures.cross_entropies(np.float32([[2000, 0], [0, 2000]]), np.array([1, 1]))
    np.testing.assert_allclose(losses, [2000, 0])
    losses = figures.sigmoid_cross_entropies(np.float32([[2000], [-2000]]), np.ones((2, 1)))
    np.testing.assert_allclose(losses[:, 0], [0, 2000])


def test_a_nan_is_never_right():
    logits = np.full((1, 8), np.nan)
    assert not figures.top_k(logits, np.array([3]), 5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_regression(weights):
    targets = np.float32(RNG.normal((0, 2000, 5), size=(N, 3)))
    targets[:, 2] = 5
    predicted = targets + RNG.normal(size=(N, 3))
    found = figures.regression_figures(predicted, targets, weights)
    kw = {"sample_weight": weights, "multioutput": "raw_values"}
    for name, expected in (
        ("mae", metrics.mean_absolute_error(targets, predicted, **kw)),
        ("rmse", metrics.root_mean_squared_error(targets, predicted, **kw)),
        ("r2", [*metrics.r2_score(targets[:, :2], predicted[:, :2], **kw), np.nan]),
        ("mean_error", np.average(predicted - targets, axis=0, weights=weights)),
    ):
        np.testing.assert_allclose(found[name], expected, rtol=1e-9)
