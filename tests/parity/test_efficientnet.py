"""EfficientNet, v1, Lite and v2, against torchvision, timm and Keras."""

import pytest

from tests.parity.compare import Case, compare

BOTH = ("float32", "float64")
CALM = {"gain": 1.0}  # for stages of many blocks, see random_array
SYMMETRIC = {"padding": "symmetric", "norm_epsilon": 1e-5}

LAST = {"stride2": 1, "stride4": 2, "stride8": 3, "stride16": 5}  # stages
TIMM = {name: f"blocks.{stage - 1}" for name, stage in LAST.items()}
TIMM |= {"stride32": "bn2", "pre_logits": "global_pool"}
KERAS = {
    "stride2": "block1a_project_bn",
    "stride4": "block2b_add",
    "stride8": "block3b_add",
    "stride16": "block5c_add",
    "stride32": "top_activation",
    "pre_logits": "avg_pool",
}


def torchvision(stages: int = 7) -> dict[str, str]:
    """Stages are numbered, as is the 1x1 convolution behind them."""
    ends = {name: f"features.{stage}" for name, stage in LAST.items()}
    return {**ends, "stride32": f"features.{stages + 1}", "pre_logits": "avgpool"}


CASES = [
    Case("efficientnet_b0", "torchvision", 33, torchvision(), BOTH),
    Case("efficientnet_b1", "torchvision", 32, torchvision()),
    Case("efficientnet_b2", "torchvision", 35, torchvision()),
    Case("efficientnet_b3", "torchvision", 32, torchvision()),
    Case("efficientnet_b4", "torchvision", 32, torchvision(), arguments=CALM),
    Case("efficientnet_b5", "torchvision", 32, torchvision(), arguments=CALM),
    Case("efficientnet_b6", "torchvision", 32, torchvision(), arguments=CALM),
    Case("efficientnet_b7", "torchvision", 32, torchvision(), arguments=CALM),
    Case("efficientnet_b0", "timm", 50, TIMM, BOTH),  # as TensorFlow has it
    Case(  # and symmetric
        "efficientnet_b0",
        "timm",
        50,
        TIMM,
        fields=SYMMETRIC,
        arguments={"pad_type": "", "bn_eps": 1e-5},
    ),
    Case("efficientnet_b0", "keras", 50, KERAS),
    Case("efficientnet_lite0", "timm", 50, TIMM, BOTH),
    Case("efficientnet_lite1", "timm", 33, TIMM),
    Case("efficientnet_lite2", "timm", 32, TIMM),
    Case("efficientnet_lite3", "timm", 32, TIMM),
    Case("efficientnet_lite4", "timm", 32, TIMM),
    Case("efficientnet_v2_s", "torchvision", 33, torchvision(6), BOTH, arguments=CALM),
    Case("efficientnet_v2_m", "torchvision", 32, torchvision(), arguments=CALM),
    Case("efficientnet_v2_l", "torchvision", 32, torchvision(), arguments=CALM),
    Case("efficientnet_v2_s", "timm", 50, TIMM, BOTH, arguments=CALM),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case, record_property):
    compare(case, record_property)
