"""The step's laws, on a net with everything that can break them: BatchNorm and dropout."""

import functools
import json

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.data.augment import make_augment
from zoo.layers import Classifier
from zoo.tasks.classification import Classification
from zoo.tasks.task import mixable
from zoo.training.averages import Averages
from zoo.training.groups import frozen_mask, frozen_statistics, parse_groups
from zoo.training.guard import guard
from zoo.training.mesh import batch_sharding, make_mesh, replicated
from zoo.training.optimizer import make_optimizer
from zoo.training.state import create_state, weight_sets
from zoo.training.step import (
    Frozen,
    Penalty,
    make_eval_step,
    make_statistics_step,
    make_train_step,
)
from zoo.training.totals import Totals
from zoo.weights.preprocessing import Preprocessing


class TinyNet(Classifier):
    """One convolution, BatchNorm, dropout, one dense layer, and an auxiliary one."""

    dropout_rate: float = 0.5

    @nn.compact
    def endpoints(self, images, *, train):
        x = nn.Conv(4, (3, 3), name="conv")(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))
        x = x.mean(axis=(1, 2))
        aux = nn.Dense(10, name="aux")(x)
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return {"logits": nn.Dense(10, name="head")(x), "aux_logits": (aux,)}


NET = TinyNet(num_classes=10)
NORMALISE = Preprocessing(8, (0.5,), (0.5,)).normalise
AUGMENT = make_augment([("random_padding_crop", {"padding": 2}), ("random_horizontal_flip", {})])
MIX = make_augment([], {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}, (8, 8, 1))
SWA = Averages(swa_start=2, swa_every=2)
GROUPS = parse_groups([("conv/.*|bn/.*", {"frozen": True}), (".*", {})])


def optimizer_of(learning_rate, groups=()):
    rules = [(group.pattern, {"frozen": group.frozen}) for group in groups]
    return make_optimizer(
        "momentum", optax.constant_schedule(learning_rate), arguments={}, groups=rules
    )


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
def compiled(
    num_devices: int = 1,
    *,
    net: TinyNet = NET,
    learning_rate: float = 0.1,
    groups: tuple = (),
    averages: Averages | None = None,
    augment=AUGMENT,
    **options,
):
    mesh = make_mesh(jax.devices()[:num_devices])
    everywhere, rows = replicated(mesh), batch_sharding(mesh)
    optimizer = optimizer_of(learning_rate, groups)

    def init():
        variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
        return create_state(
            variables,
            optimizer,
            with_ema=averages is not None and averages.ema_decay > 0,
            with_swa=averages is SWA,
        )

    frozen = Frozen()
    if groups:
        shapes = jax.eval_shape(init)
        frozen = Frozen(
            frozen_mask(shapes.params, groups),
            frozen_statistics(shapes.params, shapes.batch_stats, groups),
        )
    step = make_train_step(
        net,
        optimizer,
        Classification(),
        NORMALISE,
        augment,
        frozen=frozen,
        averages=averages,
        mixes=augment is MIX,
        **options,
    )
    shardings = {"in_shardings": (everywhere, rows, everywhere), "out_shardings": everywhere}
    step = jax.jit(guard(step), **shardings, donate_argnums=0)
    return jax.jit(init, out_shardings=everywhere), step


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
    init, _ = compiled()
    before = jax.device_get(init())
    after, _ = train(splits)
    assert not np.allclose(before.batch_stats["bn"]["mean"], after.batch_stats["bn"]["mean"])
    eval_step = make_eval_step(NET, Classification(), NORMALISE)
    batch = next(batches(splits, 1))
    first = eval_step(after.variables, batch)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, eval_step(after.variables, batch)))


def test_masked_rows_do_not_count_in_evaluation(splits):
    state, _ = train(splits)
    eval_step = make_eval_step(NET, Classification(), NORMALISE)
    whole = next(batches(splits, 1, size=16))
    first_ten = {name: x[:10] for name, x in whole.items()}
    whole["mask"] = (np.arange(16) < 10).astype(np.float32)
    whole["image"][10:] = 77
    padded, plain = eval_step(state.variables, whole), eval_step(state.variables, first_ten)
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_loss_falls(splits):
    init, step = compiled()
    state, losses, batch = init(), [], next(batches(splits, 1))
    for _ in range(60):
        state, metrics = step(state, batch, jax.random.key(7))
        losses.append(float(metrics["loss"][0]) / 16)
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1


@pytest.mark.slow
def test_averaged_weights_follow(splits):
    init, step = compiled(averages=Averages(ema_decay=0.75))
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
    init, step = compiled(learning_rate=1.0)
    state = init()
    before = jax.device_get(state.params)
    batch = next(batches(splits, 1, mask=mask))

    def loss(params):
        augment_key, dropout_key = jax.random.split(jax.random.key(7))
        images, _ = AUGMENT(batch, augment_key, None)
        logits, _ = NET.apply(
            {"params": params, "batch_stats": state.batch_stats},
            NORMALISE(images),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(dropout_key, 0)},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return losses[mask > 0].mean()

    gradient = jax.jit(jax.grad(loss))(before)
    after, _ = step(state, batch, jax.random.key(7))
    expected = jax.tree.map(lambda p, g: p - g, before, gradient)
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_l1_and_l2_pull_kernels_and_nothing_else(splits):
    init, _ = compiled()
    before = jax.device_get(init().params)
    free, _ = train(splits, count=1)
    pulled, _ = train(splits, count=1, penalty=Penalty(l1=0.01, l2=0.1))
    for module in before:
        for leaf, was in before[module].items():
            pull = -0.1 * (0.01 * np.sign(was) + 2 * 0.1 * was) if leaf == "kernel" else 0 * was
            change = pulled.params[module][leaf] - free.params[module][leaf]
            np.testing.assert_allclose(change, pull, atol=1e-6)


@pytest.mark.slow
def test_accumulation_is_the_large_batch_but_for_batch_norm(splits):
    net, mask = TinyNet(num_classes=10, dropout_rate=0.0), (np.arange(16) < 13).astype(np.float32)
    options = {"net": net, "groups": GROUPS, "mask": mask}  # statistics kept: no difference left
    whole, losses = train(splits, **options)
    parts, losses_of_parts = train(splits, parts=4, **options)
    np.testing.assert_allclose(losses_of_parts, losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_is_frozen_stays_with_its_statistics(splits):
    before = jax.device_get(compiled(groups=GROUPS)[0]())
    after, _ = train(splits, groups=GROUPS)
    for name in ("conv", "bn"):
        assert jax.tree.all(jax.tree.map(np.array_equal, before.params[name], after.params[name]))
    assert jax.tree.all(jax.tree.map(np.array_equal, before.batch_stats, after.batch_stats))
    assert not np.array_equal(before.params["head"]["kernel"], after.params["head"]["kernel"])


@pytest.mark.slow
def test_auxiliary_heads_train_by_their_weight(splits):
    init, _ = compiled()
    before = jax.device_get(init().params["aux"]["kernel"])
    changes = [
        train(splits, count=1, aux_weight=w)[0].params["aux"]["kernel"] - before
        for w in (0.0, 0.1, 0.4)
    ]
    assert not changes[0].any()
    assert changes[1].any()
    np.testing.assert_allclose(changes[2], 4 * changes[1], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_mixed_targets_are_what_the_loss_is_of(splits):
    init, step = compiled(augment=MIX, net=TinyNet(num_classes=10, dropout_rate=0.0))
    state, batch = init(), next(batches(splits, 1))
    images, targets = MIX(
        batch, jax.random.split(jax.random.key(7))[0], mixable(batch["label"], 10)
    )
    assert float(jnp.abs(targets.max(axis=1) - 1).max()) > 0.1
    logits, _ = NET.clone(dropout_rate=0.0).apply(
        state.variables, NORMALISE(images), train=True, mutable=["batch_stats"]
    )
    expected = float(optax.softmax_cross_entropy(logits, targets).mean())
    _, metrics = step(state, batch, jax.random.key(7))
    assert float(metrics["loss"][0] / metrics["loss"][1]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_mean_of_weights_is_of_those_that_are_due(splits):
    init, step = compiled(averages=SWA)
    state, kept = init(), []
    assert set(weight_sets(state)) == {""}
    for i, batch in enumerate(batches(splits, 7), 1):
        state, _ = step(state, batch, jax.random.key(7))
        if i in (2, 4, 6):
            kept.append(jax.device_get(state.variables))
    assert int(state.swa["count"]) == 3
    mean = jax.tree.map(lambda *xs: np.mean(xs, axis=0), *kept)
    for a, b in zip(
        jax.tree.leaves(weight_sets(state)["_swa"]), jax.tree.leaves(mean), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_statistics_of_a_batch_are_its_own(splits):
    state, batch = compiled()[0](), next(batches(splits, 1))
    step = make_statistics_step(NET, NORMALISE, AUGMENT)
    stats = step(state.variables, batch, jax.random.key(7))["bn"]
    images, _ = AUGMENT(batch, jax.random.split(jax.random.key(7))[0], None)
    x = nn.Conv(4, (3, 3)).apply({"params": state.params["conv"]}, NORMALISE(images))
    np.testing.assert_allclose(stats["mean"], x.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats["var"], x.var((0, 1, 2)), rtol=1e-4, atol=1e-6)


def test_a_batch_of_nan_pixels_is_skipped_and_leaves_no_trace(splits):
    init, step = compiled(averages=Averages(ema_decay=0.9), augment=make_augment())
    state, (first, second) = init(), batches(splits, 2)
    bad = {**first, "image": np.full(first["image"].shape, np.nan, np.float32)}
    before = jax.device_get(state)
    state, metrics = step(state, bad, jax.random.key(7))
    after = jax.device_get(state)
    assert [int(after.step), int(after.skips.consecutive), int(after.skips.total)] == [1, 1, 1]
    for name in ("params", "batch_stats", "opt_state", "ema"):
        same = jax.tree.map(np.array_equal, getattr(before, name), getattr(after, name))
        assert jax.tree.all(same), name
    assert [float(x) for x in metrics["loss"]] == [0, 0]
    state, _ = step(state, second, jax.random.key(7))
    assert [int(state.skips.consecutive), int(state.skips.total)] == [0, 1]


def test_totals_are_the_same_bits_after_an_interruption():
    rng = np.random.default_rng(0)
    values = [
        {"loss": (np.float32(v), np.float32(3)), "errors": (v * np.ones(2, np.float32), 3)}
        for v in rng.normal(size=20)
    ]
    straight, first = Totals(), Totals()
    for i, value in enumerate(values):
        straight.add(value)
        if i % 3 == 0:
            straight.sums()
        if i < 11:
            first.add(value)
    second = Totals(json.loads(json.dumps(first.record())))
    for value in values[11:]:
        second.add(value)
    assert second.record() == straight.record()
    means = Classification().summary({"loss": second.sums()["loss"]})
    assert means["loss"] == pytest.approx(float(np.mean([v["loss"][0] for v in values]) / 3))
    straight.clear()
    assert straight.record() == {}
