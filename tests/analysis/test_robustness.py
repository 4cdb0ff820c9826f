"""Corrupted images are the same ones in any batch and order, and figures are those of each kind."""

import numpy as np
import pytest

from zoo.analysis.measuring import measure
from zoo.analysis.opening import open_source
from zoo.analysis.predictions import predict
from zoo.analysis.robustness import Corrupted, measure_corruptions, relative_error
from zoo.analysis.trained import open_trained
from zoo.data.source import ArraySource
from zoo.errors import ConfigError

NAMES, SEVERITIES = ("gaussian_noise", "contrast"), (1, 5)
KINDS = [(name, severity) for name in NAMES for severity in SEVERITIES]


def corrupted(workdir, kinds, seed: int = 0) -> Corrupted:
    trained = open_trained(str(workdir))
    return Corrupted(trained, open_source(trained), kinds, seed=seed)


def test_chance_depends_on_seed_image_and_kind_alone(workdir):
    all_kinds = corrupted(workdir, KINDS)
    backwards = corrupted(workdir, KINDS[::-1])
    other_seed = corrupted(workdir, KINDS, seed=1)
    for i in (29, 3):
        for v in range(4):
            image, target, there = all_kinds.read(4 * i + v)
            np.testing.assert_array_equal(image, backwards.read(4 * i + 3 - v)[0])
            assert there and target == all_kinds.read(4 * i)[1]
    noise = [all_kinds.read(4 * i)[0].astype(int) for i in (0, 1)]
    clean = [all_kinds._fitted(i)[0].astype(int) for i in (0, 1)]
    assert np.any(noise[0] - clean[0] != noise[1] - clean[1])
    assert np.any(noise[0] != other_seed.read(0)[0])


def test_figures_are_those_of_each_kind(workdir):
    trained = open_trained(str(workdir))
    source = open_source(trained)
    found = measure_corruptions(trained, source, names=NAMES, severities=SEVERITIES, batch_size=24)
    examples = corrupted(workdir, KINDS)
    for v, (name, severity) in enumerate(KINDS):
        rows = [examples.read(4 * i + v) for i in range(30)]
        images, labels = np.stack([row[0] for row in rows]), np.array([row[1] for row in rows])
        alone = ArraySource(images, labels, trained.class_names)
        expected = measure(predict(trained, alone, {"name": "x", "split": "x"}), number=2)
        figures = found["each"][name][str(severity)]
        top1 = expected["figures"]["top1"]
        assert figures["top1"] == pytest.approx(top1["value"])
        assert figures["top1_interval"] == pytest.approx(top1["interval"])
        assert figures["loss"] == pytest.approx(expected["figures"]["loss"]["value"], rel=1e-4)
    for name in NAMES:
        errors = [1 - found["each"][name][str(s)]["top1"] for s in SEVERITIES]
        assert found["errors"][name] == pytest.approx(np.mean(errors))
    assert found["mean_error"] == pytest.approx(np.mean(list(found["errors"].values())))
    assert found["errors"]["contrast"] > 0


def test_an_image_is_decoded_once(workdir):
    examples, times = corrupted(workdir, KINDS), []
    fit = examples._fit
    examples._fit = lambda image: times.append(1) or fit(image)
    for i in range(len(examples)):
        examples.read(i)
    assert len(times) == len(examples.source) == 30


def test_relative_error():
    assert relative_error({"a": 0.2, "b": 0.1}, {"a": 0.4, "b": 0.1}) == pytest.approx(0.75)
    assert np.isnan(relative_error({"a": 0.2}, {"a": 0.0}))


def test_what_is_refused(workdir):
    trained = open_trained(str(workdir))
    source = open_source(trained)
    for options, words in (
        ({"names": ("fogg",)}, "Did you mean 'fog'"),
        ({"severities": (0,)}, "severity 0"),
        ({"names": ()}, "at least one"),
    ):
        with pytest.raises(ConfigError, match=words):
            measure_corruptions(trained, source, **options)
