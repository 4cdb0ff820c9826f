"""The models by name: one literal table, and the three questions one asks of it."""

from collections.abc import Mapping
import fnmatch
from typing import Any, NamedTuple

from zoo.errors import suggest
from zoo.layers import Classifier
from zoo.models import (
    alexnet,
    efficientnet,
    efficientnet_v2,
    googlenet,
    inception,
    inception_resnet,
    inception_v4,
    lenet,
    linear,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    resnet_v2,
    vgg,
    xception,
)


class Entry(NamedTuple):
    """What a registered name stands for."""

    module: type[Classifier]
    fields: Mapping[str, Any]
    image_shape: tuple[int, int, int]  # [H, W, C] the model was published for


def _rows(
    module: type[Classifier],
    variants: Mapping[str, Mapping[str, Any]],
    image_size: int | Mapping[str, int] = 224,
    channels: int = 3,
) -> dict[str, Entry]:
    """Returns a family's part of the table; image sizes may go by name."""
    table = {}
    for name, fields in variants.items():
        size = image_size if isinstance(image_size, int) else image_size[name]
        table[name] = Entry(module, fields, (size, size, channels))
    return table


MODELS: dict[str, Entry] = {
    **_rows(linear.Linear, linear.VARIANTS, 28, 1),
    **_rows(linear.MLP, linear.VARIANTS_MLP, 28, 1),
    **_rows(lenet.LeNet5, {"lenet5": {}}, 32, 1),
    **_rows(lenet.LeNet5Paper, {"lenet5_1998": {}}, 32, 1),
    **_rows(alexnet.AlexNet, alexnet.VARIANTS, {"alexnet": 224, "alexnet_2012": 227}),
    **_rows(vgg.VGG, vgg.VARIANTS),
    **_rows(resnet.ResNet, resnet.VARIANTS),
    **_rows(resnet_v2.ResNetV2, resnet_v2.VARIANTS),
    **_rows(resnet.ResNet, resnet.VARIANTS_CIFAR, 32),
    **_rows(googlenet.GoogLeNet, googlenet.VARIANTS),
    **_rows(googlenet.GoogLeNet2014, googlenet.VARIANTS_2014),
    **_rows(inception.InceptionV3, inception.VARIANTS, 299),
    **_rows(inception_v4.InceptionV4, inception_v4.VARIANTS, 299),
    **_rows(inception_resnet.InceptionResNetV2, inception_resnet.VARIANTS, 299),
    **_rows(xception.Xception, xception.VARIANTS, 299),
    **_rows(mobilenet_v1.MobileNetV1, mobilenet_v1.VARIANTS),
    **_rows(mobilenet_v2.MobileNetV2, mobilenet_v2.VARIANTS),
    **_rows(mobilenet_v3.MobileNetV3, mobilenet_v3.VARIANTS),
    **_rows(efficientnet.EfficientNet, efficientnet.VARIANTS, efficientnet.IMAGE_SIZES),
    **_rows(efficientnet.EfficientNet, efficientnet.VARIANTS_LITE, efficientnet.IMAGE_SIZES),
    **_rows(efficientnet.EfficientNet, efficientnet_v2.VARIANTS, efficientnet_v2.IMAGE_SIZES),
}

# What others call them: timm, torchvision, Keras, and people.
ALIASES: dict[str, str] = {
    "lenet": "lenet5",
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "ResNet50": "resnet50_v1",
    "ResNet101": "resnet101_v1",
    "ResNet152": "resnet152_v1",
    "ResNet50V2": "resnet50_v2",
    "ResNet101V2": "resnet101_v2",
    "ResNet152V2": "resnet152_v2",
    "Xception": "xception",
    "MobileNet": "mobilenet_v1",
    "mobilenetv2_035": "mobilenet_v2_035",
    "mobilenetv2_050": "mobilenet_v2_050",
    "mobilenetv2_075": "mobilenet_v2_075",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv2_140": "mobilenet_v2_140",
    "tf_efficientnet_lite0": "efficientnet_lite0",
    "tf_efficientnet_lite1": "efficientnet_lite1",
    "tf_efficientnet_lite2": "efficientnet_lite2",
    "tf_efficientnet_lite3": "efficientnet_lite3",
    "tf_efficientnet_lite4": "efficientnet_lite4",
}


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Returns the registered names that match a shell-style pattern, in table order.

    Args:
      pattern: wildcards are `*`, `?` and `[…]`.
      pretrained: only those for which weights were published, see `zoo.weights.catalogue`.

    Example:
      >>> list_models("lenet*")
      ['lenet5', 'lenet5_1998']
      >>> list_models("alexnet*", pretrained=True)
      ['alexnet']
    """
    names = [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]
    if not pretrained:
        return names
    from zoo.weights.catalogue import published  # which knows the models, and so comes after them

    with_weights = {row.model for row in published()}
    return [name for name in names if name in with_weights]


def find_model(name: str) -> Entry:
    """Returns the table's entry for a name or an alias.

    Raises:
      ValueError: for an unknown name, with the close ones.
    """
    entry = MODELS.get(ALIASES.get(name, name))
    if entry is None:
        hint = _flavour(name) or suggest(name, [*MODELS, *ALIASES])
        raise ValueError(f"unknown model {name!r}.{hint} zoo.list_models() has all {len(MODELS)}.")
    return entry


def registered_name(name: str) -> str:
    """Returns the registered name of a name or an alias.

    Raises:
      ValueError: for an unknown name, with the close ones.
    """
    find_model(name)
    return ALIASES.get(name, name)


def _flavour(name: str) -> str:
    """Returns how to make what others publish under a name that is not quite one of ours."""
    from zoo.weights.families import LAYOUTS  # which knows the models, and so comes after them

    for ours, layouts in LAYOUTS.items():
        for framework, layout in layouts.items():
            if layout.published == name:
                fields = "".join(f", {key}={value!r}" for key, value in layout.fields.items())
                owner = framework.removesuffix("-tf")
                return f" {owner}'s {name} is create_model({ours!r}{fields})."
    return ""


def create_model(name: str, **fields: Any) -> Classifier:
    """Returns a linen module: pure `init` and `apply`, no weights inside.

    Args:
      name: a registered name or alias, see `list_models`.
      **fields: of the model's class, where they are documented; those of all classes are
        num_classes (size of the head; None for no head, the model then returns features;
          as published if not given),
        dtype (what to compute in, e.g. `jnp.bfloat16`; None follows the input; logits and
          BatchNorm's statistics are float32 at least, whatever this is),
        param_dtype (what to store parameters in);
        most have dropout_rate, drop_path_rate and remat.

    Raises:
      ValueError: for an unknown name, field or an impossible number of classes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = create_model("lenet5", num_classes=10)
      >>> images = jnp.zeros((2, 32, 32, 1))
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> model.apply(variables, images, train=False).shape
      (2, 10)
      >>> sorted(model.apply(variables, images, train=False, method="endpoints"))
      ['logits', 'pre_logits', 'stride2', 'stride4']
    """
    entry = find_model(name)
    allowed = [f for f in entry.module.__dataclass_fields__ if f not in ("parent", "name")]
    for field in fields:
        if field not in allowed:
            raise ValueError(
                f"model {name!r} has no field {field!r}.{suggest(field, allowed)} It has {allowed}."
            )
    return entry.module(**{**entry.fields, **fields})


def identify(model: Classifier) -> tuple[str, dict[str, Any]]:
    """Returns the registered name and the fields that `create_model` makes a model of.

    Of several names the one with the fewest further fields; `num_classes`, `dtype` and
    `param_dtype` are not counted and not returned.

    Raises:
      ValueError: if the model's class is not registered.

    Example:
      >>> identify(create_model("mobilenet_v2", num_classes=5, width_mult=0.9))
      ('mobilenet_v2', {'width_mult': 0.9})
    """
    uncounted = ("parent", "name", "num_classes", "dtype", "param_dtype")
    fields = [f for f in type(model).__dataclass_fields__ if f not in uncounted]
    found: list[tuple[str, dict[str, Any]]] = []
    for name, entry in MODELS.items():
        if entry.module is type(model):
            plain = create_model(name)
            differing = [f for f in fields if getattr(model, f) != getattr(plain, f)]
            found.append((name, {f: getattr(model, f) for f in differing}))
    if not found:
        raise ValueError(f"{type(model).__name__} is no class of a registered model")
    return min(found, key=lambda pair: len(pair[1]))
