"""ResNet against torchvision, timm and Keras."""

import pytest

from tests.parity.compare import Case, compare
from tests.parity.oracles import TorchOracle, import_torchvision
from zoo.weights.layouts import COUNTERS, Layout
from zoo.weights.resnet import torch_rules

BOTH = ("float32", "float64")

STAGES = {"stride4": "layer1", "stride8": "layer2", "stride16": "layer3", "stride32": "layer4"}
TORCHVISION = {"stride2": "relu", **STAGES, "pre_logits": "avgpool"}
TIMM = {"stride2": "act1", **STAGES, "pre_logits": "global_pool"}


def keras_v1(*sizes: int) -> dict[str, str]:
    """Layers that end a stage of so many blocks."""
    stages = {f"stride{2**i}": f"conv{i}_block{size}_out" for i, size in enumerate(sizes, 2)}
    return {"stride2": "conv1_relu", **stages, "pre_logits": "avg_pool"}


def keras_v2(*sizes: int) -> dict[str, str]:
    """Layers in front of the block that halves the map."""
    last = {f"stride{2**i}": f"conv{i}_block{size - 1}_out" for i, size in enumerate(sizes, 2)}
    return {"stride2": "conv1_conv", **last, "stride32": "post_relu", "pre_logits": "avg_pool"}


CASES = [
    Case("resnet18", "torchvision", 64, TORCHVISION, BOTH),
    Case("resnet34", "torchvision", 64, TORCHVISION),
    Case("resnet50", "torchvision", 64, TORCHVISION, BOTH),
    Case("resnet50", "timm", 65, TIMM),
    Case("resnet101", "torchvision", 64, TORCHVISION),
    Case("resnet152", "torchvision", 64, TORCHVISION),
    Case("resnet50_v1", "keras", 64, keras_v1(3, 4, 6, 3), BOTH),
    Case("resnet101_v1", "keras", 64, keras_v1(3, 4, 23, 3)),
    Case("resnet152_v1", "keras", 64, keras_v1(3, 8, 36, 3)),
    Case("resnet50_v2", "keras", 64, keras_v2(3, 4, 6, 3), BOTH),
    Case("resnet101_v2", "keras", 64, keras_v2(3, 4, 23, 3)),
    Case("resnet152_v2", "keras", 64, keras_v2(3, 8, 36, 3)),
    Case("resnext50_32x4d", "torchvision", 64, TORCHVISION, BOTH),
    Case("resnext101_32x8d", "torchvision", 64, TORCHVISION),
    Case("resnext101_64x4d", "torchvision", 64, TORCHVISION),
    Case("wide_resnet50_2", "torchvision", 64, TORCHVISION, BOTH),
    Case("wide_resnet101_2", "torchvision", 64, TORCHVISION),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case, record_property):
    compare(case, record_property)


DEPTHS = (20, 32, 44, 56, 110)
CIFAR = {"stride1": "layer1", "stride2": "layer2", "stride4": "layer3", "pre_logits": "avgpool"}


def small_resnet(depth: int) -> TorchOracle:
    """Section 4.2's network, which torchvision lacks, of torchvision's blocks."""
    torchvision = import_torchvision()
    import torch
    from torch import nn

    class OptionA(nn.Module):
        def __init__(self, missing: int):
            super().__init__()
            self.missing = missing

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sides = (0, 0, 0, 0, self.missing // 2, self.missing // 2)
            return nn.functional.pad(nn.functional.avg_pool2d(x, 1, 2), sides)

    def stage(before: int, features: int) -> nn.Sequential:
        block = torchvision.models.resnet.BasicBlock
        first = (
            block(before, features, 2, OptionA(features - before))
            if before != features
            else block(features, features)
        )
        return nn.Sequential(first, *(block(features, features) for _ in range(depth // 6 - 1)))

    parts = {
        "conv1": nn.Conv2d(3, 16, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(16),
        "relu": nn.ReLU(),
        "layer1": stage(16, 16),
        "layer2": stage(16, 32),
        "layer3": stage(32, 64),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(64, 10),
    }
    module = nn.Sequential()
    for name, part in parts.items():
        module.add_module(name, part)
    return TorchOracle(module)


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_parity_of_the_small_ones(depth, record_property):
    precisions = BOTH if depth == 20 else ("float32",)
    case = Case(f"resnet{depth}", "torchvision", 32, CIFAR, precisions)
    layout = Layout(case.name, torch_rules, unused=COUNTERS)
    compare(case, record_property, oracle=small_resnet(depth), layout=layout)
