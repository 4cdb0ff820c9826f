"""Losses and metrics against scikit-learn and plain numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from zoo.tasks.classification import metrics, wilson_interval


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
