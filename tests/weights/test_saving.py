"""What is saved is what is loaded, and anyone can read it."""

import json
import re

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.weights.files import assert_filled
import zoo
from zoo.errors import WeightsError
from zoo.registry import find_model, identify
from zoo.weights.importing import array_shapes
from zoo.weights.layouts import flat
from zoo.weights.preprocessing import Preprocessing

NAMES = tuple("abcde")
PREPARED = Preprocessing(
    40, (0.1, 0.2, 0.3), (0.3, 0.2, 0.1), "bicubic", 0.8, "squash", "BGR", NAMES, 48, 0.9
)


def random_tree(model, image_shape, seed=0):
    """Returns random variables of a model, statistics and all."""
    rng = np.random.default_rng(seed)
    shapes = array_shapes(model, image_shape)
    arrays = {p: jnp.asarray(rng.random(s.shape, np.float32)) for p, s in shapes.items()}
    return traverse_util.unflatten_dict(arrays)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = zoo.create_model("resnet20", num_classes=5, norm_momentum=0.75)
    variables = random_tree(model, (40, 40, 3))
    return (
        model,
        variables,
        zoo.save_weights(tmp_path_factory.mktemp("w"), model, variables, PREPARED),
    )


def test_everything_comes_back(saved):
    model, variables, folder = saved
    again = zoo.load_weights("resnet20", folder)
    assert again.model == model and again.preprocessing == PREPARED
    assert_filled(again.variables, flat(variables))
    assert zoo.preprocessing("resnet20", folder) == PREPARED
    assert again.report.unused == {} and again.report.layout == "zoo"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_file_opens_without_us(saved):
    _, variables, folder = saved
    arrays = load_file(folder / "model.safetensors")
    assert_filled(variables, {tuple(name.split("/")): a for name, a in arrays.items()})
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "resnet20" and config["num_features"] == 64
    assert config["label_names"] == list(NAMES)
    assert config["pretrained_cfg"]["input_size"] == [3, 40, 40]
    assert config["pretrained_cfg"]["crop_mode"] == "squash"


def test_saving_again_replaces_and_gives_the_same_bytes(saved, tmp_path):
    model, variables, folder = saved
    zoo.save_weights(tmp_path, model, random_tree(model, (40, 40, 3), seed=1), PREPARED)
    zoo.save_weights(tmp_path, model, variables, PREPARED)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_flipped_bit_is_found(saved, tmp_path):
    for file in saved[2].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=r"its sha256 is .* was expected: it was cut short or"):
        zoo.load_weights("resnet20", tmp_path)


def test_a_head_of_another_size(saved):
    loaded = zoo.load_weights("resnet20", saved[2], num_classes=3)
    assert loaded.model.num_classes == 3 and loaded.model.norm_momentum == 0.75
    with pytest.raises(WeightsError, match="says it is 'resnet20', not 'resnet32': load it as"):
        zoo.load_weights("resnet32", saved[2])


def test_bfloat16_keeps_its_values(tmp_path):
    model = zoo.create_model("lenet5", num_classes=10)
    variables = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_tree(model, (32, 32, 1)))
    zoo.save_weights(tmp_path, model, variables, Preprocessing(32, (0.5,), (0.5,)))
    again = zoo.load_weights("lenet5", tmp_path).variables
    assert again["params"]["c1"]["kernel"].dtype == np.float32
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float32)), again, variables
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda v: v["params"].pop("head"),
            WeightsError,
            "2 (params/head/bias, params/head/kernel",
        ),
        (
            lambda v: v["params"]["head"].update(bias=jnp.zeros(4)),
            WeightsError,
            "not those of this lenet5: 1 (params/head/bias)",
        ),
        (
            lambda v: v["params"]["head"].update(bias=jnp.full(5, jnp.nan)),
            WeightsError,
            "NaN or infinity in 1 (params/head/bias); not saved",
        ),
    ],
)
def test_nothing_is_written_that_could_not_be_read(tmp_path, change, error, message):
    model = zoo.create_model("lenet5", num_classes=5)
    variables = random_tree(model, (32, 32, 1))
    change(variables)
    with pytest.raises(error, match=re.escape(message)):
        zoo.save_weights(tmp_path / "x", model, variables, Preprocessing(32, (0.5,), (0.5,)))
    assert not (tmp_path / "x").exists()


def test_class_names_have_to_be_as_many(tmp_path):
    model = zoo.create_model("lenet5", num_classes=3)
    with pytest.raises(WeightsError, match="5 class names for a head of 3 classes"):
        zoo.save_weights(
            tmp_path,
            model,
            random_tree(model, (32, 32, 1)),
            PREPARED.replace(image_size=32).with_channels(1),
        )


def test_a_function_is_no_field_for_json(tmp_path):
    model = zoo.create_model("alexnet", normalise=nn.relu)
    with pytest.raises(ValueError, match=r"alexnet has fields that config.json cannot hold"):
        zoo.save_weights(tmp_path, model, {}, PREPARED)


def test_every_model_is_found_by_its_fields():
    for name in zoo.list_models():
        model = zoo.create_model(name, num_classes=7)
        found, fields = identify(model)
        assert zoo.create_model(found, num_classes=7, **fields) == model
        assert fields == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_models())
def test_every_model_is_saved_and_loaded_exactly(name, tmp_path):
    shape = find_model(name).image_shape
    model = zoo.create_model(name)
    variables = random_tree(model, shape)
    channels = shape[2]
    prepared = Preprocessing(shape[0], (0.5,) * channels, (0.25,) * channels)
    zoo.save_weights(tmp_path, model, variables, prepared)
    loaded = zoo.load_weights(name, tmp_path)
    assert loaded.model == model and loaded.preprocessing == prepared
    assert_filled(loaded.variables, flat(variables))
    with open(tmp_path / "model.safetensors", "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        assert len(json.loads(file.read(length))) >= len(flat(variables))
