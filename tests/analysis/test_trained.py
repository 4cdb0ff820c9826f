"""A trained model is found wherever it is, and says the same as in training."""

import json
import shutil

import jax
import numpy as np
import pytest

import zoo
from zoo.analysis.opening import open_source
from zoo.analysis.predictions import Predictions, predict, probabilities
from zoo.analysis.running import endpoints_of, examples_of, gather, run_over
from zoo.analysis.trained import open_trained
from zoo.errors import ConfigError, DataError, WeightsError
from zoo.weights.preprocessing import Preprocessing


def predictions_of(source: str, **options) -> Predictions:
    trained = open_trained(source)
    data = open_source(trained)
    return predict(trained, data, {"name": "digits", "split": "test"}, **options)


def test_predictions_are_those_of_the_run(workdir, folders):
    found = predictions_of(str(workdir), batch_size=16)
    results = json.loads((workdir / "results.json").read_text())
    assert len(found.logits) == results["metrics"]["test"]["examples"] == 30
    right = np.mean(found.logits.argmax(1) == found.targets)
    assert right == pytest.approx(results["metrics"]["test"]["top1"])
    assert right > 0.5
    assert found.class_names == tuple(f"digit{i}" for i in range(10))
    for place, label in zip(found.places, found.targets, strict=True):
        assert str(folders / "test" / f"digit{label}") in place
    np.testing.assert_allclose(probabilities(found).sum(1), 1)


def test_a_checkpoint_is_as_good_as_weights(workdir):
    best = json.loads((workdir / "results.json").read_text())["best_step"]
    of_weights, of_checkpoint = predictions_of(str(workdir)), predictions_of(f"{workdir}@{best}")
    np.testing.assert_array_equal(of_weights.logits, of_checkpoint.logits)
    other = 20 if best == 40 else 40
    assert np.any(predictions_of(f"{workdir}@{other}").logits != of_weights.logits)


def test_the_size_of_batches_changes_nothing(workdir):
    small, large = (predictions_of(str(workdir), batch_size=n) for n in (8, 64))
    np.testing.assert_array_equal(small.indices, large.indices)
    np.testing.assert_allclose(small.logits, large.logits, atol=1e-4)


def test_predictions_survive_a_file(workdir, tmp_path):
    found = predictions_of(str(workdir))
    found.save(tmp_path / "predictions.npz")
    again = Predictions.load(tmp_path / "predictions.npz")
    np.testing.assert_array_equal(found.logits, again.logits)
    assert list(found.places) == again.places
    assert (found.task, found.data, found.model) == (again.task, again.data, again.model)
    (tmp_path / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="make it again"):
        Predictions.load(tmp_path / "predictions.npz")


def test_endpoints(workdir):
    trained = open_trained(str(workdir))
    examples = examples_of(trained, open_source(trained))
    rows = gather(run_over(trained, examples, endpoints_of(trained, "pre_logits", "logits")))
    assert rows.outputs["pre_logits"].shape[0] == 30
    with pytest.raises(ConfigError, match="pre_logits"):
        endpoints_of(trained, "stride64")


def test_two_classes_of_one_logit_keep_their_names(tmp_path):
    model = zoo.create_model("linear", num_classes=1)
    images = jax.numpy.zeros((1, 28, 28, 1))
    variables = model.init(jax.random.key(0), images, train=False)
    prepared = Preprocessing(28, (0.5,), (0.5,), class_names=("cat", "dog"))
    zoo.save_weights(tmp_path, model, variables, prepared)
    trained = open_trained(str(tmp_path))
    assert trained.class_names == ("cat", "dog")
    assert type(trained.task).__name__ == "Binary"


def test_what_is_wrong_is_said(workdir, folders, tmp_path):
    for source, error, words in (
        (str(tmp_path), ConfigError, "of which model"),
        ("nowhere", ConfigError, "give a workdir"),
        ("resnet99=x.safetensors", ConfigError, "resnet"),
        (f"{workdir}@7", ConfigError, r"steps \["),
    ):
        with pytest.raises(error, match=words):
            open_trained(source)
    trained = open_trained(str(workdir))
    with pytest.raises(ConfigError, match="not among the 10"):
        open_source(trained, "mock:3", "train")
    damaged = tmp_path / "run"
    shutil.copytree(workdir, damaged)
    step = max((damaged / "checkpoints").iterdir(), key=lambda p: p.name)
    for file in step.rglob("*"):
        if file.is_file() and "state" in str(file):
            file.write_bytes(b"")
    with pytest.raises(WeightsError, match="damaged"):
        open_trained(f"{damaged}@{step.name}")


def test_some_of_the_classes_in_another_order(workdir, folders, tmp_path):
    for name in ("digit7", "digit3"):
        shutil.copytree(folders / "test" / name, tmp_path / "test" / name)
        shutil.copytree(folders / "test" / name, tmp_path / "train" / name)
    source = open_source(open_trained(str(workdir)), f"folder:{tmp_path}", "test")
    assert {source[i][1] for i in range(len(source))} == {3, 7}
