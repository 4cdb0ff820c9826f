"""VGG's modules in torchvision, timm and Keras."""

from zoo.models.vgg import VARIANTS, VGG
from zoo.weights.layouts import COUNTERS, Layout, Rules


def feature_rules(model: VGG) -> Rules:
    """Of torchvision and timm: all layers up to the last map are numbered through."""
    step = 3 if model.use_batch_norm else 2  # convolution, BatchNorm, ReLU

    def number(stage: int, kind: str, i: int) -> str:
        pools = stage - 1
        convolutions = sum(model.stage_sizes[: stage - 1]) + i - 1
        return f"features.{step * convolutions + pools + (kind == 'bn')}"

    return [(r"stage(\d)/(conv|bn)(\d)", number)]


def torchvision_rules(model: VGG) -> Rules:
    """Of torchvision, whose dense layers are numbered too."""
    dense = [("fc1", "classifier.0"), ("fc2", "classifier.3"), ("head", "classifier.6")]
    return [*feature_rules(model), *dense]


def timm_rules(model: VGG) -> Rules:
    """Of timm, whose fc1 and fc2 are convolutions, as ours."""
    dense = [(r"(fc\d)", r"pre_logits.\1"), ("head", "head.fc")]
    return [*feature_rules(model), *dense]


def keras_rules(model: VGG) -> Rules:
    """Of `keras.applications`."""
    del model
    return [
        (r"stage(\d)/conv(\d)", r"block\1_conv\2"),
        (r"(fc\d)", r"\1"),
        ("head", "predictions"),
    ]


LAYOUTS = {
    name: {
        "torchvision": Layout(name, torchvision_rules, unused=COUNTERS),
        "timm": Layout(name, timm_rules, unused=COUNTERS),
    }
    for name in VARIANTS
}
LAYOUTS["vgg16"]["keras"] = Layout("VGG16", keras_rules)
LAYOUTS["vgg19"]["keras"] = Layout("VGG19", keras_rules)
