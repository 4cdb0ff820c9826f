"""Pictures of filters, maps and maxima, and the command that draws them all."""

import json

import jax
import numpy as np
from PIL import Image
import pytest

from tests.analysis.models import make_trained
from zoo.__main__ import main
from zoo.analysis.feature_maps import draw_feature_maps, feature_maps
from zoo.analysis.filters import draw_filters, find_filters
from zoo.analysis.maximisation import maximise
from zoo.errors import ConfigError


def test_filters_are_the_kernels():
    lenet = make_trained("lenet5", 32, 1)
    name, kernels = find_filters(lenet)
    assert name == "c1" and kernels.shape == (6, 5, 5, 1)
    np.testing.assert_array_equal(kernels[4], lenet.variables["params"]["c1"]["kernel"][..., 4])
    picture = np.asarray(draw_filters(kernels, side=50))
    assert picture.shape == (2 * 54 + 4, 3 * 54 + 4, 3)
    shown = picture[9:54:10, 9:54:10, 0]  # the middle of each weight
    largest = np.abs(kernels[0]).max()
    np.testing.assert_array_equal(
        shown, np.round(127.5 + 127.5 * kernels[0, ..., 0] / largest).astype(np.uint8)
    )
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        find_filters(lenet, "c3")
    with pytest.raises(ConfigError, match="Did you mean 'c1'"):
        find_filters(lenet, "c11")
    templates = find_filters(make_trained("linear", 8, 1))[1]
    assert templates.shape == (10, 8, 8, 1)


def test_feature_maps_are_those_of_the_layers():
    lenet = make_trained("lenet5", 32, 1)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8)
    channels = {"c1": np.array([1, 4]), "stride4": np.array([0])}
    maps = feature_maps(lenet, image, channels)
    assert {name: value.shape for name, value in maps.items()} == {
        "c1": (28, 28, 2),
        "stride4": (5, 5, 1),
    }
    kernel = lenet.variables["params"]["c1"]["kernel"][..., 4]
    x = lenet.preprocessing.normalise(image)
    bias = lenet.variables["params"]["c1"]["bias"][4]
    np.testing.assert_allclose(maps["c1"][3, 7, 1], (x[3:8, 7:12] * kernel).sum() + bias, rtol=1e-3)
    assert draw_feature_maps(image, maps, channels).size == (204, 4 + 3 * (18 + 96 + 18 + 4))
    with pytest.raises(ConfigError, match="no positions"):
        feature_maps(lenet, image, {"logits": np.array([0])})


@pytest.mark.slow
def test_maxima_excite_more_than_noise():
    lenet = make_trained("lenet5", 32, 1)
    short, long = (maximise(lenet, "c3", [3, 8], steps=n) for n in (1, 32))
    assert np.all(long[1] > short[1] + 0.25)
    with pytest.raises(ConfigError, match="steps from 1 on"):
        maximise(lenet, "logits", [7], steps=0)


@pytest.mark.slow
def test_maxima_follow_from_the_seed_and_are_what_the_network_says():
    lenet = make_trained("lenet5", 32, 1)
    first, again, other = (maximise(lenet, "c3", [3], steps=4, seed=s)[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    # What is said of an image is what the network says of it.
    run = jax.jit(lambda v, x: lenet.model.apply(v, x, train=False))
    images, reached = maximise(lenet, "logits", [7], steps=8, total_variation=0.1)
    logits = run(lenet.variables, lenet.preprocessing.normalise(images))
    np.testing.assert_allclose(logits[0, 7], reached[0], rtol=0.02)


def test_the_command_draws(workdir, folders, tmp_path, capsys):
    image = next((folders / "test").rglob("*.png"))
    size = {}
    for kind, *rest in (
        ("filters",),
        ("patches", "--layers=hidden1", "--channels=2", "--count=3", "--split=validation"),
        ("gradients", str(image), "--steps=4"),
        ("gradients", str(image), "--method=smooth", "--samples=2", "--class=digit3"),
        ("maximise", "--class=digit1,7", "--steps=2", "--jitter=0"),
    ):
        out = tmp_path / f"{kind}.png"
        assert main(["inspect", kind, str(workdir), *rest, f"--out={out}"]) == 0
        with Image.open(out) as picture:
            size[kind] = picture.size
    assert size["patches"] == (3 * 100 + 4, 2 * (18 + 96 + 18 + 4) + 4)
    assert size["maximise"] == (2 * 100 + 4, 96 + 18 + 8)
    said = capsys.readouterr().out
    assert "patches of 50 images" in said and "digit3" in said
    assert not list(tmp_path.glob(".*"))
    assert json.loads((workdir / "results.json").read_text())  # untouched


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["maps", "IMAGE"], "without feature maps"),
        (["gradcam", "IMAGE"], "without feature maps"),
        (["gradients", "nowhere.png"], "no such file"),
        (["gradients", "IMAGE", "--class=cat"], "class 'cat'"),
        (["patches", "--layers=c3"], "no such"),
        (["patches", "--layers=,"], "layer"),
        (["patches", "--layers=hidden1", "--only=x"], "numbers of channels"),
        (["patches", "--layers=hidden1", "--count=0"], "1 or more"),
        (["filters", "--layer=nothing"], "none of that name"),
        (["maximise", "--class=digit1", "--layer=hidden1"], "of the layer logits"),
    ],
)
def test_the_command_refuses(workdir, folders, tmp_path, capsys, arguments, words):
    image = str(next((folders / "test").rglob("*.png")))
    kind, *rest = [image if a == "IMAGE" else a for a in arguments]
    out = tmp_path / "x.png"
    assert main(["inspect", kind, str(workdir), *rest, f"--out={out}"]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_the_command_refuses_where_to_write(workdir, tmp_path, capsys):
    for out in (tmp_path / "x.jpg", tmp_path / "none" / "x.png"):
        assert main(["inspect", "filters", str(workdir), f"--out={out}"]) == 2
        assert "ends with .png" in capsys.readouterr().err
    (tmp_path / "x.png").mkdir()
    assert main(["inspect", "filters", str(workdir), f"--out={tmp_path / 'x.png'}"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_an_image_of_the_data_is_its_own_neighbour(workdir, folders, tmp_path):
    images = sorted((folders / "test").rglob("*.png"))[:2]
    out = tmp_path / "x.png"
    arguments = ["neighbours", str(workdir), *map(str, images), "--count=2", f"--out={out}"]
    assert main(["inspect", *arguments]) == 0
    picture = np.asarray(Image.open(out))
    assert picture.shape == (18 + 2 * (96 + 18 + 4), 3 * 100 + 4, 3)
    for top in (18, 18 + 118):
        query, first, second = (picture[top : top + 96, x : x + 96] for x in (4, 104, 204))
        np.testing.assert_array_equal(query, first)
        assert np.any(query != second)
