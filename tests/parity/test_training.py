"""Each family in training mode against torch, in float64."""

import pytest

from tests.parity.training import TrainingCase, compare_training

SURE = {"dropout_rate": 0.0}  # the oracle's is turned off as well
SURE_TOO = SURE | {"aux_dropout_rate": 0.0}

CASES = [
    TrainingCase("alexnet", "torchvision", 127, SURE),
    TrainingCase("vgg11_bn", "torchvision", 64, SURE),
    TrainingCase("resnet18", "torchvision", 64),
    TrainingCase("resnext50_32x4d", "torchvision", 64),
    TrainingCase("googlenet", "torchvision", 96, SURE_TOO, {"init_weights": False}),
    TrainingCase("xception", "timm", 96, SURE),
    TrainingCase("mobilenet_v1", "timm", 64, SURE),
    TrainingCase("mobilenet_v2", "torchvision", 64, SURE),
    TrainingCase("mobilenet_v3_small", "torchvision", 96, SURE),
    TrainingCase("efficientnet_b0", "torchvision", 64, SURE | {"drop_path_rate": 0.0}),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_parity(case):
    compare_training(case)
