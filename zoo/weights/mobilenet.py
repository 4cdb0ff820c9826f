"""The modules of MobileNet, V2 and V3 in torchvision, timm and Keras."""

from zoo.models import mobilenet_v1, mobilenet_v2
from zoo.models.mobilenet_v1 import MobileNetV1
from zoo.models.mobilenet_v2 import MobileNetV2
from zoo.models.mobilenet_v3 import MobileNetV3
from zoo.weights.layouts import COUNTERS, Layout, Rules

BLOCK = r"stage(\d)_block(\d)/"


def block_names(model: MobileNetV1 | MobileNetV2 | MobileNetV3) -> list[str]:
    """Returns our names of all blocks in order."""
    if isinstance(model, MobileNetV1):
        sizes = model.stage_sizes
    elif isinstance(model, MobileNetV2):
        sizes = tuple(n for _, _, n, _ in model.stages)
    else:
        sizes = tuple(len(rows) for rows in model.stages)
    return [f"stage{s}_block{i}" for s, size in enumerate(sizes, 1) for i in range(1, size + 1)]


def v1_timm_rules(model: MobileNetV1) -> Rules:
    """Of timm's `mobilenetv1_100`."""
    del model
    parts = {"depthwise_conv": "conv_dw", "depthwise_bn": "bn1"}
    parts |= {"pointwise_conv": "conv_pw", "pointwise_bn": "bn2"}
    return [
        ("stem_conv", "conv_stem"),
        ("stem_bn", "bn1"),
        ("head", "classifier"),
        (BLOCK + "(.*)", lambda s, b, part: f"blocks.{s - 1}.{b - 1}.{parts[part]}"),
    ]


def v1_keras_rules(model: MobileNetV1) -> Rules:
    """Of `keras.applications.MobileNet`, which numbers blocks from 1."""
    rules = [("stem_conv", "conv1"), ("stem_bn", "conv1_bn"), ("head", "conv_preds")]
    for i, name in enumerate(block_names(model)):
        for ours, theirs in (("depthwise", "dw"), ("pointwise", "pw")):
            rules.append((f"{name}/{ours}_conv", f"conv_{theirs}_{i + 1}"))
            rules.append((f"{name}/{ours}_bn", f"conv_{theirs}_{i + 1}_bn"))
    return rules


def v2_torchvision_rules(model: MobileNetV2) -> Rules:
    """Of torchvision: blocks are numbered through, layers of a block as well."""
    names = block_names(model)
    last = f"features.{len(names) + 1}"
    rules = [
        ("stem_conv", "features.0.0"),
        ("stem_bn", "features.0.1"),
        ("last_conv", f"{last}.0"),
        ("last_bn", f"{last}.1"),
        ("head", "classifier.1"),
    ]
    expansions = [t for t, _, n, _ in model.stages for _ in range(n)]
    for i, (name, t) in enumerate(zip(names, expansions, strict=True), 1):
        theirs = f"features.{i}.conv"
        parts = ["depthwise"] if t == 1 else ["expand", "depthwise"]
        for place, part in enumerate(parts):
            rules.append((f"{name}/{part}_conv", f"{theirs}.{place}.0"))
            rules.append((f"{name}/{part}_bn", f"{theirs}.{place}.1"))
        rules.append((f"{name}/project_conv", f"{theirs}.{len(parts)}"))
        rules.append((f"{name}/project_bn", f"{theirs}.{len(parts) + 1}"))
    return rules


def v2_keras_rules(model: MobileNetV2) -> Rules:
    """Of `keras.applications.MobileNetV2`, whose block 0 has no number."""
    rules = [
        ("stem_conv", "Conv1"),
        ("stem_bn", "bn_Conv1"),
        ("last_conv", "Conv_1"),
        ("last_bn", "Conv_1_bn"),
        ("head", "predictions"),
    ]
    for i, name in enumerate(block_names(model)):
        block = f"block_{i}" if i else "expanded_conv"
        rules.append((name + r"/([a-z]+)_conv", block + r"_\1"))
        rules.append((name + r"/([a-z]+)_bn", block + r"_\1_BN"))
    return rules


def v3_torchvision_rules(model: MobileNetV3) -> Rules:
    """Of torchvision: blocks are numbered through, those layers that a block has as well."""
    names = block_names(model)
    last = f"features.{len(names) + 1}"
    rules = [
        ("stem_conv", "features.0.0"),
        ("stem_bn", "features.0.1"),
        ("last_conv", f"{last}.0"),
        ("last_bn", f"{last}.1"),
        ("hidden", "classifier.0"),
        ("head", "classifier.3"),
    ]
    inputs = 16  # of the next block
    rows = [row for rows in model.stages for row in rows]
    for i, (name, row) in enumerate(zip(names, rows, strict=True), 1):
        parts = ["expand"] if row.expanded != inputs else []
        parts += ["depthwise", "se", "project"] if row.squeeze_excite else ["depthwise", "project"]
        inputs = row.features
        for place, part in enumerate(parts):
            theirs = f"features.{i}.block.{place}"
            if part == "se":
                rules.append((f"{name}/se/reduce", f"{theirs}.fc1"))
                rules.append((f"{name}/se/expand", f"{theirs}.fc2"))
            else:
                rules.append((f"{name}/{part}_conv", f"{theirs}.0"))
                rules.append((f"{name}/{part}_bn", f"{theirs}.1"))
    return rules


def v3_keras_rules(model: MobileNetV3) -> Rules:
    """Of `keras.applications`, whose block 0 has no number and whose head is convolutions."""
    rules = [
        ("stem_conv", "conv"),
        ("stem_bn", "conv_bn"),
        ("last_conv", "conv_1"),
        ("last_bn", "conv_1_bn"),
        ("hidden", "conv_2"),
        ("head", "logits"),
    ]
    for i, name in enumerate(block_names(model)):
        block = f"expanded_conv_{i}" if i else "expanded_conv"
        rules.append((f"{name}/se/reduce", f"{block}_squeeze_excite_conv"))
        rules.append((f"{name}/se/expand", f"{block}_squeeze_excite_conv_1"))
        rules.append((name + r"/([a-z]+)_conv", block + r"_\1"))
        rules.append((name + r"/([a-z]+)_bn", block + r"_\1_bn"))
    return rules


def timm_rules(model: MobileNetV2 | MobileNetV3) -> Rules:
    """Of timm's V2 and V3: stages as ours; its first block, without expansion, counts from 1."""
    first = {"depthwise_conv": "conv_dw", "depthwise_bn": "bn1"}
    first |= {"project_conv": "conv_pw", "project_bn": "bn2"}
    other = {"expand_conv": "conv_pw", "expand_bn": "bn1", "depthwise_conv": "conv_dw"}
    other |= {"depthwise_bn": "bn2", "project_conv": "conv_pwl", "project_bn": "bn3"}

    def inside(stage: int, block: int, part: str) -> str:
        parts = first if stage == 1 else other
        theirs = f"se.conv_{part[3:]}" if part.startswith("se/") else parts[part]
        return f"blocks.{stage - 1}.{block - 1}.{theirs}"

    last = f"blocks.{len(model.stages)}.0"
    if isinstance(model, MobileNetV2):
        ends = [("last_conv", "conv_head"), ("last_bn", "bn2")]
    else:
        ends = [("last_conv", f"{last}.conv"), ("last_bn", f"{last}.bn1"), ("hidden", "conv_head")]
    return [
        ("stem_conv", "conv_stem"),
        ("stem_bn", "bn1"),
        ("head", "classifier"),
        *ends,
        (BLOCK + "(.*)", inside),
    ]


TIMM = {"padding": "symmetric", "norm_epsilon": 1e-5, "norm_momentum": 0.9}
KERAS = {"padding": "SAME", "norm_epsilon": 1e-3}
TIMM_TF = KERAS | {"norm_momentum": 0.9}

LAYOUTS = {
    **{name: {"keras": Layout("MobileNet", v1_keras_rules)} for name in mobilenet_v1.VARIANTS},
    **{
        name: {"keras": Layout("MobileNetV2", v2_keras_rules, KERAS)}
        for name in mobilenet_v2.VARIANTS
    },
    **{
        f"mobilenet_v3_{size}": {
            "torchvision": Layout(f"mobilenet_v3_{size}", v3_torchvision_rules, unused=COUNTERS),
            "timm": Layout(f"mobilenetv3_{size}_100", timm_rules, TIMM, COUNTERS),
            "timm-tf": Layout(f"tf_mobilenetv3_{size}_100", timm_rules, TIMM_TF, COUNTERS),
            "keras": Layout(f"MobileNetV3{size.title()}", v3_keras_rules, KERAS),
        }
        for size in ("large", "small")
    },
}
LAYOUTS["mobilenet_v1"]["timm"] = Layout("mobilenetv1_100", v1_timm_rules, TIMM, COUNTERS)
LAYOUTS["mobilenet_v2"] |= {
    "torchvision": Layout("mobilenet_v2", v2_torchvision_rules, unused=COUNTERS),
    "timm": Layout("mobilenetv2_100", timm_rules, unused=COUNTERS),
}
for _width in ("035", "050", "075", "140"):
    LAYOUTS[f"mobilenet_v2_{_width}"]["timm"] = Layout(
        f"mobilenetv2_{_width}", timm_rules, unused=COUNTERS
    )
