"""Whole loads: what is recognised, what comes with it, and what is refused and how."""

import functools
import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights.files import (
    assert_filled,
    their_arrays,
    write_legacy_h5,
    write_safetensors,
)
import zoo
from zoo.__main__ import main
from zoo.errors import WeightsError
from zoo.models.mobilenet_v3 import SMALL
from zoo.weights.catalogue import imagenet_classes
from zoo.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

# One test shows that it is said when preprocessing has to be assumed.
pytestmark = pytest.mark.filterwarnings("ignore:.*taken to be")

V2 = "mobilenet_v2"
TINY = {"stages": ((1, 16, 1, 1), (6, 24, 1, 2))}  # the same, and quick to trace
ARRAYS, OURS = their_arrays(V2, "timm", **TINY)
HEAD = ("classifier.weight", "classifier.bias")
CONFIG = {
    "architecture": "mobilenetv2_100",
    "num_classes": 1000,
    "num_features": 1280,
    "pretrained_cfg": {
        "tag": "ra_in1k",
        "input_size": [3, 96, 96],
        "test_input_size": [3, 128, 128],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "num_classes": 1000,
        "pool_size": [7, 7],
        "classifier": "classifier",
    },
}


def folder_of(tmp_path, arrays=ARRAYS, config=CONFIG):
    write_safetensors(tmp_path / "model.safetensors", arrays)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def tiny(source, **fields):
    return zoo.load_weights(V2, source, **TINY, **fields)


def test_a_folder_of_timm_with_all_that_belongs_to_it(tmp_path):
    loaded = tiny(folder_of(tmp_path))
    assert_filled(loaded.variables, OURS)
    assert loaded.model == zoo.create_model(V2, **TINY)
    assert loaded.preprocessing == Preprocessing(
        96,
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
        "bicubic",
        0.9,
        class_names=imagenet_classes(),
        test_image_size=128,
        test_crop_fraction=1.0,
    )
    report = loaded.report
    assert (report.layout, report.new, report.notes) == ("timm", (), ())
    assert report.used["params/head/bias"] == "classifier.bias"
    assert sorted({*report.used.values(), *report.unused}) == sorted(ARRAYS)
    assert set(map(len, (report.used, set(report.used.values()), OURS))) == {len(OURS)}
    assert all(name.endswith("num_batches_tracked") for name in report.unused)
    assert "unused  7 (blocks.0.0.bn1.num_batches_tracked" in str(report)
    assert "params/head/kernel" in report.table()


@pytest.mark.parametrize("key", ["root", "none"])
def test_an_older_config_and_none_at_all(tmp_path, key):
    flat = {**CONFIG, **CONFIG["pretrained_cfg"]}
    flat.pop("pretrained_cfg")
    folder = folder_of(tmp_path, config=flat if key == "root" else None)
    if key == "root":
        loaded = tiny(folder)
        assert loaded.preprocessing.image_size == 96
    else:
        with pytest.warns(UserWarning, match="taken to be timm/mobilenetv2_100.ra_in1k's"):
            loaded = tiny(folder)
        assert "taken to be timm/mobilenetv2_100.ra_in1k's" in loaded.report.notes[0]
    assert_filled(loaded.variables, OURS)


def test_the_line_of_the_readme(tmp_path):
    model, variables, preprocess = zoo.load(V2, weights=folder_of(tmp_path), num_classes=5, **TINY)
    image = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
    apply = jax.jit(functools.partial(model.apply, train=False))
    logits = apply(variables, preprocess(image)[None])
    assert logits.shape == (1, 5) and jnp.isfinite(logits).all()
    assert zoo.preprocessing(V2, tmp_path).image_size == 96


def test_keras_in_its_old_format(tmp_path):
    name = "mobilenet_v1_025"
    arrays, ours = their_arrays(name, "keras")
    write_legacy_h5(tmp_path / "mobilenet.h5", arrays)
    loaded = zoo.load_weights(name, tmp_path / "mobilenet.h5")
    assert_filled(loaded.variables, ours)
    assert loaded.report.layout == "keras"
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)


def test_convert_writes_a_folder_of_ours(tmp_path, capsys):
    arrays, _ = their_arrays("mobilenet_v1_025", "keras")
    write_legacy_h5(tmp_path / "x.h5", arrays)
    arguments = [str(tmp_path / "x.h5"), str(tmp_path / "out")]
    assert main(["convert", "mobilenet_v1_025", *arguments]) == 0
    assert "each from a tensor of its own" in capsys.readouterr().out
    first = zoo.load_weights("mobilenet_v1_025", tmp_path / "x.h5")
    again = zoo.load_weights("mobilenet_v1_025", tmp_path / "out")
    assert again.model == first.model and again.preprocessing == first.preprocessing
    jax.tree.map(np.testing.assert_array_equal, again.variables, first.variables)
    assert main(["convert", "resnet18", *arguments]) == 2
    assert "error: " in capsys.readouterr().err
    for folder in (tmp_path / "x.h5", tmp_path / "x.h5" / "below"):
        assert main(["convert", "mobilenet_v1_025", str(tmp_path / "x.h5"), str(folder)]) == 2
        assert f"error: {folder}: cannot be written to" in capsys.readouterr().err


def test_a_network_that_is_another_in_tensorflow_needs_to_be_told(tmp_path):
    tiny = {"stages": SMALL[:2]}
    arrays, ours = their_arrays("mobilenet_v3_small", "timm", **tiny)
    file = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(WeightsError, match=r"differ in .*padding.*'timm' or layout='timm-tf'"):
        zoo.load_weights("mobilenet_v3_small", file, **tiny)
    for key, padding in (("timm", "symmetric"), ("timm-tf", "SAME")):
        loaded = zoo.load_weights("mobilenet_v3_small", file, layout=key, **tiny)
        assert_filled(loaded.variables, ours)
        assert loaded.model.padding == padding
    (tmp_path / "config.json").write_text('{"architecture": "tf_mobilenetv3_small_100"}')
    assert zoo.load_weights("mobilenet_v3_small", file, **tiny).report.layout == "timm-tf"
    with pytest.raises(ValueError, match=r"layout='onnx': mobilenet_v3_small has \['torchvision'"):
        zoo.load_weights("mobilenet_v3_small", file, layout="onnx")


def test_heads(tmp_path):
    folder = folder_of(tmp_path)
    for classes in (7, None):
        loaded = tiny(folder, num_classes=classes, seed=3)
        body = {path: array for path, array in OURS.items() if path[1] != "head"}
        head = loaded.variables["params"].pop("head", None)
        assert_filled(loaded.variables, body)
        assert {*HEAD} <= set(loaded.report.unused)
        assert "a head of 1000 classes, left behind as asked" in str(loaded.report)
        assert loaded.preprocessing.class_names is None
        assert (head is None) == (classes is None)
    again = tiny(folder, num_classes=7, seed=3).variables["params"]["head"]
    other = tiny(folder, num_classes=7, seed=4).variables["params"]["head"]
    first = tiny(folder, num_classes=7, seed=3)
    assert first.report.new == ("params/head/bias", "params/head/kernel")
    assert again["kernel"].shape == (1280, 7) and not again["bias"].any()
    np.testing.assert_array_equal(again["kernel"], first.variables["params"]["head"]["kernel"])
    assert (again["kernel"] != other["kernel"]).mean() > 0.9
    kept = tiny(folder, num_classes=1000)
    assert_filled(kept.variables, OURS)


def test_a_head_of_another_size_is_never_dropped_unasked(tmp_path):
    arrays, ours = their_arrays(V2, "timm", num_classes=10, **TINY)
    folder = folder_of(tmp_path, arrays, config=None)
    with pytest.raises(WeightsError, match="10 classes, and 1000 were expected; num_classes=10"):
        tiny(folder)
    assert_filled(tiny(folder, num_classes=10).variables, ours)
    # A config that says so is enough; one that says otherwise is an error.
    names = [f"c{i}" for i in range(10)]
    folder_of(
        tmp_path,
        arrays,
        {**CONFIG, "num_classes": 10, "label_names": names}
        | {"pretrained_cfg": {**CONFIG["pretrained_cfg"], "num_classes": 10}},
    )
    loaded = tiny(folder)
    assert_filled(loaded.variables, ours)
    assert loaded.preprocessing.class_names == tuple(names)
    folder_of(tmp_path, arrays)
    with pytest.raises(WeightsError, match="10 classes, and 1000 were expected"):
        tiny(folder)
    for name in HEAD:
        del arrays[name]
    folder_of(tmp_path, arrays)
    with pytest.raises(WeightsError, match=r"has no head .* give num_classes=None .* or num_cl"):
        tiny(folder)
    assert tiny(folder, num_classes=None).model.num_classes is None
    assert tiny(folder, num_classes=3).report.new == (
        "params/head/bias",
        "params/head/kernel",
    )


def test_grey_images(tmp_path):
    grey = tiny(folder_of(tmp_path), channels=1)
    kernel = grey.variables["params"]["stem_conv"]["kernel"]
    expected = OURS["params", "stem_conv", "kernel"].sum(axis=2, keepdims=True)
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    assert grey.preprocessing.mean == pytest.approx((0.2,))
    assert grey.preprocessing(np.zeros((9, 9), np.uint8)).shape == (96, 96, 1)
    for channels in (0, -1, "1"):
        with pytest.raises(ValueError, match=f"channels={channels!r}: must be a whole number"):
            tiny(tmp_path, channels=channels)


def nan(array):
    return np.where(np.arange(array.size).reshape(array.shape) == 3, np.nan, array)


def without(name):
    return {key: array for key, array in ARRAYS.items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without("bn1.bias"), "not a whole mobilenet_v2 in layout timm: tensors 1 (bn1.bias) "),
        (ARRAYS | {"extra": np.ones(3)}, "1 (extra) that it has no place for"),
        (
            ARRAYS | {"conv_stem.weight": np.ones((32, 3, 5, 5), np.float32)},
            "tensor 'conv_stem.weight' has shape [32, 3, 5, 5], expected [32, 3, 3, 3] (ours is",
        ),
        (
            ARRAYS | {"bn1.bias": nan(ARRAYS["bn1.bias"])},
            "tensor 'bn1.bias' holds NaN, infinity or more than float32 can hold at 1 of 32 places",
        ),
        (
            ARRAYS | {"bn1.bias": np.full(32, 1e300)},
            "more than float32 can hold at 32 of 32 places",
        ),
        (ARRAYS | {"bn1.running_var": -ARRAYS["bn1.running_var"]}, "holds negative variances"),
        (
            ARRAYS | {"bn1.bias": np.ones(32, np.int32)},
            "tensor 'bn1.bias' is int32, wanted floating point",
        ),
    ],
    ids=["missing", "extra", "shape", "nan", "overflow", "variance", "integer"],
)
def test_files_that_are_not_what_was_asked_for(tmp_path, monkeypatch, arrays, message):
    monkeypatch.setattr("zoo.weights.loading._guess", lambda *_: "")  # below; it takes seconds
    with pytest.raises(WeightsError, match=re.escape(message)):
        tiny(folder_of(tmp_path, arrays))


@pytest.mark.slow
def test_another_architecture_is_named(tmp_path):
    folder = folder_of(tmp_path, their_arrays(V2, "timm")[0])
    with pytest.raises(WeightsError, match="says it is 'mobilenetv2_100', not 'mobilenet_v2_050'"):
        zoo.load_weights("mobilenet_v2_050", folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match="It is 'mobilenet_v2': load it as that"):
        zoo.load_weights("mobilenet_v2_050", folder)
    (folder / "config.json").write_text('{"architecture": "resnet50d"}')
    with pytest.raises(WeightsError, match=r"'resnet50d', not .* this zoo has no such network"):
        tiny(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm/resnet18.a1_in1k", "are weights of 'resnet18', not 'resnet50': load that"),
        ("nowhere/at/all", "'nowhere/at/all': no such file or folder"),
        ("model.safetensors", "no such file or folder"),
        (".", "has neither model.safetensors nor"),
        ("torchvision/ResNet50_Weights.IMAGENET1K_V1", "download https://download.pytorch.org/"),
        ("keras/ResNet50.imagenet", "are weights of 'resnet50_v1'"),
    ],
)
def test_sources_that_are_none(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=re.escape(message)):
        zoo.load_weights("resnet50", source)


def test_pickles_are_not_opened(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(WeightsError, match="is a pickle of torch, which can run code"):
        zoo.load_weights("resnet50", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must hold an object, has list"),
        ("[" * 200_000, "nested too deep"),
        ('{"input_size": [3, 200, 224]}', "only squares are known"),
        ('{"input_size": 3}', "cannot be understood"),
        ('{"input_size": [3, 224, 224], "std": [0, 1, 1]}', "preprocessing std"),
        ('{"input_size": [3, 224, 224], "interpolation": "magic"}', "interpolation='magic'"),
        ('{"input_size": [3, 224, 224], "crop_mode": "border"}', "crop_mode 'border'"),
        ('{"zoo": {"format": 2}}', "zoo format 2"),
        ('{"model_args": {"act_layer": "silu"}}', "model_args {'act_layer': 'silu'}"),
        ('{"zoo": 3}', "cannot be understood"),
        ('{"num_classes": "many"}', "cannot be understood"),
        ('{"num_classes": 0}', "num_classes 0"),
        ('{"architecture": ["mobilenetv2_100"]}', "architecture ['mobilenetv2_100']"),
        ('{"zoo": {"format": 1, "sha256": null, "fields": [1]}}', "fields [1]"),
        ('{"input_size": [3, 224, 224], "mean": ["a", "b", "c"]}', "preprocessing mean"),
        ('{"input_size": [3, 224, 224], "mean": [NaN, 0, 0]}', "preprocessing mean"),
        ('{"input_size": [3, 224, 224], "std": [Infinity, 1, 1]}', "preprocessing std"),
    ],
)
def test_a_config_that_makes_no_sense(tmp_path, text, message):
    folder = folder_of(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=re.escape(message)):
        tiny(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_json_is_read_of_regular_files_only(tmp_path, name, kind):
    # A pipe would be waited for, and the device read until the memory is full.
    if name == "config.json":
        folder_of(tmp_path, config=None)
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(WeightsError, match=rf"{name}: is no regular file"):
        tiny(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": [[6, 32, 3000, 1]] * 3}, "over 1,"),
        ({"stages": "abc"}, "config.json: "),
        ({"dtype": 5}, "config.json: "),
        ({"colour": 5}, "has no field 'colour'"),
    ],
)
def test_a_config_cannot_ask_for_any_network(tmp_path, fields, message):
    ours = {"format": 1, "sha256": None, "fields": fields}
    folder = folder_of(tmp_path, config={"architecture": V2, "num_classes": 10, "zoo": ours})
    with pytest.raises(WeightsError, match=re.escape(message)):
        zoo.load_weights(V2, folder)


def test_a_network_of_keras_that_normalises_by_its_file(tmp_path):
    arrays, _ = their_arrays("efficientnet_b0", "keras", depth_mult=0.01)
    for mean, variance, expected in (
        ((0.1, 0.2, 0.3), (0.25, 0.25, 0.25), ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))),
        (IMAGENET_MEAN, (0.229, 0.224, 0.225), (IMAGENET_MEAN, IMAGENET_STD)),
    ):
        extra = {"normalization/moving_mean": mean, "normalization/moving_variance": variance}
        extra = {name: np.asarray(values, np.float32) for name, values in extra.items()}
        write_legacy_h5(tmp_path / "x.h5", arrays | extra)
        loaded = zoo.load_weights("efficientnet_b0", tmp_path / "x.h5", depth_mult=0.01)
        found = (loaded.preprocessing.mean, loaded.preprocessing.std)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_files_with_published_names_have_to_have_their_bytes(tmp_path):
    file = write_safetensors(tmp_path / "mobilenet_v2-b0353104.pth", ARRAYS)
    with pytest.raises(WeightsError, match=r"its sha256 is .* b0353104.* was expected"):
        zoo.load_weights("mobilenet_v2", file)


def test_half_precision_is_widened_exactly(tmp_path):
    halves = {name: a.astype(np.float16) if a.ndim else a for name, a in ARRAYS.items()}
    loaded = tiny(folder_of(tmp_path, halves))
    expected = {path: a.astype(np.float16).astype(np.float32) for path, a in OURS.items()}
    assert_filled(loaded.variables, expected)
