"""Models by name: what holds for every one of them."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import pytest

from tests.conftest import ROOT
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
    # torchvision's documentation, `num_params` of each.
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    # Keras's documentation, less the moving statistics, which do not train: 2 for each
    # channel of a BatchNorm.
    "resnet50_v1": 25_636_712 - 53_120,
    "resnet101_v1": 44_707_176 - 105_344,
    "resnet152_v1": 60_419_944 - 151_424,
    "resnet50_v2": 25_613_800 - 45_440,
    "resnet101_v2": 44_675_560 - 97_664,
    "resnet152_v2": 60_380_648 - 143_744,
    # He et al. 2015, table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million; with option A, and
    # so without a shortcut's parameters, conv + 2 per channel of BatchNorm + dense.
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "xception": 22_855_952,  # Chollet 2016, table 3; Keras's 22,910,480 less 54,528 of BatchNorm
    "mobilenet_v1": 4_231_976,  # Keras, alpha 1.0: 4,253,864 less 21,888 that are not trained
    "mobilenet_v1_075": 2_585_560,  # Keras, alpha 0.75: 2,601,976 less 16,416
    "mobilenet_v1_050": 1_331_592,  # Keras, alpha 0.5: 1,342,536 less 10,944
    "mobilenet_v1_025": 470_072,  # Keras, alpha 0.25: 475,544 less 5,472
    "mobilenet_v2": 3_504_872,  # torchvision's documentation
    "mobilenet_v2_035": 1_677_128,  # Keras, alpha 0.35: 1,691,208 less 14,080
    "mobilenet_v2_050": 1_968_680,  # Keras, alpha 0.5: 1,987,224 less 18,544
    "mobilenet_v2_075": 2_636_424,  # Keras, alpha 0.75: 2,663,064 less 26,640
    "mobilenet_v2_130": 5_386_792,  # Keras, alpha 1.3: 5,431,048 less 44,256
    "mobilenet_v2_140": 6_108_776,  # Keras, alpha 1.4: 6,156,712 less 47,936
    "mobilenet_v3_large": 5_483_032,  # torchvision's documentation
    "mobilenet_v3_small": 2_542_856,  # torchvision's documentation
    "googlenet": 13_004_888,  # torchvision, with both heads; its meta, without: 6,624,904
    "googlenet_2014": 13_378_280,  # Caffe's: 6,998,552, and heads of 3,188,840 and 3,190,888
    "inception_v3": 27_161_264,  # torchvision's meta
    "inception_v4": 42_679_816,  # timm's module
    "inception_resnet_v2": 55_843_464,  # Keras's 55,813,192 trainable, and 30,272 scales
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

# One name for each class: what holds for the class is tested once.
CLASSES = list({entry.module: name for name, entry in reversed(MODELS.items())}.values())

NOTHING_TO_DROP = ("linear", "lenet5", "lenet5_1998")


@functools.cache
def traced(name: str, shape=None, **fields):
    """Shapes of all variables and endpoints in training, in bfloat16."""
    model = zoo.create_model(name, dtype=jnp.bfloat16, **fields)
    images = jax.ShapeDtypeStruct((2, *(shape or MODELS[name].image_shape)), jnp.float32)

    def init(images):
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        return model.init_with_output(keys, images, train=True, method="endpoints")

    return jax.eval_shape(init, images)


# Larger ones of the same classes take longer to trace, and are compared whole in the slow tests.
LARGE = [
    *(f"efficientnet_b{i}" for i in range(1, 8)),
    *(f"efficientnet_lite{i}" for i in range(1, 5)),
    *(f"efficientnet_v2_{size}" for size in "sml"),
    *(name for name in zoo.list_models() if "101" in name or "152" in name),
]
EVERY = [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
    for name in zoo.list_models()
]


@pytest.mark.parametrize("name", EVERY)
def test_parameter_count_is_the_published_one(name):
    _, variables = traced(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", EVERY)
def test_endpoints_are_what_their_names_say(name):
    out, _ = traced(name)
    classes = 10 if MODELS[name].image_shape[0] <= 32 else 1000
    for logits in [out["logits"], *out.get("aux_logits", ())]:
        assert (logits.shape, logits.dtype) == ((2, classes), jnp.float32)
    assert out["pre_logits"].ndim == 2
    size = MODELS[name].image_shape[0]
    for key, x in out.items():
        if key.startswith("stride"):
            assert x.dtype == jnp.bfloat16
            # VALID convolutions make maps a little smaller than size / stride, never larger.
            exact = size / int(key.removeprefix("stride"))
            assert 0.6 * exact <= x.shape[1] <= math.ceil(exact), key


@pytest.mark.parametrize("name", CLASSES)
def test_without_a_head_the_model_returns_features(name):
    out, variables = traced(name, num_classes=None)
    assert "logits" not in out and "aux_logits" not in out
    assert "head" not in variables.get("params", {})
    whole, _ = traced(name)
    assert out["pre_logits"].shape == whole["pre_logits"].shape


@pytest.mark.parametrize("name", [name for name in CLASSES if not name.startswith("lenet")])
def test_images_may_be_of_any_size_from_the_smallest_and_have_any_channels(name):
    smallest = zoo.create_model(name).smallest_image
    out, _ = traced(name, (smallest, smallest + 13, 5))
    assert all(0 not in x.shape for x in jax.tree.leaves(out))
    if smallest > 1:
        with pytest.raises(ValueError, match=f"at least {smallest}x{smallest} pixels, got"):
            traced(name, (smallest + 13, smallest - 1, 3))


def equations(jaxpr):
    """Yields what a program computes, inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in NOTHING_TO_DROP])
def test_what_fields_ask_for_is_in_the_program_and_changes_no_name(name):
    asked = {"dropout_rate": 0.5, "drop_path_rate": 0.5, "remat": (1,)}
    fields = {f: v for f, v in asked.items() if f in MODELS[name].module.__dataclass_fields__}
    assert "dropout_rate" in fields
    model = zoo.create_model(name, **fields)

    def apply(variables, images):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])

    images = jax.ShapeDtypeStruct((2, *MODELS[name].image_shape), jnp.float32)
    found = list(equations(jax.make_jaxpr(apply)(traced(name)[1], images).jaxpr))
    drawn = {e.outvars[0].aval.shape for e in found if e.primitive.name == "random_bits"}
    assert drawn - {(2, 1, 1, 1)}  # for each feature
    assert ((2, 1, 1, 1) in drawn) == ("drop_path_rate" in fields)  # for each example
    assert any(e.primitive.name in ("checkpoint", "remat2") for e in found) == ("remat" in fields)


def test_readme_lists_every_model_with_its_parameters():
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", (ROOT / "README.md").read_text(), re.M)
    assert {name: int(count.replace(",", "")) for name, count in rows} == PARAMETERS
    assert [name for name, _ in rows] == list(MODELS)


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
    assert set(ALIASES.values()) <= set(MODELS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.create_model("lenet_5"), "unknown model 'lenet_5'. Did you mean 'lenet5'"),
        (
            lambda: zoo.create_model("lenet5", num_classes=0),
            "num_classes=0: must be a whole number from 1 on",
        ),
        (
            lambda: zoo.create_model("lenet5", num_clases=3),
            "no field 'num_clases'. Did you mean 'num_classes'?",
        ),
        (lambda: traced("lenet5_1998", num_classes=26), "use lenet5 for any number"),
        (lambda: zoo.create_model("resnet18", remat=1), "remat=1: must be a tuple of stages"),
        (lambda: zoo.create_model("vgg16", dropout_rate=2), "dropout_rate=2: must be from 0 to 1"),
        (lambda: zoo.create_model("mobilenet_v2", width_mult=0), "must be greater than 0"),
        (lambda: zoo.create_model("efficientnet_b0", padding="VALID"), "'symmetric' or 'SAME'"),
        (lambda: traced("resnet50", (224, 3)), "takes images [B, H, W, C]"),
        (lambda: traced("lenet5", (28, 28, 1)), "takes images [B, 32, 32, C]"),
        (lambda: traced("lenet5_1998", (32, 32, 3)), "use lenet5 for colour"),
    ],
)
def test_bad_arguments_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
