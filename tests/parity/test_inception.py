"""The Inception networks against torchvision, timm, Keras and ONNX."""

import pytest

from tests.parity.compare import Case, compare

BOTH = ("float32", "float64")
QUICK = {"init_weights": False}  # torchvision's own takes a minute

GOOGLENET = {
    "stride2": "conv1",
    "stride4": "conv3",
    "stride8": "inception3b",
    "stride16": "inception4e",
    "stride32": "inception5b",
    "pre_logits": "avgpool",
    "aux_logits1": "aux1",
    "aux_logits2": "aux2",
}
# Values of the graph: after the second LRN, after the last concatenation of each stage.
GOOGLENET_2014 = {
    "stride2": "r1",
    "stride4": "r8",
    "stride8": "r37",
    "stride16": "r108",
    "stride32": "r137",
    "pre_logits": "r138",
}
V3_TIMM = {
    "stride2": "Conv2d_2b_3x3",
    "stride4": "Conv2d_4a_3x3",
    "stride8": "Mixed_5d",
    "stride16": "Mixed_6e",
    "stride32": "Mixed_7c",
    "pre_logits": "global_pool",
}
V3 = {**V3_TIMM, "pre_logits": "avgpool", "aux_logits1": "AuxLogits"}
V3_KERAS = {
    "stride2": "activation_2",
    "stride4": "activation_4",
    "stride8": "mixed2",
    "stride16": "mixed7",
    "stride32": "mixed10",
    "pre_logits": "avg_pool",
}
V4 = {
    "stride2": "features.2",
    "stride4": "features.4",
    "stride8": "features.9",
    "stride16": "features.17",
    "stride32": "features.21",
    "pre_logits": "global_pool",
}
RESNET = {
    "stride2": "conv2d_2b",
    "stride4": "conv2d_4a",
    "stride8": "repeat",
    "stride16": "repeat_1",
    "stride32": "conv2d_7b",
    "pre_logits": "global_pool",
}
RESNET_KERAS = {
    "stride2": "activation_2",
    "stride4": "activation_4",
    "stride8": "block35_10_ac",
    "stride16": "block17_20_ac",
    "stride32": "conv_7b_ac",
    "pre_logits": "avg_pool",
}

CASES = [
    Case("googlenet", "torchvision", 64, GOOGLENET, BOTH, arguments=QUICK),
    Case("googlenet", "torchvision", 99, GOOGLENET, arguments=QUICK),
    # Exported graphs lost Caffe's partial windows; at this size there are none.
    Case("googlenet_2014", "onnx", 222, GOOGLENET_2014, BOTH, arguments={"image_size": 222}),
    # torchvision's auxiliary head takes no less.
    Case("inception_v3", "torchvision", 299, V3, BOTH, arguments=QUICK),
    Case("inception_v3", "timm", 96, V3_TIMM),
    Case("inception_v3", "keras", 96, V3_KERAS, BOTH),
    Case("inception_v4", "timm", 96, V4, BOTH),
    Case("inception_resnet_v2", "timm", 96, RESNET, BOTH),
    Case("inception_resnet_v2", "keras", 79, RESNET_KERAS, BOTH),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case}-{case.image_size}")
def test_parity(case, record_property):
    compare(case, record_property)
