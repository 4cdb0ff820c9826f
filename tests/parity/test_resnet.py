"""ResNet against torchvision, timm and Keras."""

import pytest

from tests.parity.compare import Case, compare

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
