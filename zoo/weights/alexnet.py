"""AlexNet's modules in torchvision (one tower) and in the ONNX graph (two groups)."""

import functools

from zoo.layers import local_response_norm
from zoo.models.alexnet import AlexNet
from zoo.weights.layouts import Layout, Rules


def torch_rules(model: AlexNet) -> Rules:
    """Of torchvision: layers are numbered with their ReLU, pooling and dropout."""
    del model
    features = {1: 0, 2: 3, 3: 6, 4: 8, 5: 10}
    return [
        (r"conv(\d)", lambda i: f"features.{features[i]}"),
        ("fc6", "classifier.1"),
        ("fc7", "classifier.4"),
        ("head", "classifier.6"),
    ]


def onnx_rules(model: AlexNet) -> Rules:
    """Of `bvlc_alexnet`."""
    del model
    return [(r"(conv\d|fc6|fc7)", r"\1"), ("head", "fc8")]


# Caffe's constant is 1 where the paper's is 2, and its alpha is divided by the window's size.
CAFFE_NORM = functools.partial(local_response_norm, alpha=1e-4 / 5, k=1.0)

LAYOUTS = {
    "alexnet": {"torchvision": Layout("alexnet", torch_rules)},
    "alexnet_2012": {"onnx": Layout("bvlc_alexnet", onnx_rules, {"normalise": CAFFE_NORM})},
}
