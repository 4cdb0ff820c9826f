"""The parts of an error are those of the textbook's examples."""

import numpy as np
import pytest

from zoo.analysis.diagnosis import Error, diagnose
from zoo.errors import ConfigError
from zoo.tasks.task import wilson_interval


def errors(count: int = 100_000, **values: float) -> dict[str, Error]:
    return {
        name.replace("_", "-"): Error(value, wilson_interval(value * count, count))
        for name, value in values.items()
    }


@pytest.mark.parametrize(
    ("human", "values", "largest"),
    [
        # Machine Learning Yearning, chapters 20 to 22, 28 and 41
        (0.0, {"train": 0.01, "validation": 0.11}, "variance"),
        (0.0, {"train": 0.15, "validation": 0.16}, "avoidable bias"),
        (0.14, {"train": 0.15, "validation": 0.30}, "variance"),
        (0.0, {"train": 0.01, "train_dev": 0.015, "validation": 0.10}, "data mismatch"),
        (0.0, {"train": 0.10, "train_dev": 0.11, "validation": 0.12}, "avoidable bias"),
        (
            0.04,
            {"train": 0.07, "validation": 0.08, "test": 0.2},
            "overfitting of the validation set",
        ),
    ],
)
def test_textbook(human, values, largest):
    found = diagnose(errors(**values), human)
    assert found.largest == largest
    last = list(values.values())[-1]
    assert sum(part.value for part in found.parts) == pytest.approx(last - human)
    for part in found.parts:
        assert part.interval[0] < part.value < part.interval[1]
        assert part.advice


def test_few_examples_show_nothing():
    few = diagnose(errors(40, train=0.05, validation=0.10)).parts[1]
    assert few.interval[0] < 0 < few.value
    many = diagnose(errors(40_000, train=0.05, validation=0.10)).parts[1]
    assert many.interval[0] > 0


def test_nothing_is_wrong():
    found = diagnose(errors(train=0.01, validation=0.009, test=0.008), human=0.02)
    assert found.largest is None


def test_the_interval_holds_the_difference():
    rng = np.random.default_rng(0)
    counts = rng.binomial((200, 300), (0.3, 0.2), size=(1000, 2))
    held = 0
    for first, second in counts:
        found = diagnose(
            {
                "train": Error(second / 300, wilson_interval(second, 300)),
                "test": Error(first / 200, wilson_interval(first, 200)),
            }
        ).parts[1]
        held += found.interval[0] <= 0.1 <= found.interval[1]
    assert 930 < held < 970


def test_what_is_refused():
    for wrong in ({}, {"validation": 0.1}, {"train": 0.1}, {"train": 0.1, "dev": 0.2}):
        with pytest.raises(ConfigError, match="give that of train"):
            diagnose(errors(**wrong))
    with pytest.raises(ConfigError, match="human error"):
        diagnose(errors(train=0.1, test=0.2), human=float("nan"))
