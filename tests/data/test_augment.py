"""The pipeline of a configuration: its keys, its order, its mistakes; and the host's crop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.augment import OPERATIONS, example_keys, make_augment
from zoo.data.augmentation import geometry
from zoo.data.crop import draw_box, make_crop
from zoo.errors import ConfigError
from zoo.images import fit_image
from zoo.training.mesh import batch_sharding, make_mesh

MIX = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
KEY = jax.random.key(4)
augment = jax.jit(make_augment([("random_horizontal_flip", {})], MIX))


def make_batch(epoch: int = 0) -> dict[str, np.ndarray]:
    """Returns eight images [8, 6, 5, 3] of noise, of which the last does not count."""
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3), np.uint8)
    batch = {"image": images, "index": np.arange(8, dtype=np.int32) + 20}
    return batch | {"epoch": np.full(8, epoch, np.int32), "mask": np.float32([1] * 7 + [0])}


def one_hot() -> np.ndarray:
    return np.eye(8, dtype=np.float32)


@pytest.mark.slow
def test_order_and_devices_make_no_difference(devices):
    batch = make_batch()
    images, targets = jax.tree.map(np.asarray, augment(batch, KEY, one_hot()))
    assert images.dtype == np.uint8 and images.shape == batch["image"].shape
    order = np.array([3, 7, 5, 1, 0, 4, 2, 6])
    shuffled = {name: column[order] for name, column in batch.items()}
    spread = jax.device_put((shuffled, one_hot()[order]), batch_sharding(make_mesh(devices)))
    again = augment(spread[0], KEY, spread[1])
    assert len(again[0].sharding.device_set) == 8
    np.testing.assert_array_equal(again[0], images[order])
    np.testing.assert_allclose(again[1], targets[order], atol=1e-7)
    later, _ = augment(make_batch(1), KEY, one_hot())
    assert (images != later).any((1, 2, 3)).sum() >= 6
    other, _ = augment(batch, jax.random.key(5), one_hot())
    assert (images != other).any((1, 2, 3)).sum() >= 6


def test_operations_follow_each_other_with_keys_of_their_own(monkeypatch):
    def add(image: jax.Array, key: jax.Array) -> jax.Array:
        return image + jax.random.key_data(key)[0].astype(jnp.uint8)

    monkeypatch.setitem(OPERATIONS, "add", add)
    monkeypatch.setitem(OPERATIONS, "double", lambda image, key: 2 * image)
    steps = jax.jit(make_augment([("add", {}), ("double", {}), ("add", {})]))
    batch = make_batch()
    images, _ = steps(batch, KEY, None)
    keys = example_keys(KEY, batch["epoch"], batch["index"])
    for row in range(2):
        first, third = (jax.random.fold_in(keys[row], number) for number in (1, 3))
        np.testing.assert_array_equal(images[row], add(2 * add(batch["image"][row], first), third))


def test_without_anything_images_and_targets_are_handed_on():
    batch, targets = make_batch(), object()
    images, same = make_augment((), {})(batch, KEY, targets)
    assert images is batch["image"] and same is targets


def test_what_is_mixed_has_rows_of_its_own():
    _, targets = augment(make_batch(), KEY, one_hot())
    np.testing.assert_allclose(np.sum(targets, 1), 1, atol=1e-6)
    assert (np.asarray(targets)[:7, 7] == 0).all(), "a masked row is nobody's partner"
    np.testing.assert_array_equal(targets[7], one_hot()[7])
    with pytest.raises(ValueError, match=r"int32 \[8\] cannot be mixed"):
        make_augment((), MIX)(make_batch(), KEY, jnp.arange(8))


@pytest.mark.parametrize(
    ("images", "mixing", "text"),
    (
        ([("random_horizontal_flp", {})], {}, "images: operation='random_horizontal_flp' does not"),
        ([("mixup", {})], {}, "images: operation='mixup' does not exist"),
        (("random_hue", {}), {}, "images: 'random_hue' is not a pair"),
        ([("random_hue", {"amount": 0.6})], {}, "images: random_hue: amount=0.6: give a number"),
        ((), {"mixup": 0.2}, "mix has no argument 'mixup'. "),
        ((), {"mask": 1}, "mix has no argument 'mask'"),
        ((), {"mixup_alpha": -1}, "mix: mixup_alpha=-1: give a number, 0 or more"),
        ((), {"probability": 0.5}, "mixes nothing; give mixup_alpha, cutmix_alpha or both"),
    ),
)
def test_mistakes_are_named_with_their_key(images, mixing, text):
    with pytest.raises(ConfigError) as error:
        make_augment(images, mixing)
    message = str(error.value)
    assert message.startswith("config.augment.") and text in message and "\n" not in message


def test_every_operation_works_on_grey_images_of_odd_shapes():
    needed = {"padding": 2, "size": 3, "kernel_size": 5}
    wants = {"random_padding_crop": "padding", "random_cutout": "size"}
    wants["random_gaussian_blur"] = "kernel_size"
    images = [(n, {wants[n]: needed[wants[n]]} if n in wants else {}) for n in OPERATIONS]
    assert {"random_horizontal_flip", "colour_jitter", "random_erasing", "aug_mix"} <= {*OPERATIONS}
    make_augment(images, MIX, (9, 14, 1))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def test_a_crop_is_keyed_by_seed_epoch_and_example():
    def crop(image: np.ndarray, epoch: int, index: int, seed: int = 3) -> np.ndarray:
        made = make_crop(
            {"scale": (0.1, 1)}, seed=seed, size=8, channels=1, interpolation="bilinear"
        )
        assert made is not None
        return made(image, epoch, index)

    image = picture(40, 30)
    first = crop(image, 2, 5)
    assert first.shape == (8, 8, 1) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, crop(image, 2, 5))
    for other in (crop(image, 3, 5), crop(image, 2, 6), crop(image, 2, 5, seed=4)):
        assert (first != other).any()


def test_a_crops_pixels_are_those_of_its_box():
    image = picture(50, 70)
    options = {"seed": 2**32 - 1, "size": 16, "channels": 3, "interpolation": "bicubic"}
    whole = make_crop({"scale": (1, 1), "ratio": (70 / 50, 70 / 50)}, **options)
    assert whole is not None
    np.testing.assert_array_equal(
        whole(image, 0, 0), fit_image(image, 16, 3, "squash", interpolation="bicubic")
    )
    assert make_crop({}, **options) is None
    # The same on every machine and with every numpy, for ever.
    raw = np.random.Philox(key=[7, 1], counter=[0, 0, 9, 1]).random_raw(22)
    assert draw_box((raw >> 11) * 2.0**-53, 375, 500) == (3, 86, 334, 406)


@pytest.mark.parametrize(
    ("shape", "central"), (((10, 400), (0, 193, 10, 13)), ((400, 10), (193, 0, 13, 10)))
)
def test_where_no_box_fits_the_largest_central_one_is_taken(shape, central):
    assert draw_box(np.full(22, 0.99), *shape, scale=(0.9, 1)) == central


@pytest.mark.parametrize(
    ("arguments", "text"),
    (
        ({"scale": (0, 1)}, "scale=(0, 1): give two ascending numbers"),
        ({"ratio": 1}, "ratio=1: give two"),
        ({"scales": (0.1, 1)}, "Did you mean 'scale'?"),
        ({"uniform": 1}, "no argument 'uniform'"),
    ),
)
def test_mistakes_of_a_crop_are_named(arguments, text):
    with pytest.raises(ConfigError) as error:
        make_crop(arguments, seed=0, size=8, channels=1, interpolation="bilinear")
    assert str(error.value).startswith("config.augment.crop") and text in str(error.value)


@pytest.mark.slow
def test_host_and_device_draw_the_same_boxes():
    keys = jax.random.split(jax.random.key(0), 500)
    scale, ratio = (0.08, 1.0), (0.6, 1.5)
    draw = functools.partial(geometry.random_box, shape=(75, 90), scale=scale, ratio=ratio)
    *boxes, found = (np.asarray(x) for x in jax.jit(jax.vmap(draw))(keys))
    uniforms = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (22,)))(keys), np.float64)
    ours = np.array([draw_box(u, 75, 90, scale=scale, ratio=ratio) for u in uniforms])
    same = (ours == np.stack(boxes, 1)).all(1)[found]
    assert found.mean() > 0.99 and same.mean() > 0.99, "but for roundings of float32"
