"""Models by name."""

import re

import jax
import jax.numpy as jnp
import pytest

import zoo
from zoo.registry import ALIASES, MODELS

# Exact trainable parameters, and where the number comes from.
PARAMETERS = {
    "linear": 7_850,  # 28 * 28 * 10 + 10
    "mlp": 669_706,  # 401,920 + 262,656 + 5,130, layer by layer
    "lenet5": 61_706,  # 156 + 2,416 + 48,120 + 10,164 + 850, layer by layer
    "lenet5_1998": 60_000,  # LeCun et al. 1998, section II.B: "60,000 trainable parameters"
    "alexnet": 61_100_840,  # torchvision's documentation
    "alexnet_2012": 60_965_224,  # ONNX's bvlc_alexnet; Krizhevsky et al. 2012: 60 million
    "vgg11": 132_863_336,  # torchvision's documentation; the paper's table 2: 133 million
    "vgg13": 133_047_848,  # torchvision's documentation; the paper's table 2: 133 million
    "vgg16": 138_357_544,  # torchvision's documentation; the paper's table 2: 138 million
    "vgg19": 143_667_240,  # torchvision's documentation; the paper's table 2: 144 million
    "vgg11_bn": 132_868_840,  # torchvision's documentation
    "vgg13_bn": 133_053_736,  # torchvision's documentation
    "vgg16_bn": 138_365_992,  # torchvision's documentation
    "vgg19_bn": 143_678_248,  # torchvision's documentation
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
