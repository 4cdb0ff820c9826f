"""Augmentation on the device: Pillow's pixels, and laws of keys and magnitudes."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
import pytest

from zoo.data.augment import make_operation
from zoo.data.augmentation import colour, geometry, mixing, policies
from zoo.errors import ConfigError

Affine, Perspective = Image.Transform.AFFINE, Image.Transform.PERSPECTIVE
SKEW = (1.113, 0.207, -3.1, -0.109, 0.917, 2.2)
TILT = (1.0531, 0.1037, -2.13, 0.0541, 0.9517, 1.11, 0.00213, -0.00117)
BILINEAR = Image.Resampling.BILINEAR


SHAPE = (37, 52)


@functools.cache
def picture(kind: str = "photograph", channels: int = 3) -> np.ndarray:
    """Returns uint8 [37, 52, C]: a photograph of few grey levels, or noise of all."""
    from sklearn.datasets import load_sample_image

    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (*SHAPE, channels), np.uint8)
    pil = Image.fromarray(load_sample_image("flower.jpg")).resize(SHAPE[::-1])
    array = np.asarray(pil.convert("RGB" if channels == 3 else "L")).reshape(*SHAPE, channels)
    return (array // 2 + 30).astype(np.uint8)


def pil_of(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def filled(pil: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    pil.paste(9 if pil.mode == "L" else (9, 9, 9), box)
    return pil


LOOK_UPS = (
    "shear",
    "rotate",
    "zoom",
    "affine",
    "affine bilinear",
    "perspective",
    "perspective bilinear",
)


def fill_of(pil: Image.Image) -> tuple[int, ...] | int:
    return 77 if pil.mode == "L" else (77, 77, 77)


def warped(pil: Image.Image, kind: Image.Transform, data, resample=0) -> Image.Image:
    return pil.transform(pil.size, kind, data, resample, fillcolor=fill_of(pil))


# Name: ours, Pillow's, and the most grey levels between them.
CASES = {
    "horizontal_flip": (geometry.horizontal_flip, ImageOps.mirror, 0),
    "vertical_flip": (geometry.vertical_flip, ImageOps.flip, 0),
    "brightness up": (
        lambda x: colour.brightness(x, 1.7),
        lambda p: enhanced(p, "Brightness", 1.7),
        0,
    ),
    "brightness down": (
        lambda x: colour.brightness(x, 0.3),
        lambda p: enhanced(p, "Brightness", 0.3),
        0,
    ),
    "contrast up": (lambda x: colour.contrast(x, 1.9), lambda p: enhanced(p, "Contrast", 1.9), 0),
    "contrast down": (
        lambda x: colour.contrast(x, 0.25),
        lambda p: enhanced(p, "Contrast", 0.25),
        0,
    ),
    "saturation up": (lambda x: colour.saturation(x, 1.6), lambda p: enhanced(p, "Color", 1.6), 0),
    "saturation down": (
        lambda x: colour.saturation(x, 0.1),
        lambda p: enhanced(p, "Color", 0.1),
        0,
    ),
    "sharpness up": (
        lambda x: colour.sharpness(x, 1.9),
        lambda p: enhanced(p, "Sharpness", 1.9),
        0,
    ),
    "sharpness down": (
        lambda x: colour.sharpness(x, 0.1),
        lambda p: enhanced(p, "Sharpness", 0.1),
        0,
    ),
    "grayscale": (colour.grayscale, lambda p: p.convert("L").convert(p.mode), 0),
    "invert": (colour.invert, ImageOps.invert, 0),
    "solarise": (lambda x: colour.solarise(x, 100), lambda p: ImageOps.solarize(p, 100), 0),
    "posterise": (lambda x: colour.posterise(x, 3), lambda p: ImageOps.posterize(p, 3), 0),
    "equalise": (colour.equalise, ImageOps.equalize, 0),
    # Pillow multiplies by an inexact quotient, and cuts off.
    "autocontrast": (colour.autocontrast, ImageOps.autocontrast, 1),
    "shift": (
        lambda x: geometry.shift(x, 7, -3, fill=77),
        lambda p: warped(p, Affine, (1, 0, -7, 0, 1, 3)),
        0,
    ),
    "shear": (
        lambda x: geometry.shear(x, 0.27, 0, fill=77),
        lambda p: warped(p, Affine, (1, 0.27, 0, 0, 1, 0)),
        0,
    ),
    "rotate": (
        lambda x: geometry.rotate(x, 33, fill=77),
        lambda p: p.rotate(33, fillcolor=fill_of(p)),
        0,
    ),
    "zoom": (
        lambda x: geometry.zoom(x, 1.37, 1.37, fill=77),
        lambda p: warped(p, Affine, (1 / 1.37, 0, 26 - 26 / 1.37, 0, 1 / 1.37, 18.5 - 18.5 / 1.37)),
        0,
    ),
    "affine": (
        lambda x: geometry.affine(x, jnp.array(SKEW), fill=77),
        lambda p: warped(p, Affine, SKEW),
        0,
    ),
    "affine bilinear": (
        lambda x: geometry.affine(x, jnp.array(SKEW), interpolation="bilinear", fill=77),
        lambda p: warped(p, Affine, SKEW, BILINEAR),
        1,
    ),
    "perspective": (
        lambda x: geometry.perspective(x, jnp.array(TILT), fill=77),
        lambda p: warped(p, Perspective, TILT),
        0,
    ),
    "perspective bilinear": (
        lambda x: geometry.perspective(x, jnp.array(TILT), interpolation="bilinear", fill=77),
        lambda p: warped(p, Perspective, TILT, BILINEAR),
        1,
    ),
    "shrunk crop": (
        lambda x: geometry.resized_crop(x, 4, 9, 30, 41, size=(13, 20)),
        lambda p: p.crop((9, 4, 50, 34)).resize((20, 13), BILINEAR),
        1,
    ),
    "enlarged crop": (
        lambda x: geometry.resized_crop(x, 4, 9, 10, 11, interpolation="bicubic"),
        lambda p: p.crop((9, 4, 20, 14)).resize((52, 37), Image.Resampling.BICUBIC),
        1,
    ),
    "padding_crop": (
        lambda x: geometry.padding_crop(x, 1, 7, padding=4, fill=77),
        lambda p: ImageOps.expand(p, 4, fill_of(p)).crop((7, 1, 59, 38)),
        0,
    ),
    "hue": (lambda x: colour.hue(x, 0.37), lambda p: turned(p, 0.37), 1),
    "cutout": (
        lambda x: mixing.cutout(x, 1, 51, 10, fill=9),
        lambda p: filled(p, (46, -4, 56, 6)),
        0,
    ),
    "erase": (
        lambda x: mixing.erase(x, 3, 20, 5, 2, fill=9),
        lambda p: filled(p, (20, 3, 22, 8)),
        0,
    ),
    "zero shift": (lambda x: geometry.shift(x, 0, 0, interpolation="bilinear"), lambda p: p, 0),
    "zero shear": (lambda x: geometry.shear(x, 0, 0, interpolation="bilinear"), lambda p: p, 0),
    "zero rotation": (lambda x: geometry.rotate(x, 0, interpolation="bilinear"), lambda p: p, 0),
    "no zoom": (lambda x: geometry.zoom(x, 1, 1, interpolation="bilinear"), lambda p: p, 0),
    "whole crop": (
        lambda x: geometry.resized_crop(x, 0, 0, *SHAPE, interpolation="bicubic"),
        lambda p: p,
        0,
    ),
    "no blur": (lambda x: colour.gaussian_blur(x, 0, kernel_size=5), lambda p: p, 0),
    "no turn": (lambda x: colour.hue(x, 0), lambda p: p, 0),
    "whole turn": (lambda x: colour.hue(x, -1), lambda p: p, 0),
    # Pillow blurs by boxes, three times; the deviation of those is nearly this one.
    "gaussian_blur": (
        lambda x: colour.gaussian_blur(x, 1.5, kernel_size=13),
        lambda p: p.filter(ImageFilter.GaussianBlur(1.5)),
        3,
    ),
}


def enhanced(pil: Image.Image, name: str, factor: float) -> Image.Image:
    return getattr(ImageEnhance, name)(pil).enhance(factor)


def turned(pil: Image.Image, turn: float) -> np.ndarray:
    """Turns hues pixel by pixel, with Python's own conversions."""
    array = np.asarray(pil)
    rows = []
    for pixel in array.reshape(-1, 3) / 255:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        rows.append(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
    return np.round(np.array(rows) * 255).astype(np.uint8).reshape(array.shape)


@functools.cache
def compiled(names: tuple[str, ...]):
    """All of them in one program, which compiles faster than one each."""
    return jax.jit(lambda image: {name: CASES[name][0](image) for name in names})


def difference(result: jax.Array, theirs, crop: int = 0) -> np.ndarray:
    """Returns the largest difference at each pixel [H, W], in grey levels."""
    assert result.dtype == np.uint8
    theirs = np.asarray(theirs).reshape(result.shape)
    error = np.abs(np.asarray(result).astype(int) - theirs).max(-1)
    return error[crop : len(error) - crop, crop : error.shape[1] - crop]


# The operations of policies are compared below, in one small program.
QUICK = (
    "horizontal_flip",
    "vertical_flip",
    "grayscale",
    "zoom",
    "affine bilinear",
    "perspective",
    "shrunk crop",
    "padding_crop",
    "gaussian_blur",
    "hue",
    "cutout",
    "erase",
    "zero rotation",
    "no blur",
    "no turn",
)


@pytest.mark.parametrize("kind", ("photograph", "noise"))
@pytest.mark.parametrize(
    ("names", "channels"),
    (
        (QUICK, 3),
        pytest.param(tuple(CASES), 3, marks=pytest.mark.slow),
        pytest.param(tuple(set(CASES) - {"hue"}), 1, marks=pytest.mark.slow),
    ),
    ids=("quick", "all", "grey"),
)
def test_pixels_are_pillows(names: tuple[str, ...], channels: int, kind: str):
    image = picture(kind, channels)
    results = compiled(names)(image)
    for name in names:
        blurred = name == "gaussian_blur"  # Pillow's edges are not reflected, and noise is rough
        error = difference(results[name], CASES[name][1](pil_of(image)), crop=6 * blurred)
        # A look-up at less than 1e-3 of a pixel's edge may fall on the other side.
        assert np.quantile(error, 0.997) <= CASES[name][2] + 5 * (blurred and kind == "noise"), name
        if name not in LOOK_UPS:
            assert error.max() <= CASES[name][2] + 5 * (blurred and kind == "noise"), name


# Of each operation of the policies: a magnitude, and what Pillow calls it.
STEPS = {
    "identity": (0, lambda p: p),
    "shear_x": (0.27, lambda p: warped(p, Affine, (1, 0.27, 0, 0, 1, 0))),
    "shear_y": (-0.23, lambda p: warped(p, Affine, (1, 0, 0, -0.23, 1, 0))),
    "shift_x": (5.3, lambda p: warped(p, Affine, (1, 0, -5.3, 0, 1, 0))),
    "shift_y": (-4.2, lambda p: warped(p, Affine, (1, 0, 0, 0, 1, 4.2))),
    "rotate": (-21, lambda p: p.rotate(-21, fillcolor=fill_of(p))),
    "brightness": (0.7, lambda p: enhanced(p, "Brightness", 1.7)),
    "contrast": (-0.6, lambda p: enhanced(p, "Contrast", 0.4)),
    "posterise": (5, lambda p: ImageOps.posterize(p, 3)),
    "solarise": (150, lambda p: ImageOps.solarize(p, 106)),
    "solarise_add": (
        60,
        lambda p: p.point([min(255, v + 60) if v < 128 else v for v in range(256)] * 3),
    ),
    "autocontrast": (0, ImageOps.autocontrast),
    "equalise": (0, ImageOps.equalize),
    "invert": (0, ImageOps.invert),
    "saturation": (0.8, lambda p: enhanced(p, "Color", 1.8)),
    "sharpness": (-0.9, lambda p: enhanced(p, "Sharpness", 0.1)),
}


def test_operations_of_the_policies_are_pillows_and_do_nothing_at_zero():
    assert tuple(STEPS) == policies.OPERATIONS
    image, numbers = picture(), jnp.arange(len(STEPS))
    apply = jax.jit(
        jax.vmap(functools.partial(policies.apply_operation, fill=77), in_axes=(None, 0, 0))
    )
    results = apply(image, numbers, jnp.array([magnitude for magnitude, _ in STEPS.values()]))
    neutral = apply(image, numbers, jnp.zeros(len(STEPS)))
    for result, unchanged, (name, (_, theirs)) in zip(results, neutral, STEPS.items(), strict=True):
        error = difference(result, theirs(pil_of(image)))
        assert np.quantile(error, 0.997) <= 1, name
        if name not in ("autocontrast", "equalise", "invert"):
            np.testing.assert_array_equal(unchanged, image, err_msg=name)


def draws(draw, count: int = 20_000, **arguments) -> tuple[np.ndarray, np.ndarray]:
    """Returns operations and magnitudes of many keys, for images of 32 x 64."""
    keys = jax.random.split(jax.random.key(5), count)
    drawn, magnitudes = jax.jit(jax.vmap(lambda key: draw(key, (32, 64), **arguments)))(keys)
    wide = draw is policies.draw_trivial_augment_wide
    largest = policies.largest_magnitudes((32, 64), wide=wide)
    assert (np.abs(magnitudes) <= largest[drawn] * (1 + 1e-6)).all()
    return np.asarray(drawn), np.asarray(magnitudes)


def shares(drawn: np.ndarray) -> np.ndarray:
    """Returns how often each operation was drawn, as a part of all places in all draws."""
    return np.bincount(np.ravel(drawn), minlength=len(policies.OPERATIONS)) / drawn.size


def places(names) -> list[int]:
    return [policies.OPERATIONS.index(name) for name in names]


def test_rand_augment_draws_evenly():
    drawn, magnitudes = draws(policies.draw_rand_augment, probability=0.75)
    wanted = np.zeros(len(policies.OPERATIONS))
    wanted[places(policies.RAND_AUGMENT)] = 0.75 / 14
    wanted[0] += 0.25  # what is not applied is the identity
    np.testing.assert_allclose(shares(drawn), wanted, atol=0.005)
    both = (drawn == drawn[:, ::-1]) & (drawn > 0)
    assert both.mean() == pytest.approx(13 * (0.75 / 14) ** 2, abs=0.006), "draws are independent"
    for name in policies.RAND_AUGMENT[1:]:
        of_one = magnitudes[drawn == policies.OPERATIONS.index(name)]
        if name in ("posterise", "solarise", "autocontrast", "equalise"):
            assert (of_one >= 0).all(), name
        else:
            assert 0.45 < (of_one < 0).mean() < 0.55, name
            np.testing.assert_allclose(abs(of_one), abs(of_one[0]))
    across, down = (abs(magnitudes[drawn == p]).max() for p in places(("shift_x", "shift_y")))
    assert across == 2 * down == pytest.approx(0.9 * 64 * 150 / 331)


@pytest.mark.slow
def test_auto_augment_draws_with_the_probabilities_of_its_table():
    numbers, probabilities, _ = policies.auto_augment_table("svhn")
    wanted = np.bincount(numbers.ravel(), probabilities.ravel(), minlength=16) / 50
    wanted[0] = 1 - wanted.sum()
    drawn, _ = draws(policies.draw_auto_augment, policy="svhn")
    np.testing.assert_allclose(shares(drawn), wanted, atol=0.01)


@pytest.mark.slow
def test_the_other_policies_draw_evenly():
    wanted = np.zeros(len(policies.OPERATIONS))
    wanted[places(policies.RAND_AUGMENT)] = 1 / 14
    drawn, magnitudes = draws(policies.draw_trivial_augment_wide)
    np.testing.assert_allclose(shares(drawn), wanted, atol=0.01)
    angles = np.unique(np.round(abs(magnitudes[drawn == policies.OPERATIONS.index("rotate")]), 3))
    np.testing.assert_allclose(angles, np.linspace(0, 135, 31), atol=1e-3)
    wanted = np.zeros(len(policies.OPERATIONS))
    wanted[places(policies.AUGMIX)] = 2 / 3 / 9  # of 3 places 2 are taken, on average
    wanted[0] = 1 / 3
    np.testing.assert_allclose(shares(draws(policies.draw_aug_mix)[0]), wanted, atol=0.01)
    drawn, magnitudes = draws(policies.draw_rand_augment, magnitude=5, std=1, operations=["rotate"])
    assert abs(magnitudes).mean() == pytest.approx(15, abs=0.1)  # 30 degrees are 10
    assert abs(magnitudes).std() == pytest.approx(3, abs=0.1)


def batch(count: int = 6) -> tuple[np.ndarray, jax.Array]:
    """Returns images [B, 20, 16, 3] and keys [B]."""
    rows = np.random.default_rng(3).integers(20, 230, (count, 20, 16, 3), np.uint8)
    return rows, jax.random.split(jax.random.key(7), count)


def check_laws(function) -> np.ndarray:
    """Shows that an image's result depends on it and its key only; returns the results."""
    images, keys = batch()
    order = np.array([3, 0, 5, 1, 4, 2])
    together = jax.jit(jax.vmap(function))
    results = np.asarray(together(images, keys))
    assert results.dtype == np.uint8
    np.testing.assert_array_equal(results, together(images, keys))
    np.testing.assert_array_equal(results[order], together(images[order], keys[order]))
    alone = jax.jit(function)
    for i in range(2):
        np.testing.assert_array_equal(results[i], alone(images[i], keys[i]))
    other = together(images, jax.random.split(jax.random.key(9), len(images)))
    assert (results != other).any(), "the key makes no difference"
    return results


RANDOM = {
    "rand_augment": make_operation("rand_augment", {"std": 0.5, "interpolation": "bilinear"}),
    "auto_augment": make_operation("auto_augment", {"policy": "cifar10"}),
    "trivial_augment_wide": policies.trivial_augment_wide,
    "aug_mix": make_operation("aug_mix", {"severity": 10}),
    "horizontal_flip": geometry.random_horizontal_flip,
    "vertical_flip": geometry.random_vertical_flip,
    "resized_crop": geometry.random_resized_crop,
    "padding_crop": functools.partial(geometry.random_padding_crop, padding=2),
    "shift": geometry.random_shift,
    "zoom": geometry.random_zoom,
    "rotation": geometry.random_rotation,
    "shear": geometry.random_shear,
    "perspective": geometry.random_perspective,
    "brightness": colour.random_brightness,
    "contrast": colour.random_contrast,
    "saturation": colour.random_saturation,
    "hue": colour.random_hue,
    "jitter": functools.partial(
        colour.colour_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
    ),
    "grayscale": functools.partial(colour.random_grayscale, probability=0.5),
    "gaussian_blur": functools.partial(colour.random_gaussian_blur, kernel_size=5),
    "sharpness": colour.random_sharpness,
    "solarise": colour.random_solarise,
    "solarise_add": colour.random_solarise_add,
    "posterise": colour.random_posterise,
    "invert": colour.random_invert,
    "autocontrast": functools.partial(colour.random_autocontrast, probability=0.5),
    "equalise": colour.random_equalise,
    "cutout": functools.partial(mixing.random_cutout, size=5),
    "erasing": mixing.random_erasing,
    "noisy erasing": functools.partial(mixing.random_erasing, noise=True, probability=1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RANDOM)
def test_a_result_depends_on_image_and_key_only(name: str):
    check_laws(RANDOM[name])


def one_hot_batch(count: int = 8) -> tuple[np.ndarray, np.ndarray, jax.Array]:
    """Returns images [B, 9, 11, B] whose mean pixels are their targets [B, B], and keys."""
    targets = np.eye(count, dtype=np.float32)
    images = np.broadcast_to(targets[:, None, None], (count, 9, 11, count))
    return images, targets, jax.random.split(jax.random.key(2), count)


mix_most = jax.jit(
    functools.partial(mixing.mix, mixup_alpha=0.8, cutmix_alpha=1.0, probability=0.9)
)


def test_mixed_targets_say_what_the_mixed_images_show():
    images, targets, keys = one_hot_batch()
    mixed, mixed_targets = mix_most(images, targets, keys)
    np.testing.assert_allclose(mixed.mean((1, 2)), mixed_targets, atol=1e-6)
    np.testing.assert_allclose(mixed_targets.sum(1), 1, atol=1e-6)
    pasted = np.isin(np.asarray(mixed), (0, 1)).all((1, 2, 3))
    assert pasted.any() and not pasted.all()
    # In another order: what an image is mixed with, and how, is its own.
    order = np.array([5, 2, 7, 0, 3, 6, 1, 4])
    again, _ = mix_most(images[order], targets[order], keys[order])
    np.testing.assert_array_equal(again, mixed[order])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", (np.uint8, np.float32))
def test_mixing_is_the_same_on_eight_devices(devices, dtype):
    images, targets, keys = one_hot_batch(16)
    images = (images * 201).astype(dtype)
    mixed, mixed_targets = mix_most(images, targets, keys)
    assert mixed.dtype == dtype
    error = np.abs(np.asarray(mixed).mean((1, 2)) / 201 - mixed_targets)
    assert error.max() < (0.5 / 201 if dtype == np.uint8 else 1e-5) + 1e-6
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = mix_most(*(jax.device_put(x, sharding) for x in (images, targets, keys)))
    assert len(spread[0].sharding.device_set) == 8
    np.testing.assert_array_equal(spread[0], mixed)
    np.testing.assert_allclose(spread[1], mixed_targets, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", (0.1, 0.2, 0.8, 1.0, 3.0))
def test_shares_are_beta_distributed(alpha: float):
    from scipy.stats import beta

    uniform = np.random.default_rng(0).random((2, 20_000), np.float32)
    drawn = np.asarray(mixing.symmetric_beta(uniform, alpha))
    points = (np.arange(4096) + 0.5) / 4096  # between the steps
    found = np.searchsorted(np.sort(drawn), points) / drawn.size
    assert np.abs(found - beta(alpha, alpha).cdf(points)).max() < 1.6 / np.sqrt(drawn.size)


@pytest.mark.slow
def test_alpha_zero_and_probability_zero_mix_nothing():
    images, targets, keys = one_hot_batch()
    for arguments in ({}, {"mixup_alpha": 1, "cutmix_alpha": 1, "probability": 0}):
        mixed = mixing.mix(images, targets, keys, **arguments)
        np.testing.assert_array_equal(mixed[0], images)
        np.testing.assert_array_equal(mixed[1], targets)
    averaged, _ = mixing.mixup(images, targets, keys, alpha=1.0)
    pasted, _ = mixing.cutmix(images, targets, keys, alpha=1.0)
    assert not np.isin(np.asarray(averaged), (0, 1)).all((1, 2, 3)).any()
    assert np.isin(np.asarray(pasted), (0, 1)).all()


def test_everyone_is_a_partner_once_and_nobody_of_masked_rows():
    keys = jax.random.split(jax.random.key(0), 8)
    mask = np.array([1, 1, 0, 1, 1, 0, 1, 1], np.float32)
    partners = jax.jit(mixing.partners)
    partner = np.asarray(partners(keys, np.ones(8, np.float32)))
    assert sorted(partner) == list(range(8)) and (partner != np.arange(8)).all()
    partner = np.asarray(partners(keys, mask))
    assert sorted(partner) == list(range(8))
    np.testing.assert_array_equal(partner == np.arange(8), mask == 0)
    alone = np.asarray(partners(keys, np.eye(8, dtype=np.float32)[3]))
    np.testing.assert_array_equal(alone, np.arange(8))


@pytest.mark.slow
def test_boxes_are_inside_and_as_large_as_asked():
    keys = jax.random.split(jax.random.key(0), 2000)
    draw = jax.vmap(lambda key: geometry.random_box(key, (60, 90), (0.1, 0.5), (0.5, 2.0)))
    top, left, height, width, found = (np.asarray(x) for x in jax.jit(draw)(keys))
    assert found.mean() > 0.99
    top, left, height, width = (x[found] for x in (top, left, height, width))
    assert top.min() == 0 and (top + height).max() == 60
    assert left.min() == 0 and (left + width).max() == 90
    area, ratio = height * width / 5400, width / height
    assert 0.09 < area.min() < 0.13 and 0.45 < area.max() < 0.52
    assert 0.47 < ratio.min() < 0.55 and 1.8 < ratio.max() < 2.1


@pytest.mark.parametrize(
    ("call", "text"),
    (
        (lambda: make_operation("randaugment", {}), "Did you mean 'rand_augment'"),
        (lambda: make_operation("random_apply", {}), "'random_apply' does not exist"),
        (lambda: make_operation("aug_mix", {"widht": 3}), "Did you mean 'width'"),
        (lambda: make_operation("aug_mix", {"width": 0}), "width=0: give a whole number"),
        (lambda: make_operation("auto_augment", {"policy": "mnist"}), "imagenet, cifar10, svhn"),
        (lambda: make_operation("rand_augment", {"magnitude": 11}), "from 0 to 10"),
        (lambda: make_operation("rand_augment", {"magnitude": "9"}), "magnitude='9'"),
        (lambda: make_operation("rand_augment", {"operations": ("blur",)}), "'blur'"),
        (lambda: make_operation("rand_augment", {"operations": "rotate"}), "give a list"),
        (lambda: make_operation("aug_mix", {"interpolation": "cubic"}), "nearest, bilinear"),
        (lambda: make_operation("random_padding_crop", {}), "needs the argument 'padding'"),
        (lambda: make_operation("random_rotation", {"degrees": "x"}), "cannot work with"),
        (lambda: make_operation("random_shift", {"fill": 300}), "cannot work with"),
        (lambda: make_operation("random_brightness", {"amount": -1}), "amount=-1"),
        (lambda: make_operation("random_resized_crop", {"size": (8, 8)}), "leave size out"),
        (lambda: geometry.random_box(jax.random.key(0), (8, 8), (0, 1), (1, 2)), "scale=(0, 1)"),
        (lambda: mixing.mixup(*one_hot_batch(), alpha=-1), "mixup_alpha=-1"),
    ),
)
def test_bad_values_are_named(call, text: str):
    with pytest.raises(ConfigError) as error:
        call()
    assert text in str(error.value) and "\n" not in str(error.value)
