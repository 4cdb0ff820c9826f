"""What the benchmarks time is zoo's own step and forward pass."""

import doctest

import jax
import numpy as np
import pytest

from benchmarks import work
from benchmarks.peers import contenders
import zoo


@pytest.mark.parametrize("module", [work, contenders])
def test_examples_are_true(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted and not outcome.failed


def test_training_learns_its_noise():
    config = work.training_config("linear", batch_size=8, changes={"optimizer.learning_rate": 0.03})
    made = work.make_training(config)
    assert made.parameters == zoo.describe("linear", num_classes=1000).parameters
    state, losses = made.init(), []
    for _ in range(4):
        state, metrics = made.step(state, made.batch, made.key)
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
        assert not float(metrics["skipped"][0])
    assert losses[-1] < 0.8 * losses[0]


def test_inference_is_the_models_own():
    made = work.make_inference("linear", batch_size=3)
    model = zoo.create_model("linear")
    expected = np.asarray(model.apply(made.variables, made.images, train=False))
    np.testing.assert_allclose(made.apply(made.variables, made.images), expected, atol=1e-5)
    assert made.parameters == sum(p.size for p in jax.tree.leaves(made.variables["params"]))
    assert made.images.shape == (3, 28, 28, 1)


@pytest.mark.slow
def test_folded_inference_is_the_same():
    plain, folded = (
        work.make_inference("mobilenet_v1_025", batch_size=2, image_size=32, folded=folded)
        for folded in (False, True)
    )
    assert set(plain.variables) == {"params", "batch_stats"} and folded.variables is None
    assert plain.parameters == folded.parameters
    expected = np.asarray(plain.apply(plain.variables, plain.images))
    logits = folded.apply(folded.variables, folded.images)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["vgg16", "googlenet", "efficientnet_b0", "lenet5"])
def test_nothing_is_dropped(name):
    model = zoo.create_model(name, **work.without_dropout(name))
    rates = [getattr(model, f, 0.0) for f in work.DROPPING]
    assert rates == [0.0] * 3
