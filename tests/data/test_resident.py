"""Batches gathered on the devices are those that the host would have assembled."""

import numpy as np
import pytest

from tests.data.test_loader import Recording, examples_of
from zoo.data.loader import Order, eval_batches, train_batches
from zoo.data.resident import AUTOMATIC, Resident, chosen, device_memory, read_all
from zoo.data.source import ArraySource
from zoo.errors import ConfigError, DataError
from zoo.training.mesh import batch_sharding, make_mesh, replicated, stacked


class Flawed(ArraySource):
    """Images that differ, of which one cannot be decoded."""

    def __getitem__(self, index):
        if index == 7:
            raise DataError("seven.jpg: cannot be decoded")
        return super().__getitem__(index)


def hold(examples, mesh, threads=2):
    return Resident(read_all(examples, threads), replicated(mesh), batch_sharding(mesh))


def assert_same_batch(batch, expected):
    assert batch.keys() == expected.keys()
    for name, array in expected.items():
        assert batch[name].dtype == array.dtype
        assert batch[name].sharding == array.sharding
        np.testing.assert_array_equal(batch[name], array, err_msg=name)


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_the_same_bits(num_devices, threads, devices):
    """Across the end of an epoch, with an example that cannot be decoded, and with padding."""
    mesh = make_mesh(devices[:num_devices])
    rows, options = batch_sharding(mesh), {"max_bad": 1}
    size = 600  # several threads' parts
    pixels = np.random.default_rng(0).integers(0, 256, (size, 2, 2), np.uint8)
    flawed = Flawed(pixels, np.arange(size) % 3)
    held = hold(examples_of(flawed, **options), mesh, threads)
    order = Order(size, 32, seed=3)
    steps = range(17, 21)
    assert (order.at(18)[1] != order.at(18)[1][0]).any()  # two epochs in one batch
    source = examples_of(flawed, **options)
    for step, expected in zip(steps, train_batches(source, order, steps, rows), strict=True):
        assert_same_batch(held.batch(*order.at(step)), expected)
    masks = []
    for start, expected in zip(range(0, size, 32), eval_batches(source, 32, rows), strict=True):
        places = start + np.arange(32)
        batch = held.batch(places, np.zeros(32), places < size)
        assert_same_batch(batch, expected)
        masks.append(np.asarray(batch["mask"]))
    assert np.sum(masks) == size - 1


def test_several_numbers_each_and_batches_of_several_seeds(devices):
    mesh = make_mesh(devices)
    targets = np.arange(30, dtype=np.float32).reshape(10, 3)
    source = ArraySource(np.arange(40, dtype=np.uint8).reshape(10, 2, 2), targets)
    columns = read_all(examples_of(source), 2)
    held = Resident(columns, replicated(mesh), stacked(batch_sharding(mesh)))
    indices = np.stack([Order(10, 8, seed).at(0)[0] for seed in (0, 1, 2)])
    batch = held.batch(indices, np.zeros_like(indices))
    assert batch["image"].shape == (3, 8, 2, 2, 1)
    assert batch["image"].addressable_shards[0].data.shape == (3, 1, 2, 2, 1)
    np.testing.assert_array_equal(batch["label"], targets[indices])


def test_everything_is_read_once_and_the_budget_for_bad_examples_counts():
    source = Recording(40)
    held = hold(examples_of(source), make_mesh())
    for step in range(10):
        held.batch(*Order(40, 8, 0).at(step))
    assert sorted(source.reads) == list(range(40))
    with pytest.raises(DataError, match=r"picture9\.jpg.*makes 2 bad examples"):
        hold(examples_of(Recording(40, bad=(4, 9)), max_bad=1), make_mesh(), threads=1)


USUAL = {"cached": True, "cropped": False, "alone": True, "needed": False}


@pytest.mark.parametrize(
    ("wanted", "size", "change", "expected"),
    [
        (None, 1, {}, True),
        (None, AUTOMATIC + 1, {}, False),
        (None, 1, {"cached": False}, False),
        (None, 1, {"cropped": True}, False),
        (None, 1, {"alone": False}, False),
        (None, AUTOMATIC + 1, {"needed": True, "cached": False}, True),
        (True, AUTOMATIC + 1, {"cached": False, "alone": False}, True),
        (False, 1, {}, False),
    ],
)
def test_which_data_are_held(wanted, size, change, expected):
    assert chosen(wanted, size, **{**USUAL, **change}) == expected


@pytest.mark.parametrize(
    ("wanted", "size", "change", "message"),
    [
        (False, 1, {"needed": True}, "config.data.resident=False: several seeds at once need"),
        (True, 1, {"cropped": True}, "config.data.resident=True keeps one image per example"),
        (None, 1, {"cropped": True, "needed": True}, "config.seeds keeps one image per example"),
        (
            True,
            2**60,
            {},
            r"the images take 1,073,741,824.00 GiB, allowed are 50% of the .* GiB of a device",
        ),
    ],
)
def test_data_that_cannot_be_held_are_refused(wanted, size, change, message):
    assert 2**20 < device_memory() < 2**50
    with pytest.raises(ConfigError, match=message):
        chosen(wanted, size, **{**USUAL, **change})
