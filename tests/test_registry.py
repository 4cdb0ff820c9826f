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
    # Torchvision's documentation (num_params of the weights); the paper's table 2 has
    # 5.3, 7.8, 9.2, 12, 19, 30, 43 and 66 million.
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    # timm's tf_efficientnet_lite0 to lite4; their authors' page has 4.7, 5.4, 6.1, 8.2 and
    # 13.0 million.
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    # Torchvision's documentation; the paper's table 7 has 22, 54 and 120 million.
    "efficientnet_v2_s": 21_458_488,
    "efficientnet_v2_m": 54_139_356,
    "efficientnet_v2_l": 118_515_272,
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
