"""The networks that are compared, by their names everywhere; plain data, cheap to import."""

import dataclasses

WORKS = ("train", "infer")
CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Model:
    """A network and its names.

    Attributes:
      group: in which geometric mean it counts.
      torch: (library, name there).
      keras: name in keras.applications; None if it is not there.
      keras_ours: zoo's name of Keras's variant, if it is not the model itself.
    """

    group: str
    torch: tuple[str, str]
    keras: str | None = None
    keras_ours: str | None = None


MODELS: dict[str, Model] = {
    "resnet50": Model("dense", ("torchvision", "resnet50"), "ResNet50", "resnet50_v1"),
    "resnet18": Model("dense", ("torchvision", "resnet18")),
    "vgg16": Model("dense", ("torchvision", "vgg16"), "VGG16"),
    "alexnet": Model("dense", ("torchvision", "alexnet")),
    "googlenet": Model("dense", ("torchvision", "googlenet")),
    "inception_v3": Model("dense", ("torchvision", "inception_v3"), "InceptionV3"),
    "mobilenet_v1": Model("light", ("timm", "mobilenetv1_100"), "MobileNet"),
    "mobilenet_v2": Model("light", ("torchvision", "mobilenet_v2"), "MobileNetV2"),
    "mobilenet_v3_large": Model("light", ("torchvision", "mobilenet_v3_large"), "MobileNetV3Large"),
    "efficientnet_b0": Model("light", ("torchvision", "efficientnet_b0"), "EfficientNetB0"),
    "xception": Model("light", ("timm", "legacy_xception"), "Xception"),
}
