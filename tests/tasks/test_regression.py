"""Errors, R^2 and Huber's loss against scikit-learn, optax and their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sk

from tests.tasks.data import NAMES, examples, figures
from zoo.tasks.regression import LOSSES, Regression

MEAN, STD = (40.0, 70.0), (20.0, 8.0)


@pytest.mark.parametrize("count", [2, 7, 1003])
def test_figures_are_those_of_scikit_learn(count):
    logits, targets = examples("regression", count)
    task = Regression(NAMES, mean=MEAN, std=STD)
    predictions = logits * np.array(STD) + MEAN
    expected = {
        "loss": np.mean(((predictions - targets) / STD) ** 2),
        "r2": sk.r2_score(targets, predictions),
    }
    for i, name in enumerate(NAMES):
        truth, said = targets[:, i], predictions[:, i]
        expected |= {
            f"mae_{name}": sk.mean_absolute_error(truth, said),
            f"rmse_{name}": sk.mean_squared_error(truth, said) ** 0.5,
            f"r2_{name}": sk.r2_score(truth, said),
        }
    assert figures(task, logits, targets) == pytest.approx(expected, rel=1e-5)
    said = task.activation(jnp.asarray(logits[:2]))
    np.testing.assert_allclose(said, predictions[:2], rtol=1e-5)


def test_one_target_needs_no_second_axis():
    logits, targets = examples("regression", 33)
    task = Regression(mean=MEAN[:1], std=STD[:1])
    flat, column = (figures(task, logits[:, :1], y) for y in (targets[:, 0], targets[:, :1]))
    assert flat == column
    predictions = logits[:, 0] * STD[0] + MEAN[0]
    assert flat["r2"] == pytest.approx(sk.r2_score(targets[:, 0], predictions), rel=1e-5)
    assert flat["rmse"] == pytest.approx(
        sk.root_mean_squared_error(targets[:, 0], predictions), rel=1e-5
    )


@pytest.mark.parametrize(
    "size", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 9, 1003))]
)
def test_sums_without_rounding_are_the_same_bits_in_any_batches(size):
    rng = np.random.default_rng(0)
    logits, targets = rng.integers(-16, 16, (2, 1003, 2)).astype("f") / 4
    task = Regression(NAMES)
    errors = logits.astype(float) - targets
    got = figures(task, logits, targets, size)
    assert got == {
        "loss": np.square(errors).mean(),
        "mae_age": np.abs(errors[:, 0]).mean(),
        "mae_weight": np.abs(errors[:, 1]).mean(),
        "rmse_age": np.square(errors[:, 0]).mean() ** 0.5,
        "rmse_weight": np.square(errors[:, 1]).mean() ** 0.5,
        **{name: got[name] for name in ("r2", "r2_age", "r2_weight")},
    }
    assert got["r2"] == pytest.approx(sk.r2_score(targets.astype(float), logits), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_and_gradients_are_those_of_optax(kind):
    rng = np.random.default_rng(0)
    logits, targets = (jnp.asarray(rng.normal(size=(40, 2)) * 3) for _ in range(2))
    task = Regression(NAMES, kind=kind, delta=1.5)
    formula = {
        "mse": lambda x: 2 * optax.l2_loss(x, targets),
        "mae": lambda x: jnp.abs(x - targets),
        "huber": lambda x: optax.huber_loss(x, targets, delta=1.5),
    }[kind]

    def ours(x):
        return task.loss(x, targets, jnp.ones(40), train=True)[0]

    def theirs(x):
        return formula(x).mean(1).sum()

    np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(theirs)(logits), rtol=1e-5)


# By hand: e^2 / 2 up to delta = 2, then 2 (|e| - 1).
def test_huber_by_hand_and_its_slope_ends_at_delta():
    task = Regression(kind="huber", delta=2.0)

    @jax.jit
    @jax.vmap
    @jax.value_and_grad
    def loss(error):
        return task.loss(error[None, None], jnp.ones(1), jnp.ones(1), train=True)[0]

    values, slopes = loss(1 + jnp.asarray([0, 1, -2, 3, -10], jnp.float32))
    assert values.tolist() == [0, 0.5, 2, 4, 18]
    assert slopes.tolist() == [0, 1, -2, 2, -2]


@pytest.mark.parametrize("kind", ["mse", "mae"])
def test_gradient_at_the_target_is_zero(kind):
    task = Regression(kind=kind)
    loss = jax.jit(jax.grad(lambda x, y: task.loss(x, y, y, train=True)[0]))
    assert (loss(np.ones((3, 1), "f"), np.ones(3, "f")) == 0).all()


def test_r2_far_from_zero_wants_the_mean():
    rng = np.random.default_rng(0)
    years = (2000 + rng.normal(size=512)).astype("f")
    logits = (years + rng.normal(size=512) / 3)[:, None]
    expected = sk.r2_score(years, logits)
    centred = Regression(mean=(2000.0,))
    near = figures(centred, (logits - 2000).astype("f"), years)
    assert near["r2"] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(figures(Regression(), logits.astype("f"), years)["r2"])


@pytest.mark.parametrize("targets", [[3.0], [3.0, 3.0, 3.0]])
def test_r2_of_what_does_not_vary_is_nan(targets):
    targets = np.asarray(targets, "f")
    got = figures(Regression(), np.zeros((len(targets), 1), "f"), targets)
    assert np.isnan(got["r2"]) and (got["mae"], got["rmse"], got["loss"]) == (3, 3, 9)
