"""The modules of the Inception networks in torchvision, timm, Keras and ONNX."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from zoo.models.googlenet import GoogLeNet, GoogLeNet2014, Unit
from zoo.models.inception import InceptionV3
from zoo.models.inception_resnet import InceptionResNetV2
from zoo.models.inception_v4 import InceptionV4
from zoo.weights.layouts import COUNTERS, Layout, Rules

UNIT = r"/(conv|bn)"  # the parts of a `Unit`, called the same in torch
BRANCH = r"stage(\d)_block(\d+)/branch(\d)_(\d)([ab]?)"


def googlenet_torch(model: GoogLeNet) -> Rules:
    """Of torchvision."""
    del model

    def unit(stage: int, block: int, branch: int, i: int, _: str, part: str) -> str:
        # The last branch begins with its pooling, the first is no sequence.
        place = {1: "", 4: ".1"}.get(branch, f".{i - 1}")
        return f"inception{stage + 2}{'abcde'[block - 1]}.branch{branch}{place}.{part}"

    return [
        (r"stem(\d)" + UNIT, r"conv\1.\2"),
        (BRANCH + UNIT, unit),
        (r"aux(\d)_conv" + UNIT, r"aux\1.conv.\2"),
        (r"aux(\d)_dense", r"aux\1.fc1"),
        (r"aux(\d)_head", r"aux\1.fc2"),
        ("head", "fc"),
    ]


def googlenet_onnx(model: GoogLeNet2014) -> Rules:
    """Of Caffe's reference model, which has no auxiliary heads once it is exported."""
    del model
    kinds = (("1x1",), ("3x3_reduce", "3x3"), ("5x5_reduce", "5x5"), ("pool_proj",))

    def unit(stage: int, block: int, branch: int, i: int, _: str) -> str:
        return f"inception_{stage + 2}{'abcde'[block - 1]}/{kinds[branch - 1][i - 1]}"

    return [
        ("stem1/conv", "conv1/7x7_s2"),
        ("stem2/conv", "conv2/3x3_reduce"),
        ("stem3/conv", "conv2/3x3"),
        (BRANCH + "/conv", unit),
        ("head", "loss3/classifier"),
    ]


# torchvision's names of Inception v3's branches, by stage and by whether the map is halved.
V3_BRANCHES = {
    (1, False): ("1x1", "5x5_", "3x3dbl_", "_pool"),
    (2, True): ("3x3", "3x3dbl_"),
    (2, False): ("1x1", "7x7_", "7x7dbl_", "_pool"),
    (3, True): ("3x3_", "7x7x3_"),
    (3, False): ("1x1", "3x3_", "3x3dbl_", "_pool"),
}


def v3_torch(model: InceptionV3) -> Rules:
    """Of torchvision and timm, which agree."""
    del model
    stem = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")

    def unit(stage: int, block: int, branch: int, i: int, fork: str, part: str) -> str:
        name = V3_BRANCHES[stage, stage > 1 and block == 1][branch - 1]
        place = f"{i}{fork}" if name.endswith("_") else ""
        # TensorFlow's letters: those of stage 1 begin behind the pooling, 5a.
        letter = "abcdef"[block if stage == 1 else block - 1]
        return f"Mixed_{stage + 4}{letter}.branch{name}{place}.{part}"

    return [
        (r"stem(\d)" + UNIT, lambda i, part: f"Conv2d_{stem[i - 1]}.{part}"),
        (BRANCH + UNIT, unit),
        (r"aux1_conv(\d)" + UNIT, lambda i, part: f"AuxLogits.conv{i - 1}.{part}"),
        ("aux1_head", "AuxLogits.fc"),
        ("head", "fc"),
    ]


def timm_place(branch: int, i: int, fork: str, lengths: tuple[int, ...]) -> str:
    """Returns timm's name of a unit, given how many each branch of its block has.

    A branch of one is no sequence, unless it begins with its pooling (the fourth).
    """
    if branch == 4:
        return "branch3.1"
    if fork or 0 in lengths[branch - 1 : branch]:  # blocks that fork have no sequences
        return f"branch{branch - 1}_{i - 1}{fork}"
    return f"branch{branch - 1}" + (f".{i - 1}" if lengths[branch - 1] > 1 else "")


# Units of each branch, by stage and by whether the map is halved; 0 for one that forks.
V4_LENGTHS = {
    (1, False): (1, 2, 3),
    (2, True): (1, 3),
    (2, False): (1, 3, 5),
    (3, True): (2, 4),
    (3, False): (1, 0, 0),
}
RESNET_LENGTHS = {
    (1, False): (1, 2, 3),
    (2, True): (1, 3),
    (2, False): (1, 3),
    (3, True): (2, 2, 3),
    (3, False): (1, 3),
}


def v4_timm(model: InceptionV4) -> Rules:
    """Of timm, one sequence of stem, blocks and reductions."""
    del model

    def unit(stage: int, block: int, branch: int, i: int, fork: str, part: str) -> str:
        lengths = V4_LENGTHS[stage, stage > 1 and block == 1]
        first = {1: 6, 2: 10, 3: 18}[stage]
        return f"features.{first + block - 1}.{timm_place(branch, i, fork, lengths)}.{part}"

    return [
        (r"stem([123])" + UNIT, lambda i, part: f"features.{i - 1}.{part}"),
        (r"stem([46])" + UNIT, lambda i, part: f"features.{i - 1}.conv.{part}"),
        (
            r"stem5/branch(\d)_(\d)" + UNIT,
            lambda branch, i, part: f"features.4.branch{branch - 1}.{i - 1}.{part}",
        ),
        (BRANCH + UNIT, unit),
        ("head", "last_linear"),
    ]


def resnet_timm(model: InceptionResNetV2) -> Rules:
    """Of timm, whose last block has a name of its own."""
    del model
    stem = ("1a", "2a", "2b", "3b", "4a")

    def block_name(stage: int, block: int) -> str:
        if block == 1:
            return ("mixed_5b", "mixed_6a", "mixed_7a")[stage - 1]
        if (stage, block) == (3, 11):
            return "block8"
        return f"{('repeat', 'repeat_1', 'repeat_2')[stage - 1]}.{block - 2}"

    def unit(stage: int, block: int, branch: int, i: int, fork: str, part: str) -> str:
        lengths = RESNET_LENGTHS[stage, stage > 1 and block == 1]
        return f"{block_name(stage, block)}.{timm_place(branch, i, fork, lengths)}.{part}"

    return [
        (r"stem(\d)" + UNIT, lambda i, part: f"conv2d_{stem[i - 1]}.{part}"),
        (BRANCH + UNIT, unit),
        (r"stage(\d)_block(\d+)/project", lambda s, b: f"{block_name(s, b)}.conv2d"),
        ("final" + UNIT, r"conv2d_7b.\1"),
        ("head", "classif"),
    ]


def units_in_order(model: Any) -> list[str]:
    """Returns the paths of all units, in the order in which the network calls them."""
    paths = []

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, Unit):
            paths.append("/".join(context.module.path))
        return call(*args, **kwargs)

    size = model.smallest_image
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    return paths


def keras_rules(model: InceptionV3 | InceptionResNetV2) -> Rules:
    """Of `keras.applications`, which numbers most layers in the order of their creation."""
    blocks = ("block35", "block17", "block8")
    order = units_in_order(model)

    def unit(path: str, part: str) -> str:
        layer = {"conv": "conv2d", "bn": "batch_normalization"}[part]
        number = order.index(path)
        return f"{layer}_{number}" if number else layer

    return [
        ("final/conv", "conv_7b"),
        ("final/bn", "conv_7b_bn"),
        ("head", "predictions"),
        (
            r"stage(\d)_block(\d+)/project",
            lambda stage, block: f"{blocks[stage - 1]}_{block - 1}_conv",
        ),
        ("(.+)" + UNIT, unit),
    ]


_KERAS_V3 = {"aux_heads": False, "norm_scale": False, "count_include_pad": False}

LAYOUTS = {
    "googlenet": {"torchvision": Layout("googlenet", googlenet_torch, unused=COUNTERS)},
    "googlenet_2014": {"onnx": Layout("inception_v1", googlenet_onnx, {"aux_heads": False})},
    "inception_v3": {
        "torchvision": Layout("inception_v3", v3_torch, unused=COUNTERS),
        # timm leaves the auxiliary head out, though some of its files have one.
        "timm": Layout(
            "inception_v3", v3_torch, {"aux_heads": False}, (*COUNTERS, r"AuxLogits\..*")
        ),
        "keras": Layout("InceptionV3", keras_rules, _KERAS_V3),
    },
    "inception_v4": {"timm": Layout("inception_v4", v4_timm, unused=COUNTERS)},
    "inception_resnet_v2": {
        "timm": Layout("inception_resnet_v2", resnet_timm, unused=COUNTERS),
        "keras": Layout("InceptionResNetV2", keras_rules, {"norm_scale": False}),
    },
}
