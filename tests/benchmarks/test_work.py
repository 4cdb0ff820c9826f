"""What the benchmarks time is zoo's own step and forward pass."""

import jax
import numpy as np
import pytest

from benchmarks import work
import zoo
from zoo.errors import ZooError


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
    expected = model.apply(made.variables, made.images, train=False)
    np.testing.assert_allclose(made.apply(made.variables, made.images), expected, atol=1e-5)
    assert made.parameters == sum(p.size for p in jax.tree.leaves(made.variables["params"]))
    assert made.images.shape == (3, 28, 28, 1)


@pytest.mark.skipif(hasattr(zoo, "fold_batchnorm"), reason="it is there")
def test_folding_that_is_not_there_is_told():
    with pytest.raises(ZooError, match="fold_batchnorm is not there"):
        work.make_inference("linear", batch_size=1, folded=True)


@pytest.mark.parametrize("name", ["vgg16", "googlenet", "efficientnet_b0", "lenet5"])
def test_nothing_is_dropped(name):
    model = zoo.create_model(name, **work.without_dropout(name))
    rates = [getattr(model, f, 0.0) for f in work.DROPPING]
    assert rates == [0.0] * 3
