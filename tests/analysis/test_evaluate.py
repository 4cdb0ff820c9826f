"""`python -m zoo evaluate`, from workdirs to files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.analysis.test_measuring import of_classes, of_labels, of_numbers, of_one_label
from zoo.__main__ import main
from zoo.analysis.evaluation import check_kind, evaluate, resolve, write
from zoo.analysis.evaluation_tables import print_evaluation
from zoo.analysis.measuring import measure
from zoo.analysis.predictions import Predictions, probabilities
from zoo.analysis.scaling import scale
from zoo.analysis.trained import open_trained
from zoo.data.source import ArraySource
from zoo.errors import ConfigError

FEW = "--resamples=20"


def test_a_workdir(workdir, tmp_path, capsys):
    splits = "--split=train,validation,test"
    options = ("--temperature-split=validation", "--human-error=0.01", f"--out={tmp_path}/out")
    assert main(["evaluate", str(workdir), splits, FEW, *options]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    found = {e["data"]["split"]: e for e in results["evaluations"]}
    assert {split: e["examples"] for split, e in found.items()} == {
        "train": 200,
        "validation": 50,
        "test": 30,
    }
    of_run = json.loads((workdir / "results.json").read_text())["metrics"]
    for split, name in (("val", "validation"), ("test", "test")):
        assert found[name]["figures"]["top1"]["value"] == pytest.approx(of_run[split]["top1"])
        assert found[name]["figures"]["top1"]["interval"] == pytest.approx(
            of_run[split]["top1_interval"]
        )
        assert found[name]["figures"]["loss"]["value"] == pytest.approx(
            of_run[split]["loss"], rel=1e-4
        )
    saved = Predictions.load(tmp_path / "out" / found["test"]["file"])
    right = np.mean(saved.logits.argmax(1) == saved.targets)
    assert right == pytest.approx(found["test"]["figures"]["top1"]["value"])
    assert "fitted on validation" in found["test"]["temperature"]["how"]
    assert "cross-validated" in found["validation"]["temperature"]["how"]
    (diagnosis,) = results["diagnoses"]
    assert [part["name"] for part in diagnosis["parts"]][:2] == ["avoidable bias", "variance"]
    error = 1 - found["test"]["figures"]["top1"]["value"]
    assert sum(part["value"] for part in diagnosis["parts"]) == pytest.approx(error - 0.01)
    assert results["environment"]["versions"]["jax"]
    for words in ("macro_f1", "digit3", "temperature", "avoidable bias"):
        assert words in printed


def test_two_models_and_both_together(workdir, tmp_path, capsys):
    models = (str(workdir), f"{workdir}@20")
    options = ("--compare", "--ensemble=probabilities", "--tta=flip", f"--out={tmp_path}")
    assert main(["evaluate", *models, FEW, *options]) == 0
    assert "McNemar" in capsys.readouterr().out
    results = json.loads((tmp_path / "evaluation.json").read_text())
    assert len(results["evaluations"]) == 3
    first, second, both = (Predictions.load(tmp_path / e["file"]) for e in results["evaluations"])
    right = [p.logits.argmax(1) == p.targets for p in (first, second)]
    (compared,) = results["comparisons"]
    assert compared["only_first"] == np.sum(right[0] & ~right[1])
    assert compared["only_second"] == np.sum(right[1] & ~right[0])
    accuracies = [e["figures"]["top1"]["value"] for e in results["evaluations"]]
    assert compared["difference"] == pytest.approx(accuracies[0] - accuracies[1])
    assert compared["differences"]["top1"]["value"] == pytest.approx(compared["difference"])
    assert len(compared["disagreements"]) == compared["only_first"] + compared["only_second"]
    mean = (probabilities(first) + probabilities(second)) / 2
    np.testing.assert_allclose(probabilities(both), mean, atol=1e-6)


def test_corruptions(workdir, capsys):
    options = (FEW, "--corruptions=contrast,fog", "--severities=1,5", "--batch-size=24")
    assert main(["evaluate", str(workdir), *options]) == 0
    assert "mean error" in capsys.readouterr().out
    (measured,) = json.loads((workdir / "evaluation" / "evaluation.json").read_text())[
        "corruptions"
    ]
    assert set(measured["each"]) == {"contrast", "fog"}
    assert measured["examples"] == 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--compare",), "give two"),
        (("--ensemble=votes",), "two models"),
        (("--tta=crop",), "flip, five-crops, ten-crops"),
        (("--batch-size=0",), "1 or more"),
        (("--human-error=2",), "0 to 1"),
        (("--human-error=0.1",), "--split=train"),
        (("--split=test,test",), "each name once"),
        (("--split=nowhere",), "nowhere"),
        (("--corruptions=fogg",), "Did you mean 'fog'"),
        (("--corruptions=fog", "--severities=1,x"), "some of 1 to 5"),
        (("--corruptions=fog", "--split=train,test"), "one split"),
        (("--corruptions=fog", "--tta=flip"), "leave out"),
        (("--data=folder:/nowhere",), "/nowhere"),
        (("--out=/dev/null/x",), "/dev/null is no folder"),
        (("--temperature-split=train,test",), "one split"),
    ],
)
def test_what_is_refused(workdir, capsys, options, words):
    assert main(["evaluate", str(workdir), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_role_that_the_run_did_not_have(workdir):
    trained = open_trained(str(workdir))
    config = {**trained.config, "data.test_split": "", "data.train_split": "train[:90%]"}
    trained = dataclasses.replace(trained, config=config)
    assert resolve(trained, None, None) == {"validation": "validation"}
    assert resolve(trained, None, ["train,dev=train[90%:]"]) == {
        "train": "train[:90%]",
        "dev": "train[90%:]",
    }
    assert resolve(trained, "folder:/other", ["train"]) == {"train": "train"}
    with pytest.raises(ConfigError, match="had no test split"):
        resolve(trained, None, ["test"])


@pytest.mark.parametrize("make", [of_classes, of_one_label, of_labels, of_numbers])
def test_every_task(make, tmp_path, capsys):
    first = make()
    split = {**first.data, "split": "train", "fingerprint": "y"}
    groups = [{"train": dataclasses.replace(first, data=split), "test": first}]
    groups.append({name: dataclasses.replace(p, model="b") for name, p in groups[0].items()})
    fitted = [g["train"] for g in groups] if make is not of_numbers else []
    results, files = evaluate(groups, fitted=fitted, compared=True, number=20)
    write(tmp_path, results, files)
    print_evaluation(results, Console(width=200, markup=False))
    assert "avoidable bias" in capsys.readouterr().out
    text = (tmp_path / "evaluation.json").read_text()
    assert "NaN" not in text
    for found in json.loads(text)["evaluations"]:
        again = Predictions.load(tmp_path / found["file"])
        assert measure(again, number=2)["figures"].keys() == found["figures"].keys()
    for compared in results["comparisons"]:
        assert {difference["value"] for difference in compared["differences"].values()} <= {0.0}
        assert compared.get("p_value", 1.0) == 1.0


def test_a_temperature_mends_what_is_too_sure():
    sure = of_classes()
    sure = dataclasses.replace(sure, logits=4 * sure.logits)
    other = dataclasses.replace(sure, data={**sure.data, "split": "x", "fingerprint": "y"})
    before = measure(sure, number=2)["figures"]
    for fitted in (sure, other):
        found = scale(sure, fitted, number=2)
        assert 2 < found["value"] < 8
        for name in ("loss", "ece", "brier"):
            assert found["figures"][name]["value"] < before[name]["value"]
    assert "fitted on x" in scale(sure, other, number=2)["how"]
    with pytest.raises(ConfigError, match="no probabilities"):
        scale(of_numbers(), of_numbers())


def test_what_cannot_be_written():
    with pytest.raises(ConfigError, match="cannot be written to"):
        write(Path("/dev/null/x"), {}, {})


def test_data_of_another_kind(workdir):
    trained = open_trained(str(workdir))
    numbers = ArraySource(np.zeros((4, 8, 8), np.uint8), np.zeros((4, 3)), ("a", "b", "c"))
    with pytest.raises(ConfigError, match="wants labels"):
        check_kind(trained, numbers, "boxes")
