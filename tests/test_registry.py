"""Models by name."""

import re

import jax
import jax.numpy as jnp
import pytest

import zoo
from zoo.registry import ALIASES, MODELS

# Exact trainable parameters, and where the number comes from.
PARAMETERS = {
    "lenet5": 61_706,  # 156 + 2,416 + 48,120 + 10,164 + 850, layer by layer
    "lenet5_1998": 60_000,  # LeCun et al. 1998, section II.B: "60,000 trainable parameters"
    "googlenet": 13_004_888,  # torchvision, with both heads; its meta, without: 6,624,904
    "googlenet_2014": 13_378_280,  # Caffe's: 6,998,552, and heads of 3,188,840 and 3,190,888
    "inception_v3": 27_161_264,  # torchvision's meta
    "inception_v4": 42_679_816,  # timm's module
    "inception_resnet_v2": 55_843_464,  # Keras's 55,813,192 trainable, and 30,272 scales
}


def variables_of(name: str, **fields):
    model = zoo.create_model(name, **fields)
    images = jax.ShapeDtypeStruct((2, *MODELS[name].image_shape), jnp.float32)
    init = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    return model, init, images


@pytest.mark.parametrize("name", zoo.list_models())
def test_parameter_count_is_the_published_one(name):
    _, variables, _ = variables_of(name)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == PARAMETERS[name]


@pytest.mark.parametrize("name", zoo.list_models())
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_are_float32_and_endpoints_have_their_strides(name, dtype):
    model, variables, images = variables_of(name, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def endpoints(variables, x):
        return model.apply(variables, x, train=True, method="endpoints", mutable=["batch_stats"])[0]

    out = jax.eval_shape(endpoints, variables, images)
    assert out["logits"].shape == (2, 10)
    assert out["logits"].dtype == jnp.float32
    assert out["pre_logits"].ndim == 2
    strides = {name: x for name, x in out.items() if name.startswith("stride")}
    assert strides
    for name_, x in strides.items():
        assert x.dtype == dtype
        # VALID convolutions at the borders make LeNet's maps smaller than size / stride.
        assert x.shape[1] <= images.shape[1] // int(name_.removeprefix("stride"))


@pytest.mark.parametrize("name", zoo.list_models())
def test_without_a_head_the_model_returns_features(name):
    model, variables, images = variables_of(name, num_classes=None)
    assert "head" not in variables["params"]
    out = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
    assert out.shape == (2, 84)


def test_train_must_be_said():
    model = zoo.create_model("lenet5")
    with pytest.raises(TypeError, match="train"):
        model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))


def test_list_models_takes_wildcards():
    assert zoo.list_models() == list(MODELS)
    assert zoo.list_models("*1998") == ["lenet5_1998"]
    assert zoo.list_models("nothing*") == []


def test_aliases_name_models_and_nothing_twice():
    assert zoo.create_model("lenet") == zoo.create_model("lenet5")
    assert not set(ALIASES) & set(MODELS)
    assert len(ALIASES) == sum(len(entry.aliases) for entry in MODELS.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.create_model("lenet_5"), "unknown model 'lenet_5'. Did you mean 'lenet5'"),
        (lambda: zoo.create_model("lenet5", num_classes=0), "num_classes must be at least 1"),
        (
            lambda: zoo.create_model("lenet5", num_clases=3),
            "no field 'num_clases'. Did you mean 'num_classes'?",
        ),
        (lambda: variables_of("lenet5_1998", num_classes=26), "use lenet5 for any number"),
    ],
)
def test_bad_arguments_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("name", "shape"), [("lenet5", (1, 28, 28, 1)), ("lenet5_1998", (1, 32, 32, 3))]
)
def test_wrong_image_shapes_say_what_is_wanted(name, shape):
    with pytest.raises(ValueError, match=r"lenet5|LeNet-5"):
        zoo.create_model(name).init(jax.random.key(0), jnp.zeros(shape), train=False)
