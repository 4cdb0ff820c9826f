"""Parameters and multiply-adds against those that torchvision publishes with its weights."""

import pytest

from tests.parity.oracles import import_torchvision
import zoo
from zoo.weights.families import LAYOUTS

EVERY = [name for name, layouts in LAYOUTS.items() if "torchvision" in layouts]
# torchvision's figure for these leaves the auxiliary heads out.
WITHOUT_AUX = {"googlenet": {"aux_heads": False}}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_costs_are_those_of_torchvision(name):
    models = import_torchvision().models
    weights = models.get_model_weights(name).DEFAULT
    [size] = weights.transforms().crop_size
    described = zoo.describe(name, image_shape=(size, size, 3), **WITHOUT_AUX.get(name, {}))
    assert described.parameters == weights.meta["num_params"]
    # It also counts the scales of BatchNorm and the gates, and prints three decimals.
    assert described.macs / 1e9 == pytest.approx(weights.meta["_ops"], rel=0.005, abs=0.001)
