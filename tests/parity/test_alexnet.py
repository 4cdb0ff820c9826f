"""AlexNet against torchvision (one tower) and onnxruntime (two groups)."""

import pytest

from tests.parity.compare import Case, compare

BOTH = ("float32", "float64")

TORCHVISION = {
    "stride4": "features.1",
    "stride8": "features.4",
    "stride16": "features.11",
    "stride32": "features.12",
    "pre_logits": "classifier.5",
}
# Behind normalisation, normalisation, ReLU, pooling and ReLU.
ONNX = {"stride4": "r2", "stride8": "r6", "stride16": "r13", "stride32": "r14", "pre_logits": "r21"}

CASES = [
    Case("alexnet", "torchvision", 63, TORCHVISION),  # one pixel is left, spread over 6x6
    Case("alexnet", "torchvision", 161, TORCHVISION, BOTH),  # 4x4 are
    Case("alexnet", "torchvision", 224, TORCHVISION),
    Case("alexnet_2012", "onnx", 224, ONNX, BOTH),  # the size of the graph
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case, record_property):
    compare(case, record_property)
