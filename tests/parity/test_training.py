"""Each family in training mode against torch, in float64."""

import pytest

from tests.parity.training import TrainingCase, compare_training

CASES = [
    TrainingCase("resnet18", "torchvision", 64),
    TrainingCase("resnext50_32x4d", "torchvision", 64),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_parity(case):
    compare_training(case)
