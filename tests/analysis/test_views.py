"""What a model says of several views is the mean of what it says of each."""

import dataclasses

import numpy as np
import pytest

from zoo.analysis.opening import open_source
from zoo.analysis.predictions import predict, probabilities
from zoo.analysis.trained import open_trained
from zoo.analysis.views import VIEWS, views_of
from zoo.data.source import ArraySource
from zoo.errors import ConfigError

DATA = {"name": "digits", "split": "test"}


def test_places():
    images = np.arange(2 * 6 * 6 * 1).reshape(2, 6, 6, 1)
    ten = [np.asarray(view) for view in views_of(images, "ten-crops", 4)]
    assert len(ten) == 10 and all(view.shape == (2, 4, 4, 1) for view in ten)
    assert [view[0, 0, 0, 0] for view in ten[:5]] == [0, 2, 12, 14, 7]
    for view, mirrored in zip(ten[:5], ten[5:], strict=True):
        np.testing.assert_array_equal(view, mirrored[:, :, ::-1])
    np.testing.assert_array_equal(np.stack(ten[:5]), views_of(images, "five-crops", 4))
    np.testing.assert_array_equal(views_of(images, "flip", 6)[0], images)
    assert len(views_of(images, "flip", 6)) == 2


@pytest.mark.parametrize("views", VIEWS)
def test_views_are_averaged(workdir, views):
    """Each view made an image of its own, which the model is asked about alone."""
    trained = open_trained(str(workdir))
    size = trained.preprocessing.image_size
    whole = trained.preprocessing.replace(crop_fraction=size / (size + 2))
    cropping = dataclasses.replace(trained, preprocessing=whole)
    source = open_source(trained)
    found = predict(cropping, source, DATA, views=views, batch_size=16)
    assert found.data["views"] == views

    larger = whole if views == "flip" else whole.replace(image_size=size + 2, crop_fraction=1.0)
    images = np.stack([larger.pixels(source[i][0]) for i in range(len(source))])
    each = []
    for view in views_of(images, views, size):
        alone = ArraySource(np.asarray(view), found.targets, trained.class_names)
        each.append(probabilities(predict(trained, alone, DATA, batch_size=16)))
    np.testing.assert_allclose(probabilities(found), np.mean(each, axis=0), atol=1e-5)


def test_no_margin(workdir):
    trained = open_trained(str(workdir))
    with pytest.raises(ConfigError, match="take 'flip'"):
        predict(trained, open_source(trained), DATA, views="ten-crops")
    with pytest.raises(ConfigError, match="Did you mean"):
        predict(trained, open_source(trained), DATA, views="ten-crop")
