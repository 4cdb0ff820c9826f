"""Losses and metrics against scikit-learn and plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from tests.tasks.data import metrics_of
from zoo.errors import ConfigError
from zoo.tasks import classification
from zoo.tasks.classification import Classification
from zoo.tasks.task import wilson_interval

metrics = jax.jit(classification.metrics, static_argnames="label_smoothing")
WEIGHTED = Classification(class_weights=np.linspace(0, 3, 10).tolist())


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 10)), rng.integers(0, 10, 64), rng.integers(0, 2, 64)


def mean(pair):
    return float(pair[0] / pair[1])


def test_metrics_equal_scikit_learn_on_what_is_not_masked(batch):
    logits, labels, mask = batch
    out = metrics(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask, jnp.float32))
    there = mask > 0
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    classes = np.arange(10)
    expected = {
        "loss": log_loss(labels[there], probabilities[there], labels=classes),
        "top1": accuracy_score(labels[there], logits[there].argmax(1)),
        "top5": top_k_accuracy_score(labels[there], logits[there], k=5, labels=classes),
    }
    assert {name: mean(pair) for name, pair in out.items()} == pytest.approx(expected, rel=1e-5)
    assert all(count == mask.sum() for _, count in out.values())


def test_label_smoothing_spreads_evenly(batch):
    logits, labels, _ = batch
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full((64, 10), 0.01) + 0.9 * np.eye(10)[labels]
    out = metrics(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(64), label_smoothing=0.1)
    assert mean(out["loss"]) == pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-5)


def test_few_classes_have_no_top5():
    assert set(metrics(jnp.zeros((2, 3)), jnp.zeros(2, int), jnp.ones(2))) == {"loss", "top1"}


def test_nothing_counted_is_nothing():
    out = metrics(jnp.zeros((2, 3)), jnp.zeros(2, int), jnp.zeros(2))
    assert all(total == 0 and count == 0 for total, count in out.values())


# Agresti and Coull 1998, and the closed form at the ends: z^2 / (n + z^2).
@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (5, 10, (0.2366, 0.7634)), (0, 0, (0, 1))],
)
def test_wilson_interval(successes, trials, interval):
    assert wilson_interval(successes, trials) == pytest.approx(interval, abs=1e-4)


def test_soft_targets_that_are_one_class_are_labels(batch):
    logits, labels, mask = batch
    hard = metrics_of(WEIGHTED, logits, labels, mask, train=True)
    soft = metrics_of(WEIGHTED, logits, np.eye(10)[labels], mask, train=True)
    for name, pair in hard.items():
        np.testing.assert_allclose(soft[name], pair, rtol=1e-6)


def test_mixed_targets_have_the_mixed_loss_and_count_as_their_larger_part(batch):
    logits, labels, mask = batch
    task, other = Classification(), np.roll(labels, 1)
    mixed = 0.7 * np.eye(10)[labels] + 0.3 * np.eye(10)[other]
    got, first, second = (metrics_of(task, logits, y, mask) for y in (mixed, labels, other))
    expected = 0.7 * mean(first["loss"]) + 0.3 * mean(second["loss"])
    assert mean(got["loss"]) == pytest.approx(expected, rel=1e-5)
    assert got["top1"] == first["top1"] and got["top5"] == first["top5"]


def test_class_weights_are_scikit_learns_sample_weights(batch):
    logits, labels, mask = batch
    weights, there = np.asarray(WEIGHTED.class_weights), mask > 0
    out = metrics_of(WEIGHTED, *batch, train=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = log_loss(
        labels[there],
        probabilities[there],
        labels=np.arange(10),
        sample_weight=weights[labels[there]],
    )
    assert mean(out["loss"]) == pytest.approx(expected, rel=1e-5)
    assert out["top1"][1] == mask.sum()
    with pytest.raises(ConfigError, match=r"has 3 value\(s\) and the head 10 outputs"):
        metrics_of(Classification(class_weights=(1, 2, 3)), *batch, train=True)


def test_activation_is_the_softmax(batch):
    probabilities = np.exp(batch[0]) / np.exp(batch[0]).sum(1, keepdims=True)
    got = jax.jit(Classification().activation)(jnp.asarray(batch[0]))
    np.testing.assert_allclose(got, probabilities, rtol=1e-5)


def test_weights_shape_training_only(batch):
    plain = metrics_of(Classification(), *batch)
    assert metrics_of(WEIGHTED, *batch) == plain
    assert metrics_of(WEIGHTED, *batch, train=True)["loss"] != plain["loss"]


def test_logits_that_are_not_numbers_are_not_right(batch):
    _, labels, mask = batch
    out = metrics_of(Classification(), np.full((64, 10), np.nan), np.maximum(labels, 1), mask)
    assert np.isnan(out["loss"][0]) and out["top1"][0] == 0 and out["top5"][0] == 0
