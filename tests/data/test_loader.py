"""Order, exactness and independence of the batches."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.loader import Examples, Order, eval_batches, map_ahead, train_batches
from zoo.data.source import ArraySource
from zoo.errors import ConfigError, DataError
from zoo.images import normalise
from zoo.training.mesh import batch_sharding, make_mesh


class Recording(ArraySource):
    """Remembers which examples were read, and fails on some."""

    def __init__(self, size: int, bad: tuple[int, ...] = ()):
        super().__init__(np.zeros((size, 2, 2), np.uint8), np.arange(size) % 3)
        self.reads, self._bad = [], bad

    def __getitem__(self, index):
        self.reads.append(index)
        if index in self._bad:
            raise DataError(f"picture{index}.jpg: cannot be decoded")
        return np.full((2, 2, 1), index, np.uint8), int(self.labels[index])


def examples_of(source, **options) -> Examples:
    return Examples(source, lambda image: image, (2, 2, 1), **options)


@settings(max_examples=60, deadline=None)
@given(
    num_examples=st.integers(1, 60),
    batch_size=st.integers(1, 40),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_example_exactly_once_per_epoch(num_examples, batch_size, epochs, seed):
    order = Order(num_examples, batch_size, seed)
    steps = range(-(-num_examples * epochs // batch_size))
    pairs = [p for s in steps for p in zip(*(a.tolist() for a in order.at(s)), strict=True)]
    for epoch in range(epochs):
        seen = sorted(index for index, e in pairs if e == epoch)
        assert seen == list(range(num_examples))
    # A step's examples do not depend on which steps were asked for before.
    again = Order(num_examples, batch_size, seed).at(steps[-1])
    assert (again[0] == order.at(steps[-1])[0]).all()


def test_epochs_and_seeds_shuffle_differently():
    orders = [Order(100, 100, seed).at(epoch)[0].tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0][:5] == [66, 0, 54, 43, 69]  # the same on every machine, for ever


@pytest.mark.parametrize("count", [1, 7, 8, 9, 23, 24])
@pytest.mark.parametrize("num_devices", [1, 2, 3, 8])
def test_evaluation_counts_every_example_once(devices, count, num_devices):
    sharding = batch_sharding(make_mesh(devices[:num_devices]))
    source = Recording(count)
    batches = list(eval_batches(examples_of(source), 24 // num_devices * num_devices, sharding))
    seen = np.concatenate([np.asarray(b["index"])[np.asarray(b["mask"]) > 0] for b in batches])
    assert seen.tolist() == list(range(count))
    assert sorted(source.reads) == list(range(count))
    for batch in batches:
        rows = np.asarray(batch["mask"]) > 0
        assert (np.asarray(batch["image"])[rows, 0, 0, 0] == np.asarray(batch["index"])[rows]).all()
        assert (np.asarray(batch["label"])[rows] == np.asarray(batch["index"])[rows] % 3).all()


def test_batches_do_not_depend_on_threads_prefetch_devices_or_where_they_start(devices):
    def batches(start, threads, prefetch, num_devices):
        sharding = batch_sharding(make_mesh(devices[:num_devices]))
        order, examples = Order(13, 8, 5), examples_of(Recording(13))
        options = {"threads": threads, "prefetch": prefetch}
        loaded = train_batches(examples, order, range(start, 10), sharding, **options)
        return [{k: np.asarray(v).tolist() for k, v in b.items()} for b in loaded]

    expected = batches(0, 1, 0, 1)
    assert expected == batches(0, 4, 3, 8)
    assert expected[4:] == batches(4, 3, 1, 2)


def test_cache_reads_every_example_once():
    source = Recording(10)
    sharding = batch_sharding(make_mesh())
    examples = examples_of(source, cache=True)
    order = Order(10, 8, 0)
    kept = list(train_batches(examples, order, range(10), sharding))
    assert sorted(source.reads) == list(range(10))
    plain = train_batches(examples_of(Recording(10)), order, range(10), sharding)
    for a, b in zip(kept, plain, strict=True):
        assert all((np.asarray(a[name]) == np.asarray(b[name])).all() for name in a)


def test_a_crop_gets_the_epoch_and_the_index_and_is_not_cached():
    def crop(image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        assert (image == index).all()
        return image + np.uint8(100 * epoch)

    examples = examples_of(Recording(10), crop=crop)
    batches = train_batches(examples, Order(10, 8, 0), range(3), batch_sharding(make_mesh()))
    for batch in batches:
        wanted = np.asarray(batch["index"]) + 100 * np.asarray(batch["epoch"])
        assert (np.asarray(batch["image"])[:, 0, 0, 0] == wanted).all()
    with pytest.raises(ConfigError, match="set cache to False"):
        examples_of(Recording(10), crop=crop, cache=True)


def test_bad_images_are_masked_counted_and_named():
    source = Recording(16, bad=(3, 5))
    examples = examples_of(source, max_bad=2)
    sharding = batch_sharding(make_mesh())
    for _ in range(2):
        batches = list(eval_batches(examples, 8, sharding))
        masks = np.concatenate([np.asarray(b["mask"]) for b in batches])
        assert np.flatnonzero(masks == 0).tolist() == [3, 5]
    assert sorted(examples.bad) == [3, 5]
    assert source.reads.count(3) == 1  # not tried again
    with pytest.raises(DataError, match=r"picture5\.jpg: cannot be decoded\. That makes 2 bad"):
        list(eval_batches(examples_of(source, max_bad=1), 8, sharding, threads=1))


def test_wrong_labels_are_refused():
    source = Recording(8)
    source.labels = np.array([0, 1, 2, 7, 0, 1, 2, 0])
    with pytest.raises(DataError, match="label 7, allowed are 0 to 2"):
        list(eval_batches(examples_of(source), 8, batch_sharding(make_mesh())))


def test_map_ahead_keeps_order_and_stops_when_left():
    started = []

    def slow(i):
        started.append(i)
        return i * i

    results = map_ahead(slow, range(1000), threads=3, prefetch=4)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    results.close()
    assert len(started) < 20


def test_normalise_per_channel():
    images = jnp.array([[[[0, 255, 51]]]], jnp.uint8)
    out = normalise(images, (0.0, 0.5, 0.1), (1.0, 0.5, 0.1))
    np.testing.assert_allclose(out[0, 0, 0], [0, 1, 1], rtol=1e-6)


def test_numbers_need_not_be_labels():
    images = np.zeros((1, 4, 4), np.uint8)
    source = ArraySource(images, np.array([[-3.5, 70]]), ["age", "weight"])
    _, target, there = Examples(source, lambda image: image, (4, 4, 1)).read(0)
    assert (np.asarray(target).tolist(), there) == ([-3.5, 70], 1.0)
