"""EfficientNet, v1, Lite and v2, against torchvision, timm, Keras and PyTorch packages."""

import pytest

from tests.parity.compare import Case, compare

BOTH = ("float32", "float64")
CALM = {"gain": 1.0}  # for stages of many blocks, see random_array

LAST = {"stride2": 1, "stride4": 2, "stride8": 3, "stride16": 5}  # stages
TIMM = {name: f"blocks.{stage - 1}" for name, stage in LAST.items()}
TIMM |= {"stride32": "bn2", "pre_logits": "global_pool"}
# The package has no stages; its activation behind the head is the last one called.
PYTORCH = {f"stride{2**i}": f"_blocks.{n}" for i, n in enumerate((0, 2, 4, 10), 1)}
PYTORCH |= {"stride32": "_swish", "pre_logits": "_dropout"}
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
    Case("efficientnet_b0", "timm", 50, TIMM),
    Case("efficientnet_b0", "timm-tf", 50, TIMM, BOTH),
    Case("efficientnet_b0", "efficientnet-pytorch", 50, PYTORCH, BOTH),
    *(
        Case(f"efficientnet_b{i}", "timm", 32, TIMM, arguments=CALM if i > 3 else {})
        for i in range(1, 6)
    ),
    *(
        Case(f"efficientnet_b{i}", "timm-tf", 32, TIMM, arguments=CALM if i > 3 else {})
        for i in range(1, 6)
    ),
    Case("efficientnet_b0", "keras", 50, KERAS),
    Case("efficientnet_lite0", "timm-tf", 50, TIMM, BOTH),
    Case("efficientnet_lite0", "timm", 50, TIMM),
    Case("efficientnet_lite0", "efficientnet-pytorch", 50, PYTORCH, BOTH),
    Case("efficientnet_lite1", "timm-tf", 33, TIMM),
    Case("efficientnet_lite2", "timm-tf", 32, TIMM),
    Case("efficientnet_lite3", "timm-tf", 32, TIMM),
    Case("efficientnet_lite4", "timm-tf", 32, TIMM),
    Case("efficientnet_v2_s", "torchvision", 33, torchvision(6), BOTH, arguments=CALM),
    Case("efficientnet_v2_m", "torchvision", 32, torchvision(), arguments=CALM),
    Case("efficientnet_v2_l", "torchvision", 32, torchvision(), arguments=CALM),
    Case("efficientnet_v2_s", "timm", 50, TIMM, arguments=CALM),
    Case("efficientnet_v2_s", "timm-tf", 50, TIMM, BOTH, arguments=CALM),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case, record_property):
    compare(case, record_property)
