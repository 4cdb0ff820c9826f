"""The laws of every task: batches, masks, wrong targets, auxiliary heads."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks.data import NAMES, compiled, examples, figures, metrics_of, sums_of
from zoo.errors import ConfigError, DataError
from zoo.registry import find_model, list_models
from zoo.tasks.binary import Binary
from zoo.tasks.classification import Classification
from zoo.tasks.make import make_task
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.task import AUX_WEIGHTS, Best, add, mean_of, means, total_loss
from zoo.training.mesh import batch_sharding, make_mesh

TASKS = {
    "classification": Classification(),
    "soft": Classification(),
    "binary": Binary(),
    "multilabel": MultiLabel(),
    "regression": Regression(NAMES, mean=(40, 70), std=(20, 8)),
}
REAL = ("loss", "mae", "rmse", "r2")  # sums of these are rounded; all others are counts


def quickly(*kinds):
    """Returns all tasks, of which these are tried quickly: each compiles functions."""
    return [pytest.param(k, marks=[] if k in kinds else pytest.mark.slow) for k in TASKS]


@pytest.mark.parametrize("kind", quickly("classification", "multilabel"))
@pytest.mark.parametrize("sizes", [(8,), pytest.param((1, 9, 100), marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 1003])
def test_batches_of_any_size_give_the_same_figures(kind, count, sizes):
    logits, targets = examples(kind, count)
    whole = figures(TASKS[kind], logits, targets, 1003)
    for size in sizes:
        batched = figures(TASKS[kind], logits, targets, size)
        assert batched.keys() == whole.keys()
        for name, value in whole.items():
            if name.startswith(REAL):
                assert batched[name] == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True)
            else:
                assert batched[name] == value, name
    assert all(n == count for _, n in sums_of(TASKS[kind], logits, targets, 8).values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_eight_devices_are_one(kind, devices):
    logits, targets = examples(kind, 1003)
    rows = batch_sharding(make_mesh(devices))
    padded = [np.pad(x, [(0, 5), *[(0, 0)] * (x.ndim - 1)]) for x in (logits, targets)]
    mask = (np.arange(1008) < 1003).astype("f")
    sums = compiled(TASKS[kind], False)(*(jax.device_put(x, rows) for x in (*padded, mask)))
    assert len(sums["loss"][0].sharding.device_set) == 8
    many = TASKS[kind].summary(jax.device_get(sums))
    for name, value in figures(TASKS[kind], logits, targets, 1003).items():
        tolerance = {"rel": 1e-5} if name.startswith(REAL) else {"rel": 0, "abs": 0}
        assert many[name] == pytest.approx(value, **tolerance)


@pytest.mark.parametrize("kind", TASKS)
def test_what_a_masked_row_holds_changes_nothing_not_even_a_gradient(kind):
    task = TASKS[kind]
    logits, targets = examples(kind, 8)
    mask = np.array([1, 0, 1, 1, 0, 1, 1, 1], "f")
    gone = mask == 0

    @jax.jit
    @jax.value_and_grad
    def loss(logits, targets):
        return mean_of(task.loss(logits, targets, jnp.asarray(mask), train=True))

    expected = jax.device_get(loss(logits, targets))
    logits[gone], targets[gone] = np.nan, np.nan if targets.dtype.kind == "f" else -1
    got = jax.device_get(loss(logits, targets))
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    assert np.isfinite(got[1]).all() and (got[1][gone] == 0).all()
    assert (np.abs(got[1][~gone]).sum(1) > 0).all()


@pytest.mark.parametrize("kind", TASKS)
def test_nothing_counted_is_nan_and_trains_nothing(kind):
    logits, targets = examples(kind, 8)
    task = TASKS[kind]
    out = metrics_of(task, logits, targets, np.zeros(8))
    assert all(np.all(total == 0) and n == 0 for total, n in out.values())
    assert all(math.isnan(value) for value in task.summary(out).values())
    assert mean_of(out["loss"]) == 0


WRONG = {
    "classification": (7, -1),
    "binary": (2, -1),
    "multilabel": (2, -1),
    "soft": (1.5, -0.5),
    "regression": (np.nan, np.inf),
}


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k in WRONG for v in WRONG[k]])
def test_a_wrong_target_is_found_on_the_host_and_never_gives_a_finite_loss(kind, value):
    logits, targets = examples(kind, 8)
    task, outputs = TASKS[kind], logits.shape[1]
    task.check_targets(targets, outputs, "mine")
    wrong = targets.copy()
    wrong[(4, *[0] * (targets.ndim - 1))] = value
    with pytest.raises(DataError, match=r"mine: example 4 has .*\(1 such") as caught:
        task.check_targets(wrong, outputs, "mine")
    assert "\n" not in str(caught.value)
    assert not np.isfinite(metrics_of(task, logits, wrong)["loss"][0])


@pytest.mark.parametrize("kind", TASKS)
def test_shapes_that_do_not_go_together_are_named(kind):
    logits, targets = examples(kind, 6)
    task = TASKS[kind]
    bad = np.zeros((6, 3), targets.dtype)
    with pytest.raises(ConfigError, match=r"\[6, 3\]"):
        metrics_of(task, logits, bad)
    with pytest.raises(DataError, match=r"mine: targets .*\[6, 3\]"):
        task.check_targets(bad, logits.shape[1], "mine")


@pytest.mark.parametrize("kind", quickly("classification"))
def test_half_precision_is_counted_in_float32(kind):
    logits, targets = examples(kind, 8)
    half = logits.astype(jnp.bfloat16)
    exact = metrics_of(TASKS[kind], half.astype("f"), targets)
    got = metrics_of(TASKS[kind], half, targets)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, exact)
    assert all(total.dtype == np.float32 for total, _ in got.values())


@pytest.mark.parametrize("kind", TASKS)
def test_the_best_figure_is_one_of_the_summary_and_further_names_are_means(kind):
    task = TASKS[kind]
    sums = sums_of(task, *examples(kind, 9), 8)
    assert task.best.metric in task.summary(sums)
    assert task.summary({**sums, "grad_norm": (3.0, 2.0)})["grad_norm"] == 1.5
    assert hash(task) == hash(dataclasses.replace(task))


def test_best_never_prefers_nan():
    accuracy, loss = Best("top1", larger_is_better=True), Best("loss", larger_is_better=False)
    assert accuracy.improves(0.6, 0.5) and not loss.improves(0.6, 0.5)
    assert loss.improves(0.4, 0.5) and not accuracy.improves(0.4, 0.5)
    for best in (accuracy, loss):
        assert best.improves(0.5, None) and best.improves(0.5, math.nan)
        assert not best.improves(math.nan, None) and not best.improves(0.5, 0.5)


def test_adding_up_is_exact_where_float32_is_not():
    big, one = {"n": (np.float32(2**24), 1)}, {"n": (np.float32(1), 1), "m": (np.ones(2), 1)}
    total = add(big, one)
    assert total["n"] == (2**24 + 1, 2)
    assert (total["m"][0] == [1, 1]).all() and means({"n": total["n"]})["n"] == (2**24 + 1) / 2


@pytest.mark.parametrize("kind", quickly("classification"))
def test_auxiliary_heads_add_their_weighted_losses(kind):
    task = TASKS[kind]
    logits, targets = examples(kind, 8)
    mask = np.array([1, 1, 0, 1, 1, 1, 0, 1], "f")
    total_of = jax.jit(functools.partial(total_loss, task, aux_weight=0.3))
    heads = {"logits": logits, "aux_logits": (logits * 2, -logits)}
    # Without weights of classes, the task loses the same in training as in evaluation.
    one, two, three = (
        metrics_of(task, x, targets, mask)["loss"][0] for x in (logits, logits * 2, -logits)
    )
    total, count = total_of(heads, targets, mask)
    np.testing.assert_allclose(total, one + 0.3 * two + 0.3 * three, rtol=1e-6)
    assert count == 6
    alone, _ = total_of({"logits": logits}, targets, mask)
    np.testing.assert_allclose(alone, one, rtol=1e-6)


def test_every_model_with_auxiliary_heads_has_a_weight_for_them():
    have = {name for name in list_models() if hasattr(find_model(name).module, "aux_heads")}
    assert have == set(AUX_WEIGHTS)
    empty = jnp.asarray(0.0)
    with pytest.raises(ConfigError, match=r"aux_weight=-1: must be"):
        total_loss(Binary(), {}, empty, empty, aux_weight=-1)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("clasification", {}, "Did you mean 'classification'"),
        ("binary", {"treshold": 0.5}, "Did you mean 'threshold'"),
        ("binary", {"threshold": 1.0}, "between 0 and 1"),
        ("binary", {"positive_weight": 0.0}, "greater than 0"),
        ("multilabel", {"label_smoothing": 1.0}, "less than 1"),
        ("multilabel", {"positive_weights": [1, -1]}, "0 or more"),
        ("classification", {"class_weights": [0, 0]}, "not all 0"),
        ("regression", {"kind": "hubert"}, "Did you mean 'huber'"),
        ("regression", {"delta": 0.0}, "greater than 0"),
        ("regression", {"std": [1, 2]}, "1 targets"),
        ("regression", {"std": [0.0]}, "greater than 0"),
        ("regression", {"mean": [math.inf]}, "finite"),
        ("regression", {"names": ["age", "age"]}, "name of its own"),
    ],
)
def test_a_task_that_cannot_be_made_says_why(name, arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_task(name, arguments)
    assert "\n" not in str(caught.value)


def test_heads_have_the_size_of_the_task():
    assert make_task("classification", {}).outputs(10) == 10
    assert make_task("binary", {}).outputs(2) == 1
    assert make_task("multilabel", {"positive_weights": [1, 2]}).outputs(2) == 2
    assert make_task("regression", {"names": NAMES}).outputs(0) == 2
    for task, classes in (
        (Binary(), 3),
        (Classification(class_weights=(1, 2)), 3),
        (MultiLabel(positive_weights=(1, 2)), 3),
    ):
        with pytest.raises(ConfigError, match="the data have 3"):
            task.outputs(classes)
