"""MobileNet, V2 and V3 against torchvision, timm and Keras."""

import pytest

from tests.parity.compare import Case, compare

BOTH = ("float32", "float64")

V1_TIMM = {f"stride{2**i}": f"blocks.{i - 1}" for i in range(1, 6)} | {"pre_logits": "global_pool"}
V1_KERAS = {
    "stride2": "conv_pw_1_relu",
    "stride4": "conv_pw_3_relu",
    "stride8": "conv_pw_5_relu",
    "stride16": "conv_pw_11_relu",
    "stride32": "conv_pw_13_relu",
    "pre_logits": "global_average_pooling2d",
}

V2_TORCHVISION = {
    "stride2": "features.1",
    "stride4": "features.3",
    "stride8": "features.6",
    "stride16": "features.13",
    "stride32": "features.18",
    "pre_logits": "classifier.0",  # dropout
}
V2_TIMM = {
    "stride2": "blocks.0",
    "stride4": "blocks.1",
    "stride8": "blocks.2",
    "stride16": "blocks.4",
    "stride32": "bn2",  # with its activation
    "pre_logits": "global_pool",
}
V2_KERAS = {
    "stride2": "expanded_conv_project_BN",
    "stride4": "block_2_add",
    "stride8": "block_5_add",
    "stride16": "block_12_add",
    "stride32": "out_relu",
    "pre_logits": "global_average_pooling2d",
}

LARGE_TORCHVISION = {
    "stride2": "features.1",
    "stride4": "features.3",
    "stride8": "features.6",
    "stride16": "features.12",
    "stride32": "features.16",
    "pre_logits": "classifier.2",  # dropout
}
LARGE_TIMM = {
    "stride2": "blocks.0",
    "stride4": "blocks.1",
    "stride8": "blocks.2",
    "stride16": "blocks.4",
    "stride32": "blocks.6",
    "pre_logits": "act2",
}
LARGE_KERAS = {
    "stride2": "expanded_conv_add",
    "stride4": "expanded_conv_2_add",
    "stride8": "expanded_conv_5_add",
    "stride16": "expanded_conv_11_add",
    "stride32": "activation_19",
    "pre_logits": "activation_20",
}
SMALL_TORCHVISION = {
    "stride2": "features.0",
    "stride4": "features.1",
    "stride8": "features.3",
    "stride16": "features.8",
    "stride32": "features.12",
    "pre_logits": "classifier.2",
}
SMALL_TIMM = {
    "stride2": "bn1",
    "stride4": "blocks.0",
    "stride8": "blocks.1",
    "stride16": "blocks.3",
    "stride32": "blocks.5",
    "pre_logits": "act2",
}
SMALL_KERAS = {
    "stride2": "activation",
    "stride4": "expanded_conv_project_bn",
    "stride8": "expanded_conv_2_add",
    "stride16": "expanded_conv_7_add",
    "stride32": "activation_17",
    "pre_logits": "activation_18",
}

RAW = {"include_preprocessing": False}  # the images are normalised already

# Keras's V1 pads odd maps by one column too few for "SAME": multiples of 32 only.
CASES = [
    Case("mobilenet_v1", "timm", 45, V1_TIMM, BOTH),
    Case("mobilenet_v1", "keras", 64, V1_KERAS, BOTH),
    Case("mobilenet_v1_075", "keras", 64, V1_KERAS, arguments={"alpha": 0.75}),
    Case("mobilenet_v1_050", "keras", 64, V1_KERAS, arguments={"alpha": 0.5}),
    Case("mobilenet_v1_025", "keras", 64, V1_KERAS, arguments={"alpha": 0.25}),
    Case("mobilenet_v2", "torchvision", 45, V2_TORCHVISION, BOTH),
    Case("mobilenet_v2", "timm", 64, V2_TIMM),
    Case("mobilenet_v2", "keras", 50, V2_KERAS, BOTH),
    Case("mobilenet_v2_035", "timm", 64, V2_TIMM),
    Case("mobilenet_v2_050", "timm", 64, V2_TIMM),
    Case("mobilenet_v2_075", "timm", 64, V2_TIMM),
    Case("mobilenet_v2_130", "keras", 64, V2_KERAS, arguments={"alpha": 1.3}),
    Case("mobilenet_v2_140", "timm", 64, V2_TIMM),
    Case("mobilenet_v3_small", "torchvision", 45, SMALL_TORCHVISION, BOTH),
    Case("mobilenet_v3_small", "timm", 64, SMALL_TIMM),
    Case("mobilenet_v3_small", "timm-tf", 50, SMALL_TIMM),
    Case("mobilenet_v3_small", "keras", 50, SMALL_KERAS, BOTH, arguments=RAW),
    Case("mobilenet_v3_large", "torchvision", 45, LARGE_TORCHVISION, BOTH),
    Case("mobilenet_v3_large", "timm", 64, LARGE_TIMM),
    Case("mobilenet_v3_large", "timm-tf", 50, LARGE_TIMM),
    Case("mobilenet_v3_large", "keras", 50, LARGE_KERAS, arguments=RAW),
    Case(
        "mobilenet_v3_large",
        "keras",
        64,
        LARGE_KERAS,
        fields={"width_mult": 0.75},
        arguments={"alpha": 0.75, **RAW},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case, record_property):
    compare(case, record_property)
