"""Augmentation on the device against torchvision, where Pillow has nothing to compare with."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from tests.data.test_augmentation import picture
from tests.parity.oracles import import_torchvision
from zoo.data.augmentation import colour, geometry, policies
from zoo.data.crop import draw_box, make_crop

pytestmark = pytest.mark.slow

NAMES = {
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateX": "shift_x",
    "TranslateY": "shift_y",
    "Color": "saturation",
    "Posterize": "posterise",
    "Solarize": "solarise",
    "Equalize": "equalise",
}


def transforms():
    import_torchvision()
    from torchvision.transforms import v2

    return v2


def to_tensor(image: np.ndarray):
    import torch

    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def error(ours, theirs) -> np.ndarray:
    """Returns the largest difference at each pixel [H, W], in grey levels."""
    theirs = theirs.numpy().transpose(1, 2, 0).astype(int)
    return np.abs(np.asarray(ours).astype(int) - theirs).max(-1)


@pytest.mark.parametrize("kind", ("photograph", "noise"))
@pytest.mark.parametrize(("size", "sigma"), ((3, 0.5), (9, 1.7), (23, 2.0)))
def test_gaussian_blur(kind: str, size: int, sigma: float):
    image = picture(kind)
    theirs = transforms().functional.gaussian_blur(to_tensor(image), [size, size], [sigma, sigma])
    assert error(colour.gaussian_blur(image, sigma, kernel_size=size), theirs).max() <= 1


@pytest.mark.parametrize("kind", ("photograph", "noise"))
@pytest.mark.parametrize("turn", (-0.5, -0.2, 0.03, 0.37))
def test_hue(kind: str, turn: float):
    image = picture(kind)
    theirs = transforms().functional.adjust_hue(to_tensor(image), turn)
    assert error(colour.hue(image, turn), theirs).max() <= 1


def test_perspective_by_corners():
    image = picture()
    start, end = [[0, 0], [51, 0], [51, 36], [0, 36]], [[3, 5], [45, 2], [50, 30], [7, 33]]
    theirs = transforms().functional.perspective(to_tensor(image), start, end, fill=[0.0] * 3)
    coefficients = geometry.perspective_coefficients(jnp.array(start), jnp.array(end))
    ours = geometry.perspective(image, coefficients, interpolation="bilinear")
    inside = np.asarray(ours).any(-1) & theirs.numpy().any(0)
    inner = inside & np.roll(inside, 1, 0) & np.roll(inside, -1, 0)
    inner &= np.roll(inside, 1, 1) & np.roll(inside, -1, 1)  # it blends edges with the fill
    assert inner.mean() > 0.5
    assert error(ours, theirs)[inner].max() <= 1


def device_boxes(shape: tuple[int, int], count: int) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), count)
    draw = jax.vmap(lambda key: geometry.random_box(key, shape, (0.08, 1), (3 / 4, 4 / 3)))
    *boxes, found = jax.jit(draw)(keys)
    return np.stack(boxes, 1)[np.asarray(found)]


def host_boxes(shape: tuple[int, int], count: int) -> np.ndarray:
    raw = np.random.Philox(key=[0, 0]).random_raw(22 * count).reshape(count, 22)
    return np.array([draw_box(uniform, *shape) for uniform in (raw >> 11) * 2.0**-53])


@pytest.mark.parametrize(
    ("draw", "shape"),
    (
        (device_boxes, (150, 260)),
        (host_boxes, (150, 260)),
        (host_boxes, (260, 90)),  # where ten boxes often do not fit
        (host_boxes, (20, 400)),
    ),
)
def test_boxes_of_resized_crops_are_distributed_alike(draw, shape: tuple[int, int]):
    from scipy.stats import ks_2samp

    v2 = transforms()
    import torch

    torch.manual_seed(0)
    crop, image = v2.RandomResizedCrop(32), torch.zeros(3, *shape, dtype=torch.uint8)
    theirs = [crop.make_params([image]) for _ in range(4000)]
    for name, column in zip(("top", "left", "height", "width"), draw(shape, 4000).T, strict=True):
        of_theirs = np.array([box[name] for box in theirs])
        assert ks_2samp(column, of_theirs).pvalue > 1e-3, name
        # Of 4000 draws each: five deviations of the difference of their means.
        allowed = 5 * of_theirs.std() * np.sqrt(2 / 4000)
        assert column.mean() == pytest.approx(of_theirs.mean(), abs=allowed + 1e-9), name


@pytest.mark.parametrize("shape", ((10, 400), (400, 10), (37, 52)))
def test_the_central_box_is_the_same(shape: tuple[int, int]):
    v2 = transforms()
    import torch

    options = {"scale": (1.0, 1.0), "ratio": (0.9, 0.9)}
    theirs = v2.RandomResizedCrop(8, **options).make_params([torch.zeros(3, *shape)])
    names = ("top", "left", "height", "width")
    assert draw_box(np.full(22, 0.5), *shape, **options) == tuple(theirs[name] for name in names)


def test_pixels_of_the_hosts_crop():
    functional = transforms().functional
    image = picture()
    options = {"seed": 5, "size": 24, "channels": 3, "interpolation": "bilinear"}
    crop = make_crop({"scale": (0.1, 0.6)}, **options)
    assert crop is not None
    raw = np.random.Philox(key=[5, 2], counter=[0, 0, 11, 1]).random_raw(22)
    box = draw_box((raw >> 11) * 2.0**-53, *image.shape[:2], scale=(0.1, 0.6))
    theirs = functional.resized_crop(Image.fromarray(image), *box, [24, 24])
    np.testing.assert_array_equal(crop(image, 2, 11), np.asarray(theirs))


@pytest.mark.parametrize("policy", policies.AUTO_AUGMENT_POLICIES)
def test_tables_of_auto_augment(policy: str):
    v2 = transforms()
    numbers, probabilities, strengths = policies.auto_augment_table(policy)
    rows = v2.AutoAugment(v2.AutoAugmentPolicy(policy))._policies
    assert len(rows) == len(numbers) == 25
    for i, row in enumerate(rows):
        for j, (name, probability, level) in enumerate(row):
            assert policies.OPERATIONS[numbers[i, j]] == NAMES.get(name, name.lower())
            assert probabilities[i, j] == np.float32(probability)
            assert strengths[i, j] == np.float32((level or 0) / 9)


@pytest.mark.parametrize("wide", (False, True))
def test_ranges_of_the_policies(wide: bool):
    v2 = transforms()
    space = (v2.TrivialAugmentWide if wide else v2.RandAugment)._AUGMENTATION_SPACE
    largest = policies.largest_magnitudes((37, 52), wide=wide)
    assert {NAMES.get(name, name.lower()) for name in space} == set(policies.RAND_AUGMENT)
    for name, (magnitudes, _) in space.items():
        ours = largest[policies.OPERATIONS.index(NAMES.get(name, name.lower()))]
        values = magnitudes(31, 37, 52)
        theirs = 0.0 if values is None else float(values[-1])
        if name == "Posterize":
            theirs = 8 - theirs
        elif name == "Solarize":  # theirs begins at 255 or 1, which is not quite nothing
            theirs = 256 - theirs
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, err_msg=name)
