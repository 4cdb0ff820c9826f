"""Several answers on average are what their probabilities or logits are on average."""

import dataclasses

import numpy as np
import pytest

from tests.analysis.test_measuring import RNG, N, of_classes, of_labels, of_numbers, of_one_label
from zoo.analysis.averaging import average_logits
from zoo.analysis.ensembles import ensemble
from zoo.analysis.outcomes import outcomes_of
from zoo.analysis.predictions import Predictions
from zoo.errors import ConfigError
from zoo.tasks.make import make_task


def another(predictions: Predictions, **changes) -> Predictions:
    """Returns what another model says of the same examples."""
    logits = predictions.logits + RNG.normal(size=predictions.logits.shape).astype(np.float32)
    return dataclasses.replace(predictions, **{"logits": logits, "model": "b", **changes})


@pytest.mark.parametrize("make", [of_classes, of_one_label, of_labels])
def test_probabilities(make):
    members = [make()]
    members += [another(members[0]), another(members[0])]
    together = ensemble(members)
    expected = np.mean([outcomes_of(m).probabilities for m in members], axis=0)
    np.testing.assert_allclose(outcomes_of(together).probabilities, expected, rtol=1e-5)
    np.testing.assert_array_equal(together.targets, members[0].targets)
    assert together.model == "mean of probabilities of a model + b + b"
    together = ensemble(members, "logits")
    expected = np.mean([m.logits for m in members], axis=0)
    np.testing.assert_allclose(together.logits, expected, rtol=1e-5)


def test_one_model_alone_is_itself():
    for make in (of_classes, of_one_label, of_labels, of_numbers):
        found = make()
        task = make_task(found.task["name"], found.task["arguments"])
        averaged = average_logits(np.stack([found.logits, found.logits]), task)
        outcomes = dataclasses.replace(found, logits=averaged)
        np.testing.assert_allclose(
            outcomes_of(outcomes).probabilities, outcomes_of(found).probabilities, rtol=1e-6
        )


def test_sure_of_opposites():
    task = make_task("binary", {})
    averaged = average_logits(np.array([[[80.0]], [[-80.0]]]), task)
    np.testing.assert_allclose(averaged, [[0]], atol=1e-9)


def test_values_are_averaged_in_their_units():
    first = of_numbers()
    arguments = {**first.task["arguments"], "mean": (0.0, 2000.0), "std": (1.0, 20.0)}
    second = another(first, task={"name": "regression", "arguments": arguments})
    together = outcomes_of(ensemble([first, second])).said
    expected = (outcomes_of(first).said + outcomes_of(second).said) / 2
    np.testing.assert_allclose(together, expected, rtol=1e-5)


def test_what_does_not_go_together():
    first = of_classes()
    others = {
        "as in 'c0' and 'dog'": another(first, class_names=("dog", *first.class_names[1:])),
        "of the task": of_labels(),
        "different examples": another(first, indices=np.arange(N)[::-1]),
    }
    for words, other in others.items():
        with pytest.raises(ConfigError, match=words):
            ensemble([first, other])
    with pytest.raises(ConfigError, match="two models"):
        ensemble([first])
    with pytest.raises(ConfigError, match="probabilities or logits"):
        ensemble([first, first], "votes")
