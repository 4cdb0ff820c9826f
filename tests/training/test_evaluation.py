"""Exact evaluation: every example counts once, on any number of devices, for every task."""

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from tests.training.test_loop import log_of
from zoo.data.loader import Examples, eval_batches
from zoo.data.source import ArraySource, Splits
from zoo.models.linear import Linear
from zoo.tasks.make import make_task
from zoo.training.loop import fit
from zoo.training.mesh import batch_sharding, make_mesh
from zoo.training.step import make_eval_step
from zoo.training.totals import Totals
from zoo.weights.preprocessing import Preprocessing

PREPARED = Preprocessing(4, (0.5,), (0.25,), crop_fraction=1.0)
MODEL = Linear(num_classes=7)
TASK = make_task("classification", {})
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (1003, 4, 4), dtype=np.uint8)
LABELS = RNG.integers(0, 7, 1003)
VARIABLES = MODEL.init(jax.random.key(0), np.zeros((1, 4, 4, 1)), train=False)
LOGITS = np.asarray(
    MODEL.apply(VARIABLES, PREPARED.normalise(IMAGES[..., None]), train=False), np.float64
)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
EVAL_STEP = jax.jit(make_eval_step(MODEL, TASK, PREPARED.normalise))


@pytest.mark.parametrize("num_devices", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 1003])
def test_evaluation_is_exact(num_devices, count, devices):
    """N examples are counted as N, and the figures are scikit-learn's."""
    names = [str(i) for i in range(7)]
    source = ArraySource(IMAGES[:count], LABELS[:count], names)
    examples = Examples(source, PREPARED.pixels, (4, 4, 1))
    totals = Totals()
    for batch in eval_batches(examples, 24, batch_sharding(make_mesh(devices[:num_devices]))):
        totals.add(EVAL_STEP(VARIABLES, batch))
    sums = totals.sums()
    assert {float(n) for _, n in sums.values()} == {count}
    figures, labels = TASK.summary(sums), list(range(7))
    true, said = LABELS[:count], PROBABILITIES[:count]
    assert figures["top1"] == sk.accuracy_score(true, said.argmax(1))
    assert figures["top5"] == sk.top_k_accuracy_score(true, said, k=5, labels=labels)
    assert figures["loss"] == pytest.approx(sk.log_loss(true, said, labels=labels), rel=1e-6)


def sides(images: np.ndarray) -> np.ndarray:
    """Brightness of the left and of the right half, [N, 2], from 0 to 1."""
    return np.stack([images[..., :4].mean((1, 2)), images[..., 4:].mean((1, 2))], 1) / 255


def small_run(config, images, targets, names=None):
    config.model.name = "linear"
    config.data.image_size = 8
    config.batch_size = 16
    config.train_for = "60 steps"
    config.evaluate_every = "60 steps"
    config.log_every = "20 steps"
    config.optimizer.learning_rate = 0.05
    config.augment.images = ()
    parts = slice(0, 160), slice(160, 200), slice(200, 250)
    return Splits(*(ArraySource(images[p], targets[p], names) for p in parts))


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.round(data.images * (255 / 16)).astype(np.uint8)[:250], data.target[:250]


@pytest.mark.slow
def test_regression_on_two_targets(config, tmp_path):
    images, _ = digits()
    targets = 100 * sides(images)
    splits = small_run(config, images, targets, ["left", "right"])
    config.task.name = "regression"
    config.task.arguments = {
        "names": ("left", "right"),
        "mean": targets.mean(0).tolist(),
        "std": targets.std(0).tolist(),
        "kind": "huber",
    }
    results = fit(config, tmp_path, splits=splits)
    test = results["metrics"]["test"]
    assert test["r2"] > 0.7
    assert test["mae_left"] < 5
    assert results["best_metric"] == "val/loss"
    assert [line for line in log_of(tmp_path) if "val/rmse_right" in line]


@pytest.mark.slow
def test_several_labels_of_which_any_number_is_true_and_mixed_ones(config, tmp_path):
    images, labels = digits()
    targets = np.stack([labels % 2 == 0, labels > 4, labels == 0], 1).astype(np.float32)
    splits = small_run(config, images, targets, ["even", "large", "zero"])
    config.task.name = "multilabel"
    config.augment.mix = {"mixup_alpha": 0.1, "cutmix_alpha": 0.0}
    results = fit(config, tmp_path, splits=splits)
    assert results["metrics"]["test"]["f1"] > 0.7
    assert 0 < results["metrics"]["test"]["exact_match_interval"][0] < 1


@pytest.mark.slow
def test_yes_or_no(config, tmp_path):
    images, labels = digits()
    splits = small_run(config, images, (labels % 2).astype(int), ["even", "odd"])
    config.task.name = "binary"
    config.task.arguments = {"label_smoothing": 0.05}
    results = fit(config, tmp_path, splits=splits)
    assert results["metrics"]["test"]["accuracy"] > 0.75
    assert set(results["metrics"]["test"]) > {"precision", "recall", "f1", "accuracy_interval"}
