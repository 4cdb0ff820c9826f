"""The table of published weights: it holds together, and is found by any of its names."""

from collections import Counter
import re

import numpy as np
import pytest

import zoo
from zoo.__main__ import main
from zoo.images import FITS, INTERPOLATIONS, fit_image
from zoo.registry import MODELS
from zoo.weights.catalogue import (
    by_file_name,
    find_published,
    imagenet_classes,
    imagenet_ids,
    published,
)
from zoo.weights.families import LAYOUTS

ROWS = published()
WITHOUT = {"linear", "mlp", "lenet5", "lenet5_1998", "alexnet_2012", "googlenet_2014"}
WITHOUT |= {f"resnet{depth}" for depth in (20, 32, 44, 56, 110)}


def test_names_are_unique_with_and_without_their_prefix():
    for names in (
        [row.weights for row in ROWS],
        [row.weights.partition("/")[2] for row in ROWS],
        [row.url for row in ROWS],
    ):
        assert [name for name, count in Counter(names).items() if count > 1] == []


def test_every_model_that_others_publish_has_rows_and_no_other():
    assert set(zoo.list_models(pretrained=True)) == set(MODELS) - WITHOUT
    assert {row.model for row in ROWS} == set(MODELS) - WITHOUT


def test_rows_are_in_the_order_of_the_registry_and_of_layouts():
    layouts = ["timm", "timm-tf", "torchvision", "keras", "efficientnet-pytorch"]
    places = [(list(MODELS).index(row.model), layouts.index(row.layout)) for row in ROWS]
    assert places == sorted(places)


@pytest.mark.parametrize("column", ["model", "weights", "url", "file", "licence"])
def test_what_a_user_needs_is_never_empty(column):
    assert [row.weights for row in ROWS if not getattr(row, column)] == []


def test_values_are_in_range():
    for row in ROWS:
        assert row.layout in LAYOUTS[row.model], row
        assert re.fullmatch(r"(sha256:([0-9a-f]{8,9}|[0-9a-f]{64})|md5:[0-9a-f]{32})?", row.digest)
        assert row.url.startswith("https://")
        assert row.fit in FITS and row.interpolation in INTERPOLATIONS
        assert row.channel_order in ("RGB", "BGR")
        assert len(row.mean) == len(row.std) == 3 and min(row.std) > 0
        assert all(0 <= mean < 1 for mean in row.mean)
        assert row.num_classes >= 1000
        assert row.image_size >= 96 and 0.8 < row.crop_fraction <= 1, row
        assert row.checked in ("", "file", "layout")
        assert row.licence == row.licence.lower()
        assert (row.top1 is not None) == bool(row.accuracy_source)
        if row.top1 is not None:
            assert 40 < row.top1 < 90 and row.num_classes == 1000, row
        if row.top5 is not None:
            assert row.top1 is not None and row.top1 < row.top5 < 100, row


def test_the_two_files_that_were_seen_are_marked():
    assert {row.file for row in ROWS if row.checked == "file"} == {
        "mobilenet_v2-b0353104.pth",
        "efficientnet-lite0-57934424.pth",
    }


@pytest.mark.parametrize("row", [ROWS[0], ROWS[-1], find_published("keras/VGG16.imagenet")])
def test_preprocessing_has_everything_of_its_row(row):
    preprocessing = row.preprocessing
    for name in ("image_size", "mean", "std", "fit", "channel_order", "test_image_size"):
        assert getattr(preprocessing, name) == getattr(row, name)
    assert preprocessing.class_names == imagenet_classes()
    image = np.zeros((60, 90, 3), np.uint8)
    assert preprocessing(image).shape == (row.image_size, row.image_size, 3)


def test_other_classes_than_imagenets_have_no_names():
    row = find_published("timm/tf_efficientnetv2_s.in21k")
    assert row is not None and row.num_classes == 21843
    assert row.preprocessing.class_names is None


def test_caffes_weights_see_pixels_minus_their_mean_in_bgr():
    row = find_published("ResNet50.imagenet")
    assert row is not None and row.model == "resnet50_v1"
    red = np.array([[[255, 0, 0]]], np.uint8)
    expected = [-103.939, -116.779, 255 - 123.68]
    np.testing.assert_allclose(row.preprocessing.normalise(red)[0, 0], expected, rtol=1e-5)


# (crop size, size of the shorter side before it), as torchvision publishes them.
TORCHVISION_SIZES = {
    "ResNet50_Weights.IMAGENET1K_V1": (224, 256),
    "ResNet50_Weights.IMAGENET1K_V2": (224, 232),
    "Inception_V3_Weights.IMAGENET1K_V1": (299, 342),
    "EfficientNet_B4_Weights.IMAGENET1K_V1": (380, 384),
}


@pytest.mark.parametrize(("weights", "sizes"), TORCHVISION_SIZES.items())
def test_six_digits_of_the_crop_give_back_the_resized_side(weights, sizes):
    row = find_published(f"torchvision/{weights}")
    crop, resized = sizes
    assert row is not None and row.image_size == crop
    # An image of that side is not resized: its centre comes out, column by column.
    side = np.arange(resized)
    image = np.repeat((side % 251).astype(np.uint8)[None, :, None], resized, axis=0)
    fitted = fit_image(image, crop, 1, "crop", row.crop_fraction, "nearest")
    left = round((resized - crop) / 2)
    assert fitted[0, :, 0].tolist() == image[0, left : left + crop, 0].tolist()


def test_a_name_of_weights_is_found_with_and_without_prefix():
    for row in ROWS:
        assert find_published(row.weights) == row
        assert find_published(row.weights.partition("/")[2]) == row
    assert find_published("resnet50") is None


def test_a_file_is_found_as_published_and_renamed():
    for row in ROWS:
        found = by_file_name(f"/downloads/{row.file}", row.model)
        assert found == (None if row.file == "model.safetensors" else row)
    renamed = by_file_name("weights/resnet50.tv2_in1k.safetensors")
    assert renamed is not None and renamed.weights == "timm/resnet50.tv2_in1k"
    assert by_file_name("mobilenet_v2-b0353104.pth", "vgg16") is None
    assert by_file_name("best.pth") is None


def test_published_takes_aliases_and_refuses_other_names():
    assert published("ResNet50") == published("resnet50_v1") != ()
    assert published("lenet5") == ()
    with pytest.raises(ValueError, match="unknown model 'resnet51'"):
        published("resnet51")


def test_classes_are_in_the_order_of_their_ids():
    names, ids = imagenet_classes(), imagenet_ids()
    assert len(names) == len(set(names)) == len(ids) == len(set(ids)) == 1000
    assert list(ids) == sorted(ids) and all(re.fullmatch(r"n\d{8}", name) for name in ids)
    assert (names[0], names[207], names[999]) == ("tench", "golden retriever", "toilet tissue")
    # Two birds and a machine, two garments: pairs that other lists call alike.
    assert (names[134], names[517]) == ("crane bird", "crane")
    assert (names[638], names[639]) == ("maillot", "maillot tank suit")
    assert (ids[207], ids[282]) == ("n02099601", "n02123159")


def test_list_prints_each_set_of_weights(capsys):
    assert main(["list", "--pretrained", "xception"]) == 0
    header, *rows, legend = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "weights", "image", "top-1", "licence", "checked"]
    assert [row.split()[:2] for row in rows] == [
        ["xception", "timm/legacy_xception.tf_in1k"],
        ["xception", "keras/Xception.imagenet"],
    ]
    assert rows[0].split()[2:] == ["299", "79.0", "apache-2.0", "layout"]
    assert "could not be verified without a network" in legend


def test_list_of_names_has_those_with_weights_only(capsys):
    assert main(["list", "--pretrained", "--names", "alexnet*"]) == 0
    assert capsys.readouterr().out.split() == ["alexnet"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("lenet*", "no weights were published for 'lenet*'"), ("nothing*", "no model matches")],
)
def test_list_says_why_it_is_empty(pattern, message, capsys):
    assert main(["list", "--pretrained", pattern]) == 2
    assert message in capsys.readouterr().err
