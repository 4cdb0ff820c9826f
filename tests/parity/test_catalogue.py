"""Every row of the catalogue against what the installed libraries say of their weights."""

import warnings

import pytest

from tests.parity.published import SOURCES, expected_rows
from zoo.weights.catalogue import published

TAKEN_FROM_THE_WEB = ("top1", "top5", "accuracy_source")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # Keras builds each network before it asks for its weights
@pytest.mark.parametrize("layout", SOURCES)
def test_rows_are_those_of_the_library(layout):
    with warnings.catch_warnings(action="ignore"):  # the libraries' are not ours
        expected = {row.weights: row for row in expected_rows([layout])}
    ours = {row.weights: row for row in published() if row.layout == layout}
    assert list(ours) == list(expected)
    for name, row in expected.items():
        told = {column: getattr(ours[name], column) for column in row._fields}
        want = row._asdict()
        for column in TAKEN_FROM_THE_WEB if row.top1 is None else ():
            del told[column], want[column]
        assert told == want


@pytest.mark.slow
def test_torchvisions_crops_give_back_the_resized_side():
    from tests.parity.oracles import import_torchvision

    models = import_torchvision().models
    for row in published():
        if row.layout == "torchvision":
            transform = models.get_weight(row.weights.partition("/")[2]).transforms()
            assert int(row.image_size / row.crop_fraction + 1e-3) == transform.resize_size[0]


@pytest.mark.slow
def test_classes_are_torchvisions_and_timms():
    from tests.parity.oracles import import_torchvision
    from zoo.weights.catalogue import imagenet_classes, imagenet_ids

    models = import_torchvision().models
    from timm.data import ImageNetInfo

    assert list(imagenet_classes()) == models.ResNet18_Weights.DEFAULT.meta["categories"]
    assert list(imagenet_ids()) == ImageNetInfo("imagenet-1k").label_names()
