"""One logit and many labels against scikit-learn, optax and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sk

from tests.tasks.data import examples, figures, metrics_of
from zoo.tasks.binary import Binary, sigmoid_cross_entropy
from zoo.tasks.multilabel import MultiLabel


@pytest.mark.parametrize("threshold", [0.5, 0.8])
@pytest.mark.parametrize("count", [7, 1003])
def test_binary_figures_are_those_of_scikit_learn(count, threshold):
    logits, targets = examples("binary", count)
    p = 1 / (1 + np.exp(-logits[:, 0].astype(float)))
    said = p > threshold
    assert figures(Binary(threshold=threshold), logits, targets) == pytest.approx(
        {
            "loss": sk.log_loss(targets, p, labels=[0, 1]),
            "accuracy": sk.accuracy_score(targets, said),
            "precision": sk.precision_score(targets, said, zero_division=0),
            "recall": sk.recall_score(targets, said),
            "f1": sk.f1_score(targets, said),
        },
        rel=1e-6,
    )
    said = Binary().activation(jnp.asarray(logits[:7]))[:, 0]
    np.testing.assert_allclose(said, p[:7], rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.5, pytest.param(0.8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [7, 1003])
def test_multilabel_figures_are_those_of_scikit_learn(count, threshold):
    logits, targets = examples("multilabel", count)
    targets[:, 3] = 0  # a label that nothing has
    p = 1 / (1 + np.exp(-logits.astype(float)))
    said = (p > threshold).astype(int)
    expected = {
        "loss": np.mean([sk.log_loss(targets[:, k], p[:, k], labels=[0, 1]) for k in range(7)]),
        "exact_match": sk.accuracy_score(targets, said),
    }
    for average, prefix in (("micro", ""), ("macro", "macro_")):
        values = sk.precision_recall_fscore_support(targets, said, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            expected[prefix + name] = value
    got = figures(MultiLabel(threshold=threshold), logits, targets)
    assert got == pytest.approx(expected, rel=1e-6)


def test_without_positives_figures_are_zero_as_in_scikit_learn():
    got = figures(Binary(), np.full((8, 1), -1.0), np.zeros(8, int))
    assert (got["accuracy"], got["precision"], got["recall"], got["f1"]) == (1, 0, 0, 0)


def test_extreme_logits_have_finite_losses_and_gradients():
    logits, targets = jnp.asarray([-1e4, 1e4, -1e4, 1e4]), jnp.asarray([0, 1, 1, 0])
    losses, gradient = jax.jit(jax.vmap(jax.value_and_grad(sigmoid_cross_entropy)))(logits, targets)
    np.testing.assert_allclose(losses, [0, 0, 1e4, 1e4])
    np.testing.assert_allclose(gradient, [0, 0, -1, 1])


@pytest.mark.slow
def test_loss_and_gradient_are_those_of_optax():
    rng = np.random.default_rng(0)
    logits, targets = jnp.asarray(rng.normal(size=(9, 4))), jnp.asarray(rng.uniform(size=(9, 4)))
    task = MultiLabel(label_smoothing=0.2)

    def ours(x):
        return task.loss(x, targets, jnp.ones(9), train=True)[0]

    def theirs(x):
        return optax.sigmoid_binary_cross_entropy(x, 0.8 * targets + 0.1).mean(1).sum()

    np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(theirs)(logits), rtol=1e-5)


def test_positive_weights_are_repeated_positives_and_shape_training_only():
    logits, targets = examples("multilabel", 8)
    plain, weighted = MultiLabel(), MultiLabel(positive_weights=[3] * 7)
    total = metrics_of(weighted, logits, targets, train=True)["loss"][0]
    positives = np.where(targets == 1, logits, 1e9)  # all others are certain, and cost 0
    extra = metrics_of(plain, positives.astype("f"), np.ones_like(targets))["loss"][0]
    once = metrics_of(plain, logits, targets)["loss"][0]
    np.testing.assert_allclose(total, once + 2 * extra, rtol=1e-6)
    assert metrics_of(weighted, logits, targets)["loss"][0] == once


@pytest.mark.slow
def test_one_label_is_the_binary_task():
    logits, targets = examples("binary", 33)
    options = {"label_smoothing": 0.1, "threshold": 0.6}
    one = figures(Binary(**options, positive_weight=2.0), logits, targets, train=True)
    many = figures(
        MultiLabel(**options, positive_weights=(2.0,)), logits, targets[:, None], train=True
    )
    for name in ("loss", "precision", "recall", "f1"):
        assert one[name] == pytest.approx(many[name], rel=1e-6)
        assert many.get(f"macro_{name}", many[name]) == many[name]
    assert one["accuracy"] == many["exact_match"]


def test_of_soft_targets_the_larger_part_counts():
    logits, soft = np.array([[2.0], [2.0], [-2.0], [-2.0]]), np.array([0.7, 0.3, 0.6, 0.5])
    got = figures(Binary(), logits, soft.astype("f"))
    assert (got["accuracy"], got["precision"], got["recall"]) == (0.5, 0.5, 0.5)
