"""Every name we give to torchvision and timm against what they save."""

import warnings

import numpy as np
import pytest

from tests.parity.oracles import import_torchvision
import zoo
from zoo.registry import MODELS
from zoo.weights.families import LAYOUTS
from zoo.weights.layouts import import_arrays

EVERY = [(n, f) for n, layouts in LAYOUTS.items() for f in layouts if f in ("torchvision", "timm")]


def saved_shapes(name: str, framework: str) -> dict[str, tuple[int, ...]]:
    """Returns what the published network saves, without memory for it."""
    torchvision = import_torchvision()
    import timm
    import torch

    published = LAYOUTS[name][framework].published
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        if framework == "timm":
            module = timm.create_model(published)
        else:
            module = torchvision.models.get_model(published)
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "framework"), EVERY)
def test_each_of_their_arrays_is_one_of_ours(name, framework):
    layout = LAYOUTS[name][framework]
    arrays = {
        key: np.broadcast_to(np.float32(0), shape)
        for key, shape in saved_shapes(name, framework).items()
    }
    model = zoo.create_model(name, **layout.fields)
    import_arrays(arrays, model, layout, framework, MODELS[name].image_shape)
