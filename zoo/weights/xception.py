"""Xception's modules in Keras and timm."""

from zoo.models.xception import Xception
from zoo.weights.layouts import COUNTERS, Layout, Rules


def keras_rules(model: Xception) -> Rules:
    """Of `keras.applications`: the stem is its block 1; shortcuts have no names of their own."""
    del model
    first = {"entry": 1, "middle": 4, "exit": 12}  # blocks in front of the flow, stem included

    def downsample(flow: str, block: int | None, kind: str) -> str:
        layer = "conv2d" if kind == "conv" else "batch_normalization"
        number = 3 if flow == "exit" else (block or 1) - 1
        return f"{layer}_{number}" if number else layer

    def inside(flow: str, block: int | None, rest: str) -> str:
        return f"block{first[flow] + (block or 1)}_{rest}"

    block = r"(entry|middle|exit)_block(\d*)/"
    part = r"sep_conv(\d)/(depthwise|pointwise)"
    return [
        (r"stem_conv(\d)", r"block1_conv\1"),
        (r"stem_bn(\d)", r"block1_conv\1_bn"),
        (block + r"downsample_(conv|bn)", downsample),
        (block + part, lambda f, b, i, kind: inside(f, b, f"sepconv{i}:{kind}")),
        (block + r"bn(\d)", lambda f, b, i: inside(f, b, f"sepconv{i}_bn")),
        ("exit_" + part, r"block14_sepconv\1:\2"),
        (r"exit_bn(\d)", r"block14_sepconv\1_bn"),
        ("head", "predictions"),
    ]


def timm_rules(model: Xception) -> Rules:
    """Of timm's `legacy_xception`: blocks 1 to 12, in which ReLUs have numbers, too."""
    del model
    first = {"entry": 0, "middle": 3, "exit": 11}  # blocks in front of the flow

    def inside(flow: str, block: int | None, layer: int, rest: str) -> str:
        number = first[flow] + (block or 1)
        relu = 0 if number == 1 else 1  # its block 1 does not begin with one
        place = 3 * (layer - 1) + relu + (rest == "bn")
        return f"block{number}.rep.{place}" + ("" if rest == "bn" else f".{rest}")

    def downsample(flow: str, block: int | None, kind: str) -> str:
        return f"block{first[flow] + (block or 1)}.skip{'' if kind == 'conv' else 'bn'}"

    def kernel(kind: str) -> str:
        return "conv1" if kind == "depthwise" else kind

    block = r"(entry|middle|exit)_block(\d*)/"
    part = r"sep_conv(\d)/(depthwise|pointwise)"
    return [
        (r"stem_(conv|bn)(\d)", r"\1\2"),
        (block + r"downsample_(conv|bn)", downsample),
        (block + part, lambda f, b, i, kind: inside(f, b, i, kernel(kind))),
        (block + r"bn(\d)", lambda f, b, i: inside(f, b, i, "bn")),
        ("exit_" + part, lambda i, kind: f"conv{i + 2}.{kernel(kind)}"),
        (r"exit_bn(\d)", lambda i: f"bn{i + 2}"),
        ("head", "fc"),
    ]


TIMM_FIELDS = {"padding": "symmetric", "norm_epsilon": 1e-5, "norm_momentum": 0.9}

LAYOUTS = {
    "xception": {
        "keras": Layout("Xception", keras_rules),
        "timm": Layout("legacy_xception", timm_rules, TIMM_FIELDS, COUNTERS),
    }
}
