"""Xception against Keras and timm."""

import pytest

from tests.parity.compare import Case, compare

BOTH = ("float32", "float64")

KERAS = {
    "stride2": "block1_conv2_act",
    "stride4": "add",
    "stride8": "add_1",
    "stride16": "add_10",
    "stride32": "block14_sepconv2_act",
    "pre_logits": "avg_pool",
}
TIMM = {
    "stride2": "act2",
    "stride4": "block1",
    "stride8": "block2",
    "stride16": "block11",
    "stride32": "act4",
    "pre_logits": "global_pool",
}

# Pooling sees maps of even size, where the two ways of padding differ.
CASES = [
    Case("xception", "keras", 78, KERAS, BOTH),
    Case("xception", "timm", 46, TIMM, BOTH),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case, record_property):
    compare(case, record_property)
