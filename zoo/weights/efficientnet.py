"""EfficientNet's modules, v1, Lite and v2, in torchvision, timm, Keras and PyTorch packages."""

from zoo.models.efficientnet import TENSORFLOW, VARIANTS, VARIANTS_LITE, EfficientNet
from zoo.models.efficientnet_v2 import VARIANTS as VARIANTS_V2
from zoo.models.efficientnet_v2 import FusedInvertedResidual
from zoo.weights.layouts import COUNTERS, Layout, Rules

BLOCK = r"stage(\d)_block(\d+)/"


def torchvision_rules(model: EfficientNet) -> Rules:
    """Everything is numbered: stages, and layers inside a block, which may lack the first."""

    def block(stage: int, number: int, part: str, kind: str) -> str:
        layers = ["depthwise", "se", "project"]
        if model.stages[stage - 1].block is FusedInvertedResidual:
            layers = ["project"]
        if model.stages[stage - 1].expansion != 1:
            layers.insert(0, "expand")
        return f"features.{stage}.{number - 1}.block.{layers.index(part)}.{kind}"

    def numbered(stage: int, number: int, part: str, kind: str) -> str:
        return block(stage, number, part, "0" if kind == "conv" else "1")

    last = len(model.stages) + 1
    return [
        ("stem_conv", "features.0.0"),
        ("stem_bn", "features.0.1"),
        ("head_conv", f"features.{last}.0"),
        ("head_bn", f"features.{last}.1"),
        ("head", "classifier.1"),
        (BLOCK + "se/reduce", lambda s, b: block(s, b, "se", "fc1")),
        (BLOCK + "se/expand", lambda s, b: block(s, b, "se", "fc2")),
        (BLOCK + r"(expand|depthwise|project)_(conv|bn)", numbered),
        (BLOCK + "conv", lambda s, b: f"features.{s}.{b - 1}.block.0.0"),
        (BLOCK + "bn", lambda s, b: f"features.{s}.{b - 1}.block.0.1"),
    ]


def timm_rules(model: EfficientNet) -> Rules:
    """Convolutions go by what they do, their BatchNorms by the order they come in."""

    def parts(stage: int) -> dict[str, str]:
        row = model.stages[stage - 1]
        if row.block is FusedInvertedResidual:
            return {"expand": "conv_exp", "project": "conv_pwl"}
        if row.expansion == 1:
            return {"depthwise": "conv_dw", "project": "conv_pw"}
        return {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}

    def conv(stage: int, number: int, part: str) -> str:
        return f"blocks.{stage - 1}.{number - 1}.{parts(stage)[part]}"

    def norm(stage: int, number: int, part: str) -> str:
        return f"blocks.{stage - 1}.{number - 1}.bn{list(parts(stage)).index(part) + 1}"

    return [
        ("stem_conv", "conv_stem"),
        ("stem_bn", "bn1"),
        ("head_conv", "conv_head"),
        ("head_bn", "bn2"),
        ("head", "classifier"),
        (BLOCK + r"se/(\w+)", lambda s, b, part: f"blocks.{s - 1}.{b - 1}.se.conv_{part}"),
        (BLOCK + r"(\w+)_conv", conv),
        (BLOCK + r"(\w+)_bn", norm),
        (BLOCK + "conv", lambda s, b: f"blocks.{s - 1}.{b - 1}.conv"),
        (BLOCK + "bn", lambda s, b: f"blocks.{s - 1}.{b - 1}.bn1"),
    ]


def keras_rules(model: EfficientNet) -> Rules:
    """Blocks of a stage have letters."""
    del model

    def part(stage: int, number: int, name: str) -> str:
        names = {"depthwise_conv": "dwconv", "depthwise_bn": "bn"}
        name = names.get(name, name.replace("/", "_"))
        return f"block{stage}{chr(ord('a') + number - 1)}_{name}"

    return [
        (r"(stem_conv|stem_bn)", r"\1"),
        (r"head_(conv|bn)", r"top_\1"),
        ("head", "predictions"),
        (BLOCK + r"(.+)", part),
    ]


def efficientnet_pytorch_rules(model: EfficientNet) -> Rules:
    """Of the package `efficientnet_pytorch`: blocks are numbered through, from 0."""
    stages = model.scaled_stages()
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}

    def block(stage: int, number: int) -> str:
        return f"_blocks.{sum(s.layers for s in stages[: stage - 1]) + number - 1}"

    return [
        ("stem_conv", "_conv_stem"),
        ("stem_bn", "_bn0"),
        ("head_conv", "_conv_head"),
        ("head_bn", "_bn1"),
        ("head", "_fc"),
        (BLOCK + r"se/(\w+)", lambda s, b, part: f"{block(s, b)}._se_{part}"),
        (BLOCK + r"(\w+)_conv", lambda s, b, part: f"{block(s, b)}._{part}_conv"),
        (BLOCK + r"(\w+)_bn", lambda s, b, part: f"{block(s, b)}.{norms[part]}"),
    ]


# Keras normalises images inside the network.
NORMALISATION = (r"normalization/\d+",)

TORCH = {"norm_momentum": 0.9}  # its default
TIMM = {"padding": "symmetric", "norm_epsilon": 1e-5, "norm_momentum": 0.9}

LAYOUTS = {
    **{
        name: {
            "torchvision": Layout(
                name, torchvision_rules, {} if name[-1] in "567" else TORCH, COUNTERS
            ),
            "timm": Layout(name, timm_rules, TIMM, COUNTERS),
            "timm-tf": Layout(f"tf_{name}", timm_rules, TENSORFLOW | TORCH, COUNTERS),
            "keras": Layout(
                f"EfficientNet{name[-2:].upper()}", keras_rules, TENSORFLOW, NORMALISATION
            ),
        }
        for name in VARIANTS
    },
    **{
        name: {
            "timm": Layout(name, timm_rules, TIMM, COUNTERS),
            "timm-tf": Layout(f"tf_{name}", timm_rules, TORCH, COUNTERS),
        }
        for name in VARIANTS_LITE
    },
    **{
        name: {
            "torchvision": Layout(name, torchvision_rules, unused=COUNTERS),
            "timm": Layout(
                f"efficientnetv2_{name[-1]}", timm_rules, {"norm_epsilon": 1e-5}, COUNTERS
            ),
            "timm-tf": Layout(
                f"tf_efficientnetv2_{name[-1]}", timm_rules, {"padding": "SAME"}, COUNTERS
            ),
        }
        for name in VARIANTS_V2
    },
}
for _name in (*VARIANTS, *VARIANTS_LITE):
    LAYOUTS[_name]["efficientnet-pytorch"] = Layout(
        _name.replace("_", "-"), efficientnet_pytorch_rules, TENSORFLOW, COUNTERS
    )
