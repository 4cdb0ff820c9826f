"""Features are the model's endpoints, whichever way they are read, and whole on disk."""

import csv
import dataclasses
import json
import shutil

import jax
import numpy as np
from PIL import Image
import pytest

import zoo
from zoo.__main__ import main
from zoo.analysis import arrays
from zoo.analysis.feature_files import load_features, write_features
from zoo.analysis.features import extract
from zoo.analysis.opening import open_data, open_source
from zoo.analysis.trained import open_trained
from zoo.data.source import ArraySource
from zoo.errors import ConfigError, DataError
from zoo.weights.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def trained(workdir):
    return open_trained(str(workdir))


@pytest.fixture(scope="module")
def found(trained):
    """Features of the test split and its targets."""
    return extract(trained, open_source(trained), batch_size=16)


def test_they_are_the_endpoints_of_the_model(trained, found):
    features, targets = found
    source = open_source(trained)
    for i in (0, 29):
        image, label = source[i]
        x = trained.preprocessing(image)[None]
        endpoints = trained.model.apply(trained.variables, x, train=False, method="endpoints")
        np.testing.assert_allclose(features[i], endpoints["pre_logits"][0], atol=1e-5)
        assert targets[i] == label
    assert features.dtype == np.float32
    assert len(features) == 30


def test_the_files_hold_the_same(workdir, found, tmp_path, capsys):
    folder = tmp_path / "features"
    arguments = [str(workdir), f"--out={folder}", "--endpoint=pre_logits,logits"]
    assert main(["features", *arguments, "--batch-size=8"]) == 0
    assert "30 examples" in capsys.readouterr().out
    features, targets = load_features(folder, "pre_logits")
    assert isinstance(features, np.memmap)
    np.testing.assert_allclose(features, found[0], atol=1e-5)
    np.testing.assert_array_equal(targets, found[1])
    assert load_features(folder, "logits")[0].shape == (30, 10)
    with (folder / "index.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == list(range(30))
    for line, target in zip(lines, targets, strict=True):
        assert (line["label"], line["class"]) == (str(target), f"digit{target}")
        assert f"/digit{target}/" in line["place"]
    about = json.loads((folder / "features.json").read_text())
    assert about["data"]["split"] == "test"
    assert about["preprocessing"]["image_size"] == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features"]
    assert main(["features", *arguments]) == 2  # the folder is there already
    assert "exists already" in capsys.readouterr().err


def test_images_without_labels(workdir, folders, found, tmp_path, capsys):
    one = sorted((folders / "test").rglob("*.png"))[0]
    (tmp_path / "b.png").write_bytes(b"no image")
    command = ["features", str(workdir), f"--out={tmp_path / 'out'}", "--images", str(tmp_path)]
    assert main([*command, "--max-bad=1"]) == 2
    assert "no image could be read" in capsys.readouterr().err
    shutil.copy(one, tmp_path / "a\udce9.png")  # a name that is no UTF-8
    assert main(command) == 2
    assert "b.png: cannot be decoded" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--max-bad=1", "--dtype=float16"]) == 0
    assert "1 left out" in capsys.readouterr().out
    features, targets = load_features(tmp_path / "out")
    assert targets is None
    assert features.dtype == np.float16
    source = open_data(open_trained(str(workdir)))
    row = next(i for i in range(30) if source.describe(i) == str(one))
    np.testing.assert_allclose(features[0], found[0][row], rtol=1e-2, atol=1e-2)
    assert (tmp_path / "out/index.csv").read_text().splitlines() == [
        "row,example,place",
        rf"0,0,{tmp_path}/a\xe9.png",
    ]


def test_classes_need_not_be_those_of_the_model(trained, tmp_path):
    for split in ("train", "test"):
        for name, level in (("dark", 20), ("light", 200)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.full((8, 8), level, np.uint8)).save(folder / "x.png")
    with pytest.raises(ConfigError, match="is not among"):
        open_source(trained, f"folder:{tmp_path}")
    source = open_data(trained, f"folder:{tmp_path}")
    features, targets = extract(trained, source)
    assert sorted(targets.tolist()) == [0, 1]
    assert np.any(features[0] != features[1])


def test_numbers_to_predict_are_in_the_index(trained, tmp_path):
    images = np.zeros((3, 8, 8, 1), np.uint8)
    numbers = np.array([[1.5, 2], [3, 4], [5, 6]])
    source = ArraySource(images, numbers, ("age", "weight"))
    write_features(tmp_path / "out", trained, source, {"name": "x", "split": ""})
    np.testing.assert_array_equal(load_features(tmp_path / "out")[1], numbers)
    lines = (tmp_path / "out/index.csv").read_text().splitlines()
    assert lines[:2] == ["row,example,place,age,weight", "0,0,array example 0,1.5,2.0"]


def test_large_arrays_are_several_files(tmp_path):
    whole = np.random.default_rng(0).normal(size=(25, 3, 2)).astype(np.float16)
    writer = arrays.ArrayWriter(tmp_path / "x", (3, 2), "float16", 10 * 12)
    for low, high in ((0, 1), (1, 1), (1, 14), (14, 25)):
        writer.append(whole[low:high])
    names = writer.close()
    assert names == [f"x-0000{i}-of-00003.npy" for i in range(3)]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    np.testing.assert_array_equal(arrays.open_arrays([tmp_path / n for n in names]), whole)
    empty = arrays.ArrayWriter(tmp_path / "y", (3,), "float32", 1)
    assert arrays.open_arrays([tmp_path / n for n in empty.close()]).shape == (0, 3)


def test_maps_can_be_pooled(tmp_path):
    model = zoo.create_model("lenet5", num_classes=10)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 1)).astype(np.uint8)
    init = jax.jit(model.init, static_argnames="train")
    variables = init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32), train=False)
    zoo.save_weights(tmp_path / "w", model, variables, Preprocessing(32, (0.5,), (0.5,)))
    trained = open_trained(str(tmp_path / "w"))
    source = ArraySource(images, np.zeros(5, int))
    maps, _ = extract(trained, source, "stride4")
    assert maps.ndim == 4
    pooled, _ = extract(trained, source, "stride4", pool=True)
    np.testing.assert_allclose(pooled, maps.mean((1, 2)), atol=1e-5)


def test_nothing_is_left_behind(trained, tmp_path, monkeypatch):
    source = ArraySource(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, int))
    large = {
        **trained.variables,
        "params": jax.tree.map(lambda x: x * 1e4, trained.variables["params"]),
    }
    scaled = dataclasses.replace(trained, variables=large)
    with pytest.raises(DataError, match="array example 0: logits is not finite as float16; take"):
        write_features(tmp_path / "out", scaled, source, {"name": "x"}, ["logits"], dtype="float16")
    (tmp_path / ".out.tmp").mkdir()  # of one that was killed
    write_features(tmp_path / "out", trained, source, {"name": "x"})
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_is_wrong_is_said(workdir, trained, tmp_path, capsys):
    model, out = str(workdir), f"--out={tmp_path / 'out'}"
    for arguments, words in (
        ([model, out, "--endpoint=stride64"], "pre_logits"),
        ([model, out, "--endpoint=,"], "at least one endpoint"),
        ([model, out, "--images", "nowhere/*.png"], "matches nothing"),
        ([model, out, "--images", "x.png", "--split=test"], "one or the other"),
        ([model, out, "--split=tset"], "no split 'tset'"),
        ([model, out, "--batch-size=0"], "1 or more"),
        ([model, out, "--file-size=nan"], "more than 0"),
        ([model, f"--out={tmp_path}/no/where"], "no folder"),
        ([f"{workdir}/weights", "--data=nonsense/x", out], "no such dataset"),
        (["nowhere", out], "give a workdir"),
    ):
        assert main(["features", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error, error
        assert error.count("\n") == 1
    with pytest.raises(DataError, match="make them with"):
        load_features(tmp_path)
    source = ArraySource(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, int))
    write_features(tmp_path / "out", trained, source, {"name": "x"}, ["logits", "pre_logits"])
    with pytest.raises(ConfigError, match="None is not among"):
        load_features(tmp_path / "out")
    (tmp_path / "out/logits.npy").write_bytes(b"")
    with pytest.raises(DataError, match="make them with"):
        load_features(tmp_path / "out", "logits")
