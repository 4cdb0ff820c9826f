"""Grad-CAM and integrated gradients against captum, on torchvision's networks."""

import warnings

import jax
import numpy as np
import pytest

from tests.parity import oracles
from tests.parity.compare import from_memory, relative_error
from zoo.analysis.gradcam import grad_cam
from zoo.analysis.gradients import integrated_gradients
from zoo.analysis.trained import Trained
from zoo.tasks.make import make_task
from zoo.weights.families import LAYOUTS
from zoo.weights.preprocessing import Preprocessing

pytestmark = pytest.mark.slow
SIDE = 64

# Ours and torchvision's names of layers: the last map, one halfway, and one within a block.
LAYERS = {
    "resnet18": {
        "stride32": "layer4",
        "stride8": "layer2",
        "stage2_block2/bn1": "layer2.1.bn1",
    },
    "mobilenet_v2": {"stride32": "features.18", "stage4_block2": "features.8"},
}


class Exact(Preprocessing):
    """In float64: where rounding opens a ReLU, a gradient jumps."""

    def normalise(self, images):
        return super().normalise(images).astype(np.float64)


def in_torch(network, x, start, classes):
    """Returns captum's maps by layer, and its attributions, [B, H, W, …]."""
    with warnings.catch_warnings(action="ignore"):  # captum's are not ours
        from captum.attr import IntegratedGradients, LayerGradCam
        import torch

        for module in network.module.modules():
            if hasattr(module, "inplace"):  # or a layer's output is changed behind it
                module.inplace = False
        images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        target = torch.from_numpy(classes)
        black = torch.from_numpy(start)[None, None, None].permute(0, 3, 1, 2)
        maps = {}
        for name in LAYERS[network.name].values():
            cam = LayerGradCam(network.module, network.module.get_submodule(name))
            found = cam.attribute(images, target, relu_attributions=True)
            maps[name] = oracles.to_nhwc(found)[..., 0]
        values = IntegratedGradients(network.module).attribute(
            images,
            black.expand_as(images).clone(),
            target,
            n_steps=8,
            method="riemann_middle",
        )
    return maps, oracles.to_nhwc(values)


@pytest.mark.parametrize("name", LAYERS)
def test_explanations_agree_with_captum(name):
    network = oracles.torchvision(name)
    network.name = name
    images = np.random.default_rng(5).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    classes = np.array([3, 400])
    model, variables = from_memory(
        network.arrays, name, "torchvision", LAYOUTS[name]["torchvision"], {}, (SIDE, SIDE, 3)
    )
    network.double()
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    names = tuple(map(str, range(1000)))
    prepared, task = Exact(SIDE, class_names=names), make_task("classification", {})
    trained = Trained(name, model, variables, prepared, task, names, None, {})
    start = prepared.normalise(np.zeros(3, np.uint8))
    maps, values = in_torch(network, prepared.normalise(images), start, classes)
    with jax.enable_x64(True):
        for mine, theirs in LAYERS[name].items():
            cam = grad_cam(trained, images, classes, mine)
            assert relative_error(cam, maps[theirs]) < 1e-4  # XLA rounds pixels another way
        found = integrated_gradients(trained, images, classes, steps=8)
        assert relative_error(found.values, values) < 1e-9
