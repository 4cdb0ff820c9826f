"""ResNet's modules in torchvision, timm and Keras."""

from zoo.models.resnet import ResNet
from zoo.models.resnet_v2 import ResNetV2
from zoo.weights.layouts import COUNTERS, Layout, Rules


def torch_rules(model: ResNet) -> Rules:
    """Of torchvision and timm, which agree."""
    del model
    block = r"stage(\d)_block(\d+)/"
    return [
        ("stem_conv", "conv1"),
        ("stem_bn", "bn1"),
        ("head", "fc"),
        (block + r"(conv\d|bn\d)", lambda s, b, name: f"layer{s}.{b - 1}.{name}"),
        (block + "downsample_conv", lambda s, b: f"layer{s}.{b - 1}.downsample.0"),
        (block + "downsample_bn", lambda s, b: f"layer{s}.{b - 1}.downsample.1"),
    ]


def keras_rules(model: ResNet | ResNetV2) -> Rules:
    """Of `keras.applications`, v1 and v2: the stem is its stage 1, shortcuts are number 0."""
    del model
    block = r"stage(\d)_block(\d+)/"
    return [
        ("stem_conv", "conv1_conv"),
        ("stem_bn", "conv1_bn"),
        ("final_bn", "post_bn"),
        ("head", "predictions"),
        (block + "preact_bn", lambda s, b: f"conv{s + 1}_block{b}_preact_bn"),
        (block + r"downsample_(conv|bn)", lambda s, b, kind: f"conv{s + 1}_block{b}_0_{kind}"),
        (block + r"(conv|bn)(\d)", lambda s, b, kind, i: f"conv{s + 1}_block{b}_{i}_{kind}"),
    ]


_TORCH = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_TORCH += ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
_TORCH += ("wide_resnet50_2", "wide_resnet101_2")

LAYOUTS = {
    **{
        name: {
            "torchvision": Layout(name, torch_rules, unused=COUNTERS),
            "timm": Layout(name, torch_rules, unused=COUNTERS),
        }
        for name in _TORCH
    },
    **{f"resnet{n}_v1": {"keras": Layout(f"ResNet{n}", keras_rules)} for n in (50, 101, 152)},
    **{f"resnet{n}_v2": {"keras": Layout(f"ResNet{n}V2", keras_rules)} for n in (50, 101, 152)},
}
