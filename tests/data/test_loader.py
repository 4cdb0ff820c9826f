"""Order, exactness and independence of the batches; augmentation keyed by example."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.augment import augment, example_keys, make_prepare, random_shift
from zoo.data.loader import Examples, Order, eval_batches, map_ahead, train_batches
from zoo.data.source import ArraySource
from zoo.errors import DataError
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
    first = [np.asarray(b["image"]) for b in train_batches(examples, order, range(10), sharding)]
    assert sorted(source.reads) == list(range(10))
    plain = train_batches(examples_of(Recording(10)), order, range(10), sharding)
    for a, b in zip(first, plain, strict=True):
        assert (a == np.asarray(b["image"])).all()


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


# -- on the device --------------------------------------------------------------------------


def test_augmentation_is_keyed_by_epoch_and_example():
    key = jax.random.key(0)
    images = jax.random.randint(key, (1, 12, 12, 1), 0, 256).astype(jnp.uint8)
    images = jnp.repeat(images, 6, axis=0)
    keys = example_keys(key, jnp.array([0, 0, 1, 1, 0, 0]), jnp.array([1, 2, 1, 2, 1, 2]))
    out = np.asarray(augment(images, keys, shift=4, flip=True))
    assert (out[:2] == out[4:]).all()
    assert not (out[0] == out[1]).all()
    assert not (out[0] == out[2]).all()


def test_shift_moves_and_fills_with_zeros():
    image = jnp.ones((6, 6, 1), jnp.uint8)
    sums = {int(random_shift(image, jax.random.key(i), 2).sum()) for i in range(60)}
    # Up to two rows and two columns go: (6 - i) * (6 - j).
    assert sums == {(6 - i) * (6 - j) for i in range(3) for j in range(3)}


def test_flip_happens_half_of_the_time():
    images = jnp.tile(jnp.arange(4, dtype=jnp.uint8)[None, None, :, None], (400, 1, 1, 1))
    keys = jax.random.split(jax.random.key(3), 400)
    out = np.asarray(augment(images, keys, shift=0, flip=True))[:, 0, :, 0]
    flipped = (out == [3, 2, 1, 0]).all(axis=1)
    assert 160 < flipped.sum() < 240
    assert (out[~flipped] == [0, 1, 2, 3]).all()


def test_without_a_key_nothing_is_augmented():
    prepare = make_prepare(lambda x: normalise(x, (0.5,), (0.25,)), shift=3, flip=True)
    images = jnp.full((2, 4, 4, 1), 255, jnp.uint8)
    batch = {"image": images, "epoch": jnp.zeros(2, int), "index": jnp.arange(2)}
    np.testing.assert_allclose(prepare(batch), 2.0)
    assert prepare(batch, jax.random.key(0)).min() == -2.0


def test_normalise_per_channel():
    images = jnp.array([[[[0, 255, 51]]]], jnp.uint8)
    out = normalise(images, (0.0, 0.5, 0.1), (1.0, 0.5, 0.1))
    np.testing.assert_allclose(out[0, 0, 0], [0, 1, 1], rtol=1e-6)
