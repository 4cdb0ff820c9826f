"""VGG against torchvision, timm and Keras."""

import pytest

from tests.parity.compare import Case, compare
from zoo.models.vgg import SIZES

BOTH = ("float32", "float64")
SLIDING = {"fully_convolutional": True}


def numbered(depth: int, pre_logits: str, step: int = 2) -> dict[str, str]:
    """Layers of torchvision and timm: each stage's last ReLU, the last pooling, fc2's ReLU.

    `step` is 3 if there is BatchNorm between a convolution and its ReLU.
    """
    ends, number = {}, -1
    for stage, size in enumerate(SIZES[depth]):
        number += step * size
        ends[f"stride{2**stage}"] = f"features.{number}"
        number += 1
    return {**ends, "stride32": f"features.{number}", "pre_logits": pre_logits}


def torchvision(depth: int, step: int = 2) -> dict[str, str]:
    return numbered(depth, "classifier.4", step)


def timm(depth: int) -> dict[str, str]:
    return numbered(depth, "head.global_pool")


def keras(depth: int) -> dict[str, str]:
    ends = {f"stride{2**i}": f"block{i + 1}_conv{size}" for i, size in enumerate(SIZES[depth])}
    return {**ends, "stride32": "block5_pool", "pre_logits": "fc2"}


CASES = [
    Case("vgg11", "torchvision", 64, torchvision(11), BOTH),
    Case("vgg13", "torchvision", 64, torchvision(13)),
    Case("vgg16", "torchvision", 97, torchvision(16)),
    Case("vgg19", "torchvision", 64, torchvision(19)),
    Case("vgg11_bn", "torchvision", 65, torchvision(11, 3), BOTH),
    Case("vgg13_bn", "torchvision", 64, torchvision(13, 3)),
    Case("vgg16_bn", "torchvision", 64, torchvision(16, 3)),
    Case("vgg19_bn", "torchvision", 64, torchvision(19, 3)),
    Case("vgg16", "timm", 224, timm(16)),
    Case("vgg16", "keras", 224, keras(16)),
    Case("vgg19", "keras", 224, keras(19)),
    # timm slides fc1 and fc2 over a larger map and averages, as section 3.2 does: 2x2 here.
    Case("vgg11", "timm", 257, timm(11), BOTH, SLIDING),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case, record_property):
    compare(case, record_property)
