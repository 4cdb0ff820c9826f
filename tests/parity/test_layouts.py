"""Every name we give to torchvision, timm and EfficientNet's packages against what they save."""

import functools
import importlib
import warnings

import numpy as np
import pytest

from tests.parity.oracles import import_torchvision
from tests.weights.files import in_memory
import zoo
from zoo.registry import MODELS
from zoo.weights.families import LAYOUTS
from zoo.weights.importing import Request, fits, match

TORCH = ("torchvision", "timm", "timm-tf", "efficientnet-pytorch")
EVERY = [(n, f) for n, layouts in LAYOUTS.items() for f in layouts if f in TORCH]


def saved_shapes(name: str, framework: str) -> dict[str, tuple[int, ...]]:
    """Returns what the published network saves, without memory for it."""
    torchvision = import_torchvision()
    import timm
    import torch

    published = LAYOUTS[name][framework].published
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        if framework.startswith("timm"):
            module = timm.create_model(published)
        elif framework == "efficientnet-pytorch":
            package = f"efficientnet_{'lite_' if 'lite' in name else ''}pytorch"
            module = importlib.import_module(package).EfficientNet.from_name(published)
        else:
            module = torchvision.models.get_model(published)
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "framework"), EVERY)
def test_each_of_their_arrays_is_one_of_ours(name, framework):
    tensors = in_memory(
        {
            key: np.broadcast_to(np.float32(0), shape)
            for key, shape in saved_shapes(name, framework).items()
        }
    )
    create = functools.partial(zoo.create_model, name)
    wanted = Request(name, create, {}, 1000, MODELS[name].image_shape)
    matched = match(tensors, wanted, framework, LAYOUTS[name][framework])
    assert not matched.missing and not matched.unknown
    assert fits(tensors, matched) and matched.classes == 1000
