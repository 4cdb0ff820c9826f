"""What is measured of predictions is what scikit-learn and the trainer's metrics say of them."""

import functools

import jax
import numpy as np
import pytest
from sklearn import metrics

from zoo.analysis.figures import log_softmax, sigmoid
from zoo.analysis.measuring import measure
from zoo.analysis.predictions import Predictions
from zoo.errors import DataError
from zoo.tasks.make import make_task

RNG = np.random.default_rng(0)
N = 150


def record(task: str, logits: np.ndarray, targets: np.ndarray, **arguments) -> Predictions:
    names = arguments.get("names") or tuple(f"c{i}" for i in range(max(logits.shape[1], 2)))
    return Predictions(
        logits.astype(np.float32),
        targets,
        np.arange(len(logits)),
        [f"image {i}" for i in range(len(logits))],
        names,
        {"name": task, "arguments": arguments},
        "a model",
        {"name": "data", "split": "test", "fingerprint": "x"},
    )


def of_classes(classes: int = 7) -> Predictions:
    labels = RNG.integers(classes - 1, size=N)
    logits = RNG.normal(size=(N, classes))
    logits[np.arange(N), labels] += 1.5
    return record("classification", logits, labels)


def of_one_label() -> Predictions:
    labels = RNG.integers(2, size=N)
    return record("binary", RNG.normal(labels[:, None] - 0.3, size=(N, 1)), labels, threshold=0.4)


def of_labels() -> Predictions:
    labels = np.float32(RNG.random((N, 4)) < [0.1, 0.3, 0.5, 0.9])
    return record("multilabel", RNG.normal(2 * labels - 1), labels)


def of_numbers() -> Predictions:
    z = RNG.normal(size=(N, 2))
    scale = {"names": ("width", "year"), "mean": (3.0, 1990.0), "std": (2.0, 10.0)}
    targets = np.float32((z + RNG.normal(size=(N, 2)) / 3) * scale["std"] + scale["mean"])
    return record("regression", z, targets, **scale)


EVERY = [of_classes, of_one_label, of_labels, of_numbers]


@pytest.mark.parametrize("make", EVERY)
def test_as_in_training(make):
    """The trainer sums batches in float32 on the device; the same figures must come out."""
    predictions = make()
    task = make_task(predictions.task["name"], predictions.task["arguments"])
    of_batch = jax.jit(functools.partial(task.metrics, train=False))
    sums = of_batch(predictions.logits, predictions.targets, np.ones(N))
    expected = task.summary({n: (np.asarray(s), np.asarray(c)) for n, (s, c) in sums.items()})
    found = measure(predictions, number=50)["figures"]
    assert set(expected) <= set(found)
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("make", EVERY)
def test_every_interval_holds_its_figure(make):
    for name, figure in measure(make(), number=200)["figures"].items():
        if figure["interval"] is not None:
            low, high = figure["interval"]
            assert low <= figure["value"] <= high, name
            assert low < high, name
        else:
            assert name in ("adaptive_ece", "classwise_ece")


def test_classes_are_those_of_scikit_learn():
    predictions = of_classes()
    truth, said = predictions.targets, predictions.logits.argmax(1)
    p = np.exp(log_softmax(predictions.logits))
    found = measure(predictions, number=2)
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    for name, expected in {
        "balanced_accuracy": metrics.recall_score(truth, said, average="macro", labels=range(6)),
        "kappa": metrics.cohen_kappa_score(truth, said),
        "macro_f1": metrics.f1_score(truth, said, average="macro"),
        "weighted_f1": metrics.f1_score(truth, said, average="weighted"),
        "macro_precision": metrics.precision_score(truth, said, average="macro"),
        "top5": metrics.top_k_accuracy_score(truth, p, k=5, labels=range(7)),
        "loss": metrics.log_loss(truth, p, labels=range(7)),
        "roc_auc": np.mean([metrics.roc_auc_score(truth == k, p[:, k]) for k in range(6)]),
    }.items():
        assert figures[name] == pytest.approx(expected), name
    np.testing.assert_array_equal(
        found["confusion"], metrics.confusion_matrix(truth, said, labels=range(7))
    )
    for k, row in enumerate(found["classes"]):
        assert row["examples"] == (truth == k).sum() and row["said"] == (said == k).sum()
    worst = found["confused"][0]
    i, j = (int(worst[key][1:]) for key in ("true", "said"))
    wrong = np.array(found["confusion"]) * (1 - np.eye(7))
    assert worst["count"] == wrong[i, j] == wrong.max()
    assert found["classes"][6]["examples"] == 0 and np.isnan(found["classes"][6]["roc_auc"])


def test_one_label():
    predictions = of_one_label()
    truth, p = predictions.targets, sigmoid(predictions.logits)[:, 0]
    said = p > 0.4
    found = measure(predictions, number=2)
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    for name, expected in {
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, said),
        "precision": metrics.precision_score(truth, said),
        "specificity": metrics.recall_score(truth, said, pos_label=0),
        "roc_auc": metrics.roc_auc_score(truth, p),
        "average_precision": metrics.average_precision_score(truth, p),
        "brier": metrics.brier_score_loss(truth, p),
        "loss": metrics.log_loss(truth, p),
    }.items():
        assert figures[name] == pytest.approx(expected), name
    np.testing.assert_array_equal(found["confusion"], metrics.confusion_matrix(truth, said))
    assert [row["name"] for row in found["classes"]] == ["c0", "c1"]


def test_labels():
    predictions = of_labels()
    truth, p = predictions.targets, sigmoid(predictions.logits)
    found = measure(predictions, number=2)
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    for name, expected in {
        "exact_match": metrics.accuracy_score(truth, p > 0.5),
        "label_accuracy": 1 - metrics.hamming_loss(truth, p > 0.5),
        "weighted_recall": metrics.recall_score(truth, p > 0.5, average="weighted"),
        "roc_auc": metrics.roc_auc_score(truth, p),
        "average_precision": metrics.average_precision_score(truth, p),
    }.items():
        assert figures[name] == pytest.approx(expected), name
    assert sum(found["calibration"]["counts"]) == 4 * N
    assert "confusion" not in found


def test_soft_targets_count_by_their_largest():
    hard = of_classes()
    soft = 0.7 * (hard.targets[:, None] == np.arange(7)) + 0.3 / 7
    both = [
        measure(record("classification", hard.logits, t), number=2) for t in (hard.targets, soft)
    ]
    assert both[0]["confusion"] == both[1]["confusion"]
    assert both[0]["figures"]["loss"]["value"] < both[1]["figures"]["loss"]["value"]


def test_the_same_seed_gives_the_same_intervals():
    predictions = of_classes()
    first, again, other = (measure(predictions, seed=s, number=30) for s in (0, 0, 1))
    assert first["figures"] == again["figures"] != other["figures"]


def test_what_cannot_be_measured():
    predictions = of_classes()
    predictions.logits[3, 2] = np.nan
    with pytest.raises(DataError, match="image 3; its weights are damaged"):
        measure(predictions)
    with pytest.raises(DataError, match="label 9, allowed are 0 to 6"):
        measure(record("classification", of_classes().logits, np.full(N, 9)))
