"""Pixels against the pipelines of torchvision, timm and Keras themselves."""

import functools
import os
from pathlib import Path
import warnings

import numpy as np
from PIL import Image
import pytest

from tests.parity.oracles import import_torchvision
from tests.parity.test_published import photographs
from zoo.weights.catalogue import Published, published


@functools.cache
def pictures() -> list[np.ndarray]:
    """Returns portrait and landscape, larger and smaller than networks take, of odd sizes."""
    whole = [np.asarray(Image.fromarray(a).convert("RGB")) for a in photographs().values()]
    return [*whole, whole[0].transpose(1, 0, 2), whole[1][:133, :77], whole[1][:333, :221]]


def one_of_each(prefix: str) -> list[Published]:
    """Returns a row of the catalogue for each way to prepare images."""
    rows = [row for row in published() if row.weights.startswith(prefix)]
    kinds = {row.preprocessing.replace(class_names=None): row for row in reversed(rows)}
    return list(kinds.values())


def grey_levels(ours: np.ndarray, theirs: np.ndarray, row: Published) -> float:
    """Returns the largest difference of two normalised images [H, W, C], in levels of 255."""
    assert ours.shape == theirs.shape
    return float(np.abs((ours - theirs) * np.asarray(row.std)).max() * 255)


def differences(row: Published, theirs) -> list[float]:
    return [grey_levels(row.preprocessing(image), theirs(image), row) for image in pictures()]


# The same pixels, so that what is left is the rounding of float32 when they are normalised.
EQUAL = 0.01
ON_TENSORS = {"bilinear": 1.01, "bicubic": 15.01}


@pytest.mark.slow
@pytest.mark.parametrize("row", one_of_each("torchvision/"), ids=lambda row: row.weights)
def test_torchvision(row):
    models = import_torchvision().models
    from torchvision.transforms.functional import pil_to_tensor

    name = row.weights.removeprefix("torchvision/")
    transform = models.get_weight(name).transforms()
    remapped = name.startswith(("Inception_V3", "GoogLeNet"))  # inside their networks

    def prepared(tensor) -> np.ndarray:
        array = transform(tensor).numpy().transpose(1, 2, 0)
        if remapped:
            array = (array * transform.std + transform.mean - 0.5) / 0.5
        return array

    assert max(differences(row, lambda a: prepared(Image.fromarray(a)))) < EQUAL
    # On tensors it resizes by code of its own, antialiased likewise, rounded otherwise.
    on_tensors = differences(row, lambda a: prepared(pil_to_tensor(Image.fromarray(a))))
    assert EQUAL < max(on_tensors) < ON_TENSORS[row.interpolation]


@pytest.mark.slow
@pytest.mark.parametrize("row", one_of_each("timm/"), ids=lambda row: row.weights)
def test_timm(row):
    import_torchvision()
    import timm
    from timm.data import create_transform, resolve_data_config

    config = timm.get_pretrained_cfg(row.weights.removeprefix("timm/")).to_dict()
    for at_test_size in (False, True):
        settings = resolve_data_config({}, pretrained_cfg=config, use_test_size=at_test_size)
        transform = create_transform(**settings, is_training=False)
        preprocess = row.preprocessing.at_test_size() if at_test_size else row.preprocessing
        for image in pictures():
            theirs = transform(Image.fromarray(image)).numpy().transpose(1, 2, 0)
            assert grey_levels(preprocess(image), theirs, row) < EQUAL


@pytest.mark.slow
@pytest.mark.parametrize("row", one_of_each("keras/"), ids=lambda row: row.weights)
def test_keras(row, tmp_path):
    os.environ["KERAS_BACKEND"] = "jax"
    with warnings.catch_warnings(action="ignore"):
        import keras

    function = row.weights.removeprefix("keras/").partition(".")[0]
    module = {
        "Xception": "xception",
        "VGG16": "vgg16",
        "VGG19": "vgg19",
        "InceptionV3": "inception_v3",
        "InceptionResNetV2": "inception_resnet_v2",
        "MobileNet": "mobilenet",
        "MobileNetV2": "mobilenet_v2",
        "ResNet50": "resnet",
        "ResNet50V2": "resnet_v2",
    }
    inside = function.startswith(("EfficientNet", "MobileNetV3"))  # the network normalises

    def prepared(image: np.ndarray) -> np.ndarray:
        path = Path(tmp_path, "x.png")
        Image.fromarray(image).save(path)
        size = (row.image_size, row.image_size)
        array = keras.utils.img_to_array(keras.utils.load_img(path, target_size=size))
        if inside:
            return (array / 255 - np.asarray(row.mean)) / np.asarray(row.std)
        return np.asarray(getattr(keras.applications, module[function]).preprocess_input(array))

    assert max(differences(row, prepared)) < EQUAL
