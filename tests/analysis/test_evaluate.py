"""`python -m zoo evaluate`, from workdirs to files."""

import json

import numpy as np
import pytest

from zoo.__main__ import main
from zoo.analysis.predictions import Predictions


def test_a_workdir(workdir, tmp_path, capsys):
    splits = "--split=train,validation,test"
    options = ("--temperature-split=validation", "--human-error=0.01", f"--out={tmp_path}/out")
    assert main(["evaluate", str(workdir), splits, *options]) == 0
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
