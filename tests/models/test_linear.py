"""Softmax regression and the perceptron against scikit-learn, with weights it has learnt."""

import warnings

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

import zoo

IMAGES = np.random.default_rng(0).normal(size=(30, 4, 5, 2))
LABELS = np.arange(30) % 3


def learn(classifier):
    """Fits to noise, for a few steps."""
    with warnings.catch_warnings(action="ignore"):  # that they were too few
        return classifier.fit(IMAGES.reshape(30, -1), LABELS)


def probabilities(model, params):
    with jax.enable_x64(True):
        logits = model.apply({"params": params}, jnp.asarray(IMAGES), train=False)
        return nn.softmax(logits)


def test_linear_is_logistic_regression():
    theirs = learn(LogisticRegression(max_iter=5))
    params = {"head": {"kernel": theirs.coef_.T, "bias": theirs.intercept_}}
    expected = theirs.predict_proba(IMAGES.reshape(30, -1))
    ours = probabilities(zoo.create_model("linear", num_classes=3), params)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "activation"), [("relu", nn.relu), ("tanh", jnp.tanh)])
def test_mlp_is_that_of_scikit_learn(name, activation):
    theirs = learn(MLPClassifier((12, 7), activation=name, max_iter=3, random_state=0))
    layers = zip(("hidden1", "hidden2", "head"), theirs.coefs_, theirs.intercepts_, strict=True)
    params = {name: {"kernel": kernel, "bias": bias} for name, kernel, bias in layers}
    expected = theirs.predict_proba(IMAGES.reshape(30, -1))
    model = zoo.create_model("mlp", widths=(12, 7), activation=activation, num_classes=3)
    np.testing.assert_allclose(probabilities(model, params), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "fields"), [("linear", {}), ("mlp", {"widths": (6,)})])
def test_features_are_what_the_head_sees(name, fields):
    model = zoo.create_model(name, **fields)
    variables = jax.jit(model.init, static_argnames="train")(jax.random.key(0), IMAGES, train=False)
    out = model.apply(variables, IMAGES, train=False, method="endpoints")
    head = variables["params"].pop("head")
    expected = out["pre_logits"] @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(out["logits"], expected, rtol=0, atol=1e-5)
    features = zoo.create_model(name, num_classes=None, **fields)
    without = features.apply(variables, IMAGES, train=False)
    np.testing.assert_array_equal(without, out["pre_logits"])


def test_dropout_drops_hidden_features_and_keeps_their_mean():
    model = zoo.create_model("mlp", widths=(400,), dropout_rate=0.25, num_classes=1)
    hidden = {"kernel": np.zeros((40, 400)), "bias": np.ones(400)}
    head = {"kernel": np.ones((400, 1)), "bias": np.zeros(1)}  # counts what is left

    @jax.jit
    def apply(key):
        params = {"hidden1": hidden, "head": head}
        return model.apply({"params": params}, IMAGES, train=True, rngs={"dropout": key})

    left = jax.device_get(apply(jax.random.key(0))) * 0.75
    np.testing.assert_allclose(left, np.round(left), rtol=0, atol=1e-2)
    assert left.std() > 0
    np.testing.assert_allclose(left.mean(), 300, rtol=0, atol=10)
