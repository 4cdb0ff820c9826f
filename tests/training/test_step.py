"""The step's laws, on a net with everything that can break them: BatchNorm and dropout."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.data.augment import make_prepare
from zoo.tasks import classification
from zoo.training.mesh import batch_sharding, make_mesh, replicated
from zoo.training.state import create_state
from zoo.training.step import make_eval_step, make_train_step
from zoo.training.totals import Totals
from zoo.weights.preprocessing import Preprocessing


class TinyNet(nn.Module):
    """One convolution, BatchNorm, dropout, one dense layer."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (3, 3), name="conv")(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean(axis=(1, 2)))
        return nn.Dense(10, name="head")(x)


PREPARE = make_prepare(Preprocessing(8, (0.5,), (0.5,)).normalise, shift=2, flip=True)


def batches(splits, count, size=16, mask=None):
    images = np.stack([splits.train[i][0] for i in range(count * size)])
    for i in range(count):
        rows = slice(i * size, (i + 1) * size)
        yield {
            "image": images[rows],
            "label": splits.train.labels[rows].astype(np.int32),
            "mask": np.ones(size, np.float32) if mask is None else mask,
            "index": np.arange(size, dtype=np.int32),
            "epoch": np.full(size, i, np.int32),
        }


@functools.cache
def compiled(num_devices: int, ema_decay: float = 0.0, learning_rate: float = 0.1, **penalties):
    mesh = make_mesh(jax.devices()[:num_devices])
    everywhere, rows = replicated(mesh), batch_sharding(mesh)
    optimizer = optax.sgd(learning_rate, momentum=0.9)
    step = make_train_step(
        TinyNet(), optimizer, PREPARE, classification.metrics, ema_decay=ema_decay, **penalties
    )
    shardings = {"in_shardings": (everywhere, rows, everywhere), "out_shardings": everywhere}

    def init():
        key = jax.random.key(0)
        variables = TinyNet().init(key, jnp.zeros((1, 8, 8, 1)), train=False)
        return create_state(variables, optimizer, with_ema=ema_decay > 0)

    return jax.jit(init, out_shardings=everywhere), jax.jit(step, **shardings, donate_argnums=0)


def train(splits, num_devices=1, count=5, mask=None, **options):
    init, step = compiled(num_devices, **options)
    state, losses = init(), []
    for batch in batches(splits, count, mask=mask):
        state, metrics = step(state, batch, jax.random.key(7))
        total, number = metrics["loss"]
        losses.append(float(total / number))
    return jax.device_get(state), losses


@pytest.mark.parametrize("num_devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_any_number_of_devices_is_one_device(splits, num_devices):
    one, losses_of_one = train(splits)
    many, losses_of_many = train(splits, num_devices)
    np.testing.assert_allclose(losses_of_many, losses_of_one, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_same_seed_gives_the_same_bits(splits):
    one, losses = train(splits, 8)
    again, losses_again = train(splits, 8)
    assert losses == losses_again
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(again), strict=True):
        assert (a == b).all()


def test_statistics_move_in_training_and_only_there(splits):
    init, _ = compiled(1)
    before = jax.device_get(init())
    after, _ = train(splits)
    assert not np.allclose(before.batch_stats["bn"]["mean"], after.batch_stats["bn"]["mean"])
    eval_step = make_eval_step(TinyNet(), PREPARE, classification.metrics)
    batch = next(batches(splits, 1))
    first = eval_step(after.variables, batch)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, eval_step(after.variables, batch)))


def test_masked_rows_do_not_count_in_evaluation(splits):
    state, _ = train(splits)
    eval_step = make_eval_step(TinyNet(), PREPARE, classification.metrics)
    whole = next(batches(splits, 1, size=16))
    first_ten = {name: x[:10] for name, x in whole.items()}
    whole["mask"] = (np.arange(16) < 10).astype(np.float32)
    whole["image"][10:] = 77
    padded, plain = eval_step(state.variables, whole), eval_step(state.variables, first_ten)
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_loss_falls(splits):
    init, step = compiled(1)
    state, losses, batch = init(), [], next(batches(splits, 1))
    for _ in range(60):
        state, metrics = step(state, batch, jax.random.key(7))
        losses.append(float(metrics["loss"][0]) / 16)
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1


def test_averaged_weights_follow(splits):
    init, step = compiled(1, ema_decay=0.75)
    state = init()
    expected = jax.device_get(state.ema)
    for batch in batches(splits, 3):
        state, _ = step(state, batch, jax.random.key(7))
        now = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
        expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, expected, now)
    for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_gradient_is_that_of_the_mean_loss_of_what_is_not_masked(splits):
    mask = (np.arange(16) % 3 > 0).astype(np.float32)
    init, step = compiled(1, learning_rate=1.0)
    state = init()
    before = jax.device_get(state.params)
    batch = next(batches(splits, 1, mask=mask))

    def loss(params):
        augment_key, dropout_key = jax.random.split(jax.random.key(7))
        logits, _ = TinyNet().apply(
            {"params": params, "batch_stats": state.batch_stats},
            PREPARE(batch, augment_key),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(dropout_key, 0)},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return losses[mask > 0].mean()

    gradient = jax.grad(loss)(before)
    after, _ = step(state, batch, jax.random.key(7))
    expected = jax.tree.map(lambda p, g: p - g, before, gradient)
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_l1_and_l2_pull_kernels_and_nothing_else(splits):
    init, _ = compiled(1)
    before = jax.device_get(init().params)
    free, _ = train(splits, count=1)
    pulled, _ = train(splits, count=1, l1=0.01, l2=0.1)
    for module in before:
        for leaf, was in before[module].items():
            pull = -0.1 * (0.01 * np.sign(was) + 2 * 0.1 * was) if leaf == "kernel" else 0 * was
            change = pulled.params[module][leaf] - free.params[module][leaf]
            np.testing.assert_allclose(change, pull, atol=1e-6)


def test_totals_are_the_same_bits_after_an_interruption():
    rng = np.random.default_rng(0)
    values = [{"loss": (np.float32(v), np.float32(3))} for v in rng.normal(size=20)]
    straight, first = Totals(), Totals()
    for i, value in enumerate(values):
        straight.add(value)
        if i % 3 == 0:
            straight.sums()
        if i < 11:
            first.add(value)
    second = Totals(first.sums())
    for value in values[11:]:
        second.add(value)
    assert second.sums() == straight.sums()
    assert second.means()["loss"] == pytest.approx(
        float(np.mean([v["loss"][0] for v in values]) / 3)
    )
    straight.clear()
    assert straight.sums() == {}
