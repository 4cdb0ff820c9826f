"""Optimisers, clipping, accumulation, averages and the guard, against loops in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parity import oracles
from zoo.errors import ConfigError
from zoo.training.accumulation import accumulate, split_batch
from zoo.training.averages import ema_decay_at, ema_update, swa_update
from zoo.training.guard import all_finite, guard
from zoo.training.optimizer import clipping, decay_mask, make_optimizer
from zoo.training.state import create_state

ONE = optax.constant_schedule(1.0)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def walk(optimizer, gradients, start):
    """Returns the weights after each update."""

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (params + updates, state), params + updates

    @jax.jit
    def steps(start, gradients):
        return jax.lax.scan(step, (start, optimizer.init(start)), gradients)[1]

    return np.asarray(steps(np.float32(start), np.float32(gradients)))


def rmsprop_of_tensorflow(gradients, start, rates, *, decay, momentum, epsilon):
    """Transcribes tf.train.RMSPropOptimizer's formula; its slots begin at 1 and 0."""
    weights, out = np.array(start, np.float64), []
    squares, moment = np.ones_like(weights), np.zeros_like(weights)
    for gradient, rate in zip(gradients, rates, strict=True):
        squares = decay * squares + (1 - decay) * gradient**2
        moment = momentum * moment + rate * gradient / np.sqrt(squares + epsilon)
        weights = weights - moment
        out.append(weights)
    return np.array(out)


def random_walk(steps=20):
    rng = np.random.default_rng(0)
    return rng.normal(size=(steps, 3, 4)) * 10.0 ** rng.uniform(-3, 1, (3, 4)), rng.normal(
        size=(3, 4)
    )


def test_rmsprop_tf_is_tensorflow_s_formula():
    gradients, start = random_walk()
    rates = 0.05 * 0.8 ** np.arange(20)  # falling: the rate is inside the momentum
    optimizer = make_optimizer("rmsprop_tf", lambda count: 0.05 * 0.8**count, arguments={})
    expected = rmsprop_of_tensorflow(gradients, start, rates, decay=0.9, momentum=0.9, epsilon=1e-3)
    np.testing.assert_allclose(walk(optimizer, gradients, start), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_rmsprop_tf_is_timm_s():
    oracles.import_torchvision()
    from timm.optim import RMSpropTF
    import torch

    gradients, start = random_walk()
    weights = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    theirs = RMSpropTF([weights], lr=0.02, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=0.01)
    ours = make_optimizer(
        "rmsprop_tf", optax.constant_schedule(0.02), arguments={}, weight_decay=0.01
    )
    for after, gradient in zip(walk(ours, gradients, start), gradients, strict=True):
        weights.grad = torch.tensor(gradient, dtype=torch.float32)
        theirs.step()
        np.testing.assert_allclose(after, weights.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("alias", "theirs"),
    [
        slow("momentum", optax.sgd(1.0, momentum=0.9)),
        ("nesterov", optax.sgd(1.0, momentum=0.9, nesterov=True)),
        slow("nadam", optax.nadam(1.0)),
        slow("nadamw", optax.nadamw(1.0, weight_decay=0.0)),
    ],
)
def test_aliases_are_what_people_mean(alias, theirs):
    gradients, start = random_walk(3)
    ours = make_optimizer(alias, ONE, arguments={})
    np.testing.assert_array_equal(walk(ours, gradients, start), walk(theirs, gradients, start))


def test_names_are_close_in_any_spelling():
    for name, meant in (("AdamW", "adamw"), ("RMSprop_TF", "rmsprop_tf"), ("Lamp", "lamb")):
        with pytest.raises(ConfigError, match=f"'{meant}'"):
            make_optimizer(name, ONE, arguments={})
    with pytest.raises(ConfigError, match="rmsprop_tf has no argument 'epsilon'"):
        make_optimizer("rmsprop_tf", ONE, arguments={"epsilon": 1})


PARAMS = {
    "stem": {"kernel": np.full((3, 3, 2, 4), 0.5, np.float32), "bias": np.ones(4, np.float32)},
    "head": {"kernel": np.full((4, 2), 0.25, np.float32), "bias": np.ones(2, np.float32)},
}
ZEROS = jax.tree.map(np.zeros_like, PARAMS)


def first_updates(optimizer, gradient):
    update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])
    return jax.device_get(update(gradient, PARAMS))


def test_decay_is_for_kernels_or_for_what_a_pattern_says():
    kernels = {"stem/kernel", "head/kernel"}
    cases = [("rmsprop_tf", None, kernels), ("adamw", "head/.*", {"head/"})]
    for name, pattern, decayed in cases:
        optimizer = make_optimizer(name, ONE, arguments={}, weight_decay=0.1, decay=pattern)
        for module, leaves in first_updates(optimizer, ZEROS).items():
            for leaf, update in leaves.items():
                decays = any(f"{module}/{leaf}".startswith(d) for d in decayed)
                assert bool((update < 0).all()) == decays, (name, module, leaf)
    optimizer = make_optimizer("sgd", ONE, arguments={}, weight_decay=0.1, decay="heat/.*")
    with pytest.raises(ConfigError, match="matches no parameter"):
        optimizer.init(PARAMS)
    with pytest.raises(ConfigError, match="no regular expression"):
        decay_mask("(")


def test_lars_scales_kernels_alone():
    optimizer = make_optimizer("lars", ONE, arguments={"momentum": 0.0}, weight_decay=0.1)
    gradient = jax.tree.map(np.ones_like, PARAMS)
    updates = first_updates(optimizer, gradient)
    assert updates["head"]["bias"].tolist() == [-1, -1]
    w, g = np.full((4, 2), 0.25), np.ones((4, 2)) + 0.1 * 0.25
    expected = -0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
    np.testing.assert_allclose(updates["head"]["kernel"], expected, rtol=1e-5)


def test_clipping_by_value_and_by_the_weights():
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda p: np.float32(rng.normal(size=p.shape)), PARAMS)

    def clipped(**options):
        return first_updates(optax.chain(*clipping(**options)), gradient)

    for got, given in zip(
        jax.tree.leaves(clipped(value=0.3)), jax.tree.leaves(gradient), strict=True
    ):
        np.testing.assert_allclose(got, np.clip(given, -0.3, 0.3), rtol=1e-6)
    adaptive = clipped(adaptive=0.1)
    for leaf in ("kernel", "bias"):
        np.testing.assert_array_equal(adaptive["head"][leaf], gradient["head"][leaf])
    w, g = PARAMS["stem"]["kernel"], gradient["stem"]["kernel"]
    for unit in range(4):  # each output of the convolution
        most = 0.1 * max(np.linalg.norm(w[..., unit]), 1e-3)
        size = np.linalg.norm(g[..., unit])
        assert size > most
        np.testing.assert_allclose(
            adaptive["stem"]["kernel"][..., unit], g[..., unit] * most / size, rtol=1e-5
        )
    norm = np.sqrt(sum((u**2).sum() for u in jax.tree.leaves(clipped(value=5.0, norm=0.5))))
    assert norm == pytest.approx(0.5, rel=1e-5)
    with pytest.raises(ConfigError, match="norm=-1"):
        clipping(norm=-1)


# -- accumulation -----------------------------------------------------------------------------


@functools.cache
def problem(norm=False):
    """Returns a batch, weights, averages, and a loss that uses and moves these if `norm`."""
    rng = np.random.default_rng(3)
    batch = {
        "image": rng.normal(size=(12, 5)).astype(np.float32),
        "label": rng.integers(0, 3, 12),
        # Of the three parts (every third row), one has no row that counts and one has one.
        "mask": np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0], np.float32),
    }
    shapes = {"hidden": (5, 8), "head": (8, 3)}
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}

    def loss_sum(params, batch_stats, part, index):
        x = part["image"] @ params["hidden"]
        if norm:
            mean = x.mean(axis=0)
            x, batch_stats = x - mean, {"mean": 0.5 * batch_stats["mean"] + 0.5 * mean}
        logits = jnp.tanh(x) @ params["head"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, part["label"])
        total, count = jnp.sum(part["mask"] * losses), jnp.sum(part["mask"])
        metrics = {"loss": (total, count), "number": (index * 1.0, jnp.ones(()))}
        return total, (count, batch_stats, metrics)

    return batch, params, {"mean": np.zeros(8, np.float32)}, loss_sum


def test_accumulated_is_the_large_batch_whatever_the_mask():
    batch, params, stats, loss_sum = problem()

    def mean_loss(params):
        total, (count, *_) = loss_sum(params, stats, batch, 0)
        return total / count

    loss, expected = jax.jit(jax.value_and_grad(mean_loss))(params)
    gradient, _, metrics = jax.jit(accumulate(loss_sum, 3))(params, stats, batch)
    for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert float(metrics["loss"][0] / metrics["loss"][1]) == pytest.approx(float(loss), abs=1e-6)
    assert [float(v) for v in metrics["number"]] == [3, 3]  # 0 + 1 + 2, in three parts


@pytest.mark.slow
def test_a_mean_of_means_is_another_gradient():
    batch, params, stats, loss_sum = problem()
    exact, *_ = accumulate(loss_sum, 3)(params, stats, batch)
    optimizer = optax.MultiSteps(optax.sgd(1.0), 3)
    state = optimizer.init(params)

    def mean_loss(params, part):
        return loss_sum(params, stats, part, 0)[0] / jnp.maximum(part["mask"].sum(), 1)

    for i in range(3):
        part = jax.tree.map(lambda x, i=i: x[i::3], batch)
        updates, state = optimizer.update(jax.grad(mean_loss)(params, part), state, params)
    worst = jax.tree.map(lambda u, g: float(abs(u + g).max()), updates, exact)
    assert max(jax.tree.leaves(worst)) > 1e-2


def test_batch_norm_sees_the_parts_one_after_the_other():
    batch, params, stats, loss_sum = problem(norm=True)
    _, after, _ = jax.jit(accumulate(loss_sum, 3))(params, stats, batch)
    expected = 0.0
    for i in range(3):
        expected = 0.5 * expected + 0.5 * (batch["image"][i::3] @ params["hidden"]).mean(axis=0)
    np.testing.assert_allclose(after["mean"], expected, rtol=1e-5, atol=1e-6)


def test_a_batch_is_split_within_each_device():
    parts = split_batch({"index": np.arange(8)}, 2)["index"]
    assert parts.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    with pytest.raises(ConfigError, match="12 examples; 4 parts can"):
        split_batch(np.zeros(12), 5)


# -- averages ---------------------------------------------------------------------------------


def tree_at(step):
    return {
        "params": {"w": jnp.asarray([step, -step], jnp.float32)},
        "batch_stats": {"mean": jnp.asarray(step**2, jnp.float32)},
        "count": jnp.asarray(step),
    }


def test_averages_of_ten_trees():
    average, swa, expected = tree_at(0), tree_at(0), 0.0
    for step in range(10):
        average = ema_update(average, tree_at(step), step, decay=0.6, warmup=True)
        kept = min(0.6, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * step**2
        assert float(ema_decay_at(step, 0.6)) == pytest.approx(kept)
        swa = swa_update(swa, tree_at(step), step)
    assert float(average["batch_stats"]["mean"]) == pytest.approx(expected, rel=1e-5)
    assert swa["params"]["w"].tolist() == pytest.approx([4.5, -4.5])
    assert float(swa["batch_stats"]["mean"]) == pytest.approx(28.5)
    assert int(swa["count"]) == 9
    plain = ema_update(tree_at(1), tree_at(3), 0, decay=0.75)["params"]
    theirs = optax.incremental_update(tree_at(3)["params"], tree_at(1)["params"], 1 - 0.75)
    assert plain["w"].tolist() == theirs["w"].tolist()


@pytest.mark.slow
def test_averages_are_torch_s():
    import torch
    from torch.optim import swa_utils

    rng = np.random.default_rng(0)
    module = torch.nn.BatchNorm1d(4)
    makers = {
        "swa": lambda old, new, n: swa_update(old, new, n),
        "ema": lambda old, new, n: ema_update(old, new, n, decay=0.9),
    }
    ema_of = swa_utils.get_ema_multi_avg_fn(0.9)
    for name, make in makers.items():
        theirs = swa_utils.AveragedModel(
            module, multi_avg_fn=ema_of if name == "ema" else None, use_buffers=True
        )
        ours = None
        for count in range(6):
            for tensor in (module.weight.data, module.running_mean):
                tensor.copy_(torch.from_numpy(rng.normal(size=4)))
            theirs.update_parameters(module)
            now = [jnp.asarray(t.numpy().copy()) for t in (module.weight.data, module.running_mean)]
            ours = now if ours is None else make(ours, now, count)
        inner = theirs.module
        for got, want in zip(ours, (inner.weight.data, inner.running_mean), strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)


# -- the guard --------------------------------------------------------------------------------


def test_a_step_that_is_not_finite_leaves_no_trace():
    optimizer = make_optimizer("adam", optax.constant_schedule(0.1), arguments={})
    params = {"w": np.ones(3, np.float32)}
    state = create_state({"params": params, "batch_stats": {"mean": jnp.zeros(())}}, optimizer)

    def step(state, bad):
        gradient = {"w": bad["gradient"] * state.params["w"]}
        updates, opt_state = optimizer.update(gradient, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        new = dataclasses.replace(
            state,
            step=state.step + 1,
            params={"w": params["w"] + bad["update"]},
            batch_stats={"mean": state.batch_stats["mean"] + bad["statistic"]},
            opt_state=opt_state,
        )
        metrics = {
            "loss": (bad["loss"], jnp.full((), 16.0)),
            "grad_norm": (optax.tree.norm(gradient), jnp.ones(())),
        }
        return new, metrics

    good = {"loss": 1.0, "gradient": 1.0, "update": 0.0, "statistic": 1.0}
    guarded = jax.jit(guard(step))
    state, metrics = guarded(state, good)
    assert [int(state.skips.consecutive), int(state.skips.total)] == [0, 0]
    assert [float(m) for m in metrics["loss"]] == [1, 16]
    plain, _ = guarded(state, good)

    for i, (key, value) in enumerate(
        [("loss", np.nan), ("gradient", np.inf), ("update", -np.inf), ("statistic", np.nan)]
    ):
        after, metrics = guarded(state, good | {key: value})
        assert int(after.step) == int(state.step) + 1
        undone = dataclasses.replace(after, step=state.step, skips=state.skips)
        same = jax.tree.map(np.array_equal, undone, state)
        assert all(jax.tree.leaves(same)), key
        assert [float(m) for m in metrics["loss"]] == [0, 0]
        assert [float(m) for m in metrics["skipped"]] == [1, 1]
        assert [int(after.skips.consecutive), int(after.skips.total)] == [i + 1, i + 1]
        state = after

    state, metrics = guarded(state, good)
    skips = state.skips
    assert [int(skips.consecutive), int(skips.longest), int(skips.total)] == [0, 4, 4]
    assert float(metrics["skipped"][0]) == 0
    np.testing.assert_allclose(state.params["w"], plain.params["w"], rtol=1e-6)


def test_finite_trees():
    assert all_finite({})
    assert all_finite({"n": jnp.arange(3), "x": jnp.ones(2)})
    assert not all_finite({"x": jnp.ones(2), "y": jnp.array([1, jnp.inf])})
