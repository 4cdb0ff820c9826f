"""What a model says is put into columns and words as its task has it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.analysis.answers import answers_of
from zoo.analysis.trained import Trained, open_trained
from zoo.errors import ConfigError
from zoo.tasks.make import make_task

LOGITS = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32) * 3


@pytest.fixture(scope="module")
def trained(workdir) -> Trained:
    return open_trained(str(workdir))


def with_task(trained: Trained, name: str, arguments: dict, names=None) -> Trained:
    names = names or trained.class_names
    return dataclasses.replace(trained, task=make_task(name, arguments), class_names=tuple(names))


def said(answers, logits) -> list[list]:
    arrays = [np.asarray(a) for a in answers.compute(jnp.asarray(logits))]
    return [answers.values(row) for row in zip(*arrays, strict=True)]


@pytest.mark.parametrize("top", [1, 3, 10, 99])
def test_the_most_probable_classes_are_numpys(trained, top):
    answers = answers_of(trained, top)
    p = np.exp(LOGITS.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    order = np.argsort(-p, axis=1, kind="stable")[:, :top]
    for row, values in enumerate(said(answers, LOGITS)):
        assert values[::2] == [f"digit{i}" for i in order[row]]
        np.testing.assert_allclose(values[1::2], p[row][order[row]], rtol=1e-5)
        assert len(values) == len(answers.columns) == 2 * min(top, 10)
    assert list(answers.columns)[:2] == ["class", "probability"]
    assert list(answers.columns)[2:4] == ["class_2", "probability_2"][: 2 * (top > 1)]


def test_of_equals_the_first_is_named(trained):
    (values,) = said(answers_of(trained, 3), np.zeros((1, 10)))
    assert values == ["digit0", 0.1, "digit1", 0.1, "digit2", 0.1]
    words = answers_of(trained, 3).words(values)
    assert words == "digit0 10.0 %, digit1 10.0 %, digit2 10.0 %"


def test_two_classes_are_told_by_the_threshold(trained):
    binary = with_task(trained, "binary", {"threshold": 0.8}, ["cat", "dog"])
    answers = answers_of(binary)
    logits = np.log(np.array([[0.9], [0.7], [0.1]]) / np.array([[0.1], [0.3], [0.9]]))
    found = said(answers, logits)
    assert [row[0] for row in found] == ["dog", "cat", "cat"]
    np.testing.assert_allclose([row[1] for row in found], [0.9, 0.3, 0.9], rtol=1e-5)
    assert list(answers.columns) == ["class", "probability"]


def test_of_several_labels_those_over_the_threshold(trained):
    labels = with_task(trained, "multilabel", {"threshold": 0.75}, ["a", "b", "c"])
    answers = answers_of(labels)
    logits = np.array([[0.0, 5.0, 2.0], [-1.0, -9.0, -2.0]])
    first, second = said(answers, logits)
    assert (first[0], second[0]) == ("b|c", "")
    np.testing.assert_allclose(first[1:], 1 / (1 + np.exp(-logits[0])), rtol=1e-5)
    assert list(answers.columns) == ["labels", "probability_a", "probability_b", "probability_c"]
    assert answers.words(first) == "b 99.3 %, c 88.1 %"
    assert answers.words(second) == "nothing (nearest: a 26.9 %)"


def test_numbers_are_in_their_units(trained):
    arguments = {"names": ("age", "error"), "mean": (40.0, 1.0), "std": (10.0, 2.0)}
    answers = answers_of(with_task(trained, "regression", arguments))
    assert list(answers.columns) == ["age", "error_predicted"]
    (values,) = said(answers, np.array([[0.5, -1.0]]))
    assert values == [45.0, -1.0]
    assert answers.words(values) == "age 45, error -1"


def test_class_names_that_are_no_text(trained):
    odd = with_task(trained, "classification", {}, ["caf\udce9", *map(str, range(9))])
    (values,) = said(answers_of(odd, 1), np.eye(10)[:1] * 9)
    assert values[0] == r"caf\xe9"


def test_no_classes_at_all_is_refused(trained):
    with pytest.raises(ConfigError, match="--top=0"):
        answers_of(trained, 0)
