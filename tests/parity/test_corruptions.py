"""Corruptions against the authors' package and its successor, given the same random numbers.

`imagenet-c` is the authors' program for 224 pixels. It wants ImageMagick for motion blur, in whose
place is a function of `imagecorruptions`. Frost is compared by what it does to an image, as ours
is drawn and theirs are photographs.
"""

import functools
import importlib.util
import io
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock
import warnings

import numpy as np
from PIL import Image
import pytest

from tests.parity.oracles import INSTALL
from zoo.data.corruptions import NAMES, SEVERITIES, blur, corrupt
from zoo.data.corruptions.draws import Draws
from zoo.data.corruptions.parameters import PARAMETERS, SIDES

pytestmark = pytest.mark.slow

SIDE = SIDES[-1]
SEED = 3


class OurRandom:
    """Stands for `np.random` within a package and draws what we draw, in the same order."""

    def __init__(self, name: str):
        self._draws = Draws(SEED, NAMES.index(name))
        self._pairs = iter(())

    def normal(self, size: Any, scale: float, loc: float = 0.0) -> np.ndarray:
        return loc + scale * self._draws.normal(*size)

    def uniform(self, low: float, high: float, size: Any = ()) -> np.ndarray:
        numbers = self._draws.uniform(*size, low=low, high=high)
        return numbers[:, ::-1] if size == (3, 2) else numbers  # points are (x, y) there

    def randint(self, low: int, high: int, size: Any) -> np.ndarray:
        """Returns the next pixel's shift: one by one there, from the last pixel to the first."""
        pair = next(self._pairs, None)
        if pair is None:
            down, right = self._draws.integers(low, high, 2, (SIDE - 2 * high) ** 2)
            self._pairs = zip(right[::-1], down[::-1], strict=True)
            pair = next(self._pairs)
        return np.array(pair)


class OurMagick:
    """Stands for ImageMagick, and blurs by the function of `imagecorruptions`."""

    def __init__(self, blob: bytes):
        self._image = np.asarray(Image.open(io.BytesIO(blob)), np.float64)

    def motion_blur(self, radius: float, sigma: float, angle: float) -> None:
        blurred = published("imagecorruptions")._motion_blur(self._image, radius, sigma, angle)
        self._image = np.round(blurred)

    def make_blob(self) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self._image.astype(np.uint8)).save(file, "PNG")
        return file.getvalue()


def _folder(package: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations, INSTALL
    return spec.submodule_search_locations[0]


@functools.cache
def published(package: str) -> ModuleType:
    """Returns a package's functions, at home with today's NumPy and scikit-image."""
    stubs: dict[str, Any] = {
        "wand": mock.MagicMock(),
        "wand.image": SimpleNamespace(Image=object),
        "wand.api": mock.MagicMock(),
        "wand.color": mock.MagicMock(),
        "pkg_resources": SimpleNamespace(
            resource_filename=lambda name, file: f"{_folder(package)}/{file}"
        ),
    }
    _folder(package)  # it is there
    with mock.patch.dict(sys.modules, stubs), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = importlib.import_module(f"{package}.corruptions")
    blur_of_today = module.gaussian
    module.gaussian = lambda *a, multichannel=False, **k: blur_of_today(
        *a, channel_axis=-1 if multichannel else None, **k
    )
    return module


def theirs(name: str, severity: int, image: np.ndarray) -> np.ndarray:
    """Returns what the published program makes of an image, with our random numbers."""
    module: Any = published("imagenet_c")
    ours = {"random": OurRandom(name), "float_": np.float64, "fromstring": np.frombuffer}
    with mock.patch.multiple(module, np=SimpleNamespace(**vars(np) | ours), MotionImage=OurMagick):
        return np.uint8(getattr(module, name)(Image.fromarray(image), severity))


@functools.cache
def photograph(name: str) -> np.ndarray:
    """Returns a photograph, uint8 [224, 224, 3]."""
    from sklearn.datasets import load_sample_image

    pil = Image.fromarray(load_sample_image(name)).resize((341, 227))
    return np.asarray(pil.crop((50, 2, 50 + SIDE, 2 + SIDE)))


# How many of a thousand values may be off by a grey level, for rounding; none is off by more.
CLOSE = {
    "gaussian_noise": 0.1,
    "defocus_blur": 40,  # on plain ground a last bit decides
    "glass_blur": 1,
    "motion_blur": 1,
    "zoom_blur": 1,
    "snow": 1,
    "fog": 1,
    "brightness": 20,  # the published one goes through HSV and back
    "contrast": 0.1,
    "elastic_transform": 1,
    "pixelate": 0,
    "jpeg_compression": 0,
}


@pytest.mark.parametrize("name", CLOSE)
def test_pixels(name: str):
    for severity in SEVERITIES:
        image = photograph("china.jpg" if severity % 2 else "flower.jpg")
        ours = corrupt(image, name, severity, SEED).astype(int)
        off = np.abs(ours - theirs(name, severity, image))
        assert off.max() <= 1
        assert 1000 * np.mean(off) <= CLOSE[name]


@pytest.mark.parametrize("name", ("shot_noise", "impulse_noise"))
def test_noise_is_distributed_alike(name: str):
    image = photograph("china.jpg")
    levels = np.digitize(image, (32, 96, 160, 224))
    for severity in SEVERITIES:
        ours = corrupt(image, name, severity, SEED)
        rng = np.random.RandomState(0)
        numpy = SimpleNamespace(**vars(np) | {"random": rng})
        with mock.patch.object(published("imagenet_c"), "np", numpy):
            theirs = np.uint8(getattr(published("imagenet_c"), name)(image, severity))
        for level in range(5):  # from dark to bright, over 5000 values each
            a, b = (x[levels == level].astype(float) for x in (ours, theirs))
            centre = b.mean()
            for power in (1, 2):
                x, y = (a - centre) ** power, (b - centre) ** power
                error = np.sqrt((x.var() + y.var()) / len(x))
                assert abs(x.mean() - y.mean()) < 4.5 * error + 0.01


def test_frost_changes_an_image_as_much():
    module: Any = published("imagecorruptions")
    image = photograph("flower.jpg")
    for severity in SEVERITIES:
        numpy = SimpleNamespace(**vars(np) | {"random": np.random.RandomState(0)})
        with mock.patch.object(module, "np", numpy):
            photographed = [module.frost(Image.fromarray(image), severity) for _ in range(16)]
        drawn = [corrupt(image, "frost", severity, seed) for seed in range(16)]
        ours, theirs = (
            figures_of(np.stack(x) - image.astype(float)) for x in (drawn, photographed)
        )
        np.testing.assert_allclose(ours, theirs, rtol=0.2)


def figures_of(changes: np.ndarray) -> list[float]:
    """Returns how large changes [N, H, W, C] are, their mean, deviation and roughness."""
    roughness = np.abs(np.diff(changes, axis=2)).mean()
    size, mean = np.sqrt(np.mean(changes**2)), changes.mean()
    return [size, mean, changes.std((1, 2)).mean(), roughness]


def test_the_disks_of_all_tables():
    for table in PARAMETERS["defocus_blur"]:
        for radius, deviation in table:
            theirs = published("imagenet_c").disk(radius, deviation)
            np.testing.assert_allclose(blur._disk(radius, deviation), theirs, atol=1e-6)
