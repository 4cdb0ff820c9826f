"""The network with BatchNorm folded away is the network."""

import functools

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.oracles import random_array
import zoo
from zoo.description import layer_table
from zoo.errors import WeightsError
from zoo.layers import Classifier, Conv, max_pool, rematerialise
from zoo.models import googlenet, inception, inception_resnet, inception_v4, xception
from zoo.registry import MODELS
from zoo.weights.importing import array_shapes

# The compiler does not try hard: these programs run once.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
WITHOUT_NORM = ("linear", "mlp", "lenet5", "lenet5_1998", "alexnet", "googlenet_2014")


class Branches(Classifier):
    """The blocks of Inception and Xception, whose networks have no small variants."""

    smallest = 9

    @nn.compact
    def endpoints(self, images, *, train):
        conv = functools.partial(Conv, **self.kinds)
        norm = self.batch_norm(train, epsilon=1e-3, momentum=0.9)
        scaled = functools.partial(googlenet.Unit, conv=conv, norm=norm)
        unit = functools.partial(scaled, norm=functools.partial(norm, use_scale=False))
        drop = functools.partial(nn.Dropout, 0.0, deterministic=not train)
        layers = {"conv": conv, "norm": norm, "drop": drop}
        x = scaled(8, 3, 2, "VALID", name="stem")(images)
        x = googlenet.Inception((4, 4, 6, 4, 6, 4), 5, scaled, name="inception")(x)
        x = inception.InceptionA(4, 4, unit, inception_v4.mean_pool, name="a")(x)
        x = rematerialise(inception.ReductionA, True)(4, 4, 6, 8, unit, name="reduction")(x)
        x = inception.fork(unit, x, 6, "fork")
        branches = (((4, 1),), ((4, (1, 3)), (6, (3, 1))))
        blocks = {"unit": unit, "conv": conv, "drop": drop}
        x = inception_resnet.Residual(branches, 0.2, nn.relu, **blocks, name="residual")(x)
        block = rematerialise(xception.Block, True)
        x = block((8, 16), 2, "SAME", **layers, name="separable")(x)
        return {"stride8": x} | self.pool_and_classify(x, 0.0, train)


class Unfoldable(Classifier):
    """Every reason why BatchNorm stays, and one, `bn`, that goes."""

    @nn.compact
    def endpoints(self, images, *, train):
        conv = functools.partial(Conv, 4, 3, **self.kinds)
        norm = self.batch_norm(train, epsilon=1e-3, momentum=0.9)
        x = norm(name="at_the_start")(images)
        x = endpoint = conv(name="endpoint_conv")(x)
        x = norm(name="behind_an_endpoint")(x)
        x = conv(name="read_twice")(x)
        x = nn.relu(norm(name="not_alone")(x)) + x
        shared = conv(name="shared_conv")
        x = norm(name="behind_shared2")(shared(norm(name="behind_shared1")(shared(x))))
        shared = norm(name="shared_bn")
        x = shared(conv(name="conv2")(shared(conv(name="conv1")(x))))
        x = norm(name="behind_pooling")(max_pool(conv(name="pooled")(x), 2, 1))
        x = norm(name="behind_bn")(norm(name="bn")(conv(name="conv")(x)))
        x = norm(name="behind_other")(nn.Conv(4, (3, 3), name="other")(x))
        half = conv(dtype=jnp.bfloat16, name="other_type")(images)
        x = x[:, 2:, 2:] + norm(name="behind_other_type")(half)[:, 3:, 3:]
        return {"stride1": endpoint} | self.pool_and_classify(x, 0.0, train)


class Changing(Classifier):
    """Has its BatchNorm in another place where images are large."""

    @nn.compact
    def endpoints(self, images, *, train):
        conv = Conv(4, 3, name="conv")
        norm = self.batch_norm(train, epsilon=1e-3, momentum=0.9)(name="bn")
        x = norm(conv(images)) if images.shape[1] == 1 else norm(nn.relu(conv(images)))
        return self.pool_and_classify(x, 0.0, train)


def shorter(name, stages):
    """An EfficientNet with one block of some of its stages."""
    rows = [zoo.create_model(name).stages[i] for i in stages]
    return zoo.create_model(name, stages=tuple(row._replace(layers=1) for row in rows))


def small_networks():
    """Every structure of the zoo, a few blocks of each."""
    two = {"stage_sizes": (1, 1), "widths": (8, 16)}
    yield "vgg_bn", zoo.create_model("vgg11_bn", hidden_features=16, **two)
    yield "resnet_basic", zoo.create_model("resnet18", remat=(2,), **two)
    yield "resnet_bottleneck", zoo.create_model("resnet50", num_classes=None, **two)
    yield "resnet_biases", zoo.create_model("resnet50_v1", **two)
    yield "resnet_padded", zoo.create_model("resnet20", **two)
    yield "resnext", zoo.create_model("resnext50_32x4d", stage_sizes=(1,), widths=(64,))
    yield "resnet_v2", zoo.create_model("resnet50_v2", stage_sizes=(2, 1), remat=(1,))
    yield "mobilenet_v1", zoo.create_model("mobilenet_v1_025", stage_sizes=(1, 1))
    table = zoo.create_model("mobilenet_v2").stages[:2]
    yield "mobilenet_v2", zoo.create_model("mobilenet_v2_035", stages=table, padding="SAME")
    table = zoo.create_model("mobilenet_v3_large").stages
    yield "mobilenet_v3", zoo.create_model("mobilenet_v3_large", stages=(table[0], table[2][:1]))
    yield "efficientnet", shorter("efficientnet_b0", (0, 2))
    yield "efficientnet_lite", shorter("efficientnet_lite0", (0,))
    yield "efficientnet_v2", shorter("efficientnet_v2_s", (0, 1, 3))
    yield "branches", Branches(10)
    yield "unfoldable", Unfoldable(10)


NETWORKS = dict(small_networks())
STAYS = {  # as a multiply-add; all other BatchNorm goes
    "resnet_v2": {
        "stage1_block1/preact_bn",
        "stage1_block2/preact_bn",
        "stage2_block1/preact_bn",
        "final_bn",
    },
    "unfoldable": {
        "at_the_start",
        "behind_an_endpoint",
        "not_alone",
        "behind_shared1",
        "behind_shared2",
        "shared_bn",
        "behind_pooling",
        "behind_bn",
        "behind_other",
        "behind_other_type",
    },
}


def random_variables(model, image_shape, gain=1.0):
    """No scale is 1, no mean is 0: a forgotten one shows."""
    rng = np.random.default_rng(0)
    names = {"scale": "gamma", "var": "variance"}
    shapes = sorted(array_shapes(model, image_shape).items())
    return traverse_util.unflatten_dict(
        {
            path: random_array(names.get(path[-1], path[-1]), shape.shape, rng, gain).astype("f4")
            for path, shape in shapes
        }
    )


def paths(tree):
    return {*traverse_util.flatten_dict(tree, sep="/")}


def norms_of(variables):
    found = [path.rsplit("/", 1) for path in paths(variables["batch_stats"])]
    return {norm for norm, leaf in found if leaf == "mean"}


def images_for(model, channels=3):
    size = max(model.smallest_image, 12)
    return np.random.default_rng(1).normal(size=(2, size, size + 3, channels)).astype("f4")


def compiled(model, variables, images):
    """All endpoints of a network, as a program."""
    run = functools.partial(model.apply, train=False, method="endpoints")
    return jax.jit(run).lower(variables, images).compile(QUICKLY)


def largest_error(ours, theirs):
    """The largest error of any endpoint, relative to its largest value."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)  # names, too
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    errors = []
    for mine, other in pairs:
        assert mine.shape == other.shape and mine.dtype == other.dtype
        mine, other = (np.asarray(x, np.float64) for x in (mine, other))
        assert np.ptp(other) > 0 and np.isfinite(other).all()
        errors.append(np.abs(mine - other).max() / np.abs(other).max())
    return max(errors)


def check_equal(model, variables, images, limit):
    """Folds, compares all endpoints and returns what was folded."""
    folded, weights = zoo.fold_batchnorm(model, variables)
    original, short = compiled(model, variables, images), compiled(folded, weights, images)
    assert " rsqrt(" in original.as_text() and " rsqrt(" not in short.as_text()
    assert largest_error(short(weights, images), original(variables, images)) < limit
    return folded, weights


QUICK = ("resnet_bottleneck", "resnet_v2", "mobilenet_v3", "branches", "unfoldable")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_folded_is_unfolded(name):
    model = NETWORKS[name]
    images = images_for(model, channels=4).astype("f8")
    variables = random_variables(model, images.shape[1:])
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: x.astype("f8"), variables)
        folded, weights = check_equal(model, exact, images, 1e-12)
    # The names are the old ones; all that has gone is BatchNorm, all that is new are biases.
    norms, stays = norms_of(variables), STAYS.get(name, set())
    assert stays < norms and {*folded.folds.values()} == norms - stays and [*weights] == ["params"]
    goes = {f"{norm}/{leaf}" for norm in norms - stays for leaf in ("scale", "bias")}
    new = {f"{norm}/{leaf}" for norm in stays for leaf in ("scale", "bias")}
    new |= {f"{conv}/bias" for conv in folded.folds}
    assert paths(weights["params"]) == paths(variables["params"]) - goes | new
    # So is what it says of itself, to those who ask its `init`.
    shapes = jax.eval_shape(functools.partial(folded.init, train=False), jax.random.key(0), images)
    assert shapes == jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, "float32"), weights)


def noise(ours, exact):
    """The root mean square error of the worst endpoint, relative to that of its values."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True)
    return max(np.sqrt(np.mean((x.astype("f4") - y) ** 2) / np.mean(y**2)) for x, y in pairs)


def test_bfloat16_is_about_as_exact_as_before():
    model = NETWORKS["resnet_v2"]  # has both kinds
    half, images = model.clone(dtype=jnp.bfloat16), images_for(model)
    variables = random_variables(model, images.shape[1:])
    exact, before, after = (
        jax.device_get(compiled(m, v, images)(v, images))
        for m, v in ((model, variables), (half, variables), zoo.fold_batchnorm(half, variables))
    )
    types = jax.tree.map(lambda x: x.dtype, before)
    assert jax.tree.map(lambda x: x.dtype, after) == types
    assert types["stride4"] == jnp.bfloat16
    # Where BatchNorm added its bias to float32, it now is of bfloat16 and rounded itself.
    assert 1e-4 < noise(after, exact) < 1.5 * noise(before, exact)


def test_it_is_a_model_like_others():
    model = NETWORKS["resnet_v2"]
    images = images_for(model)
    variables = random_variables(model, images.shape[1:])
    folded, weights = zoo.fold_batchnorm(model, variables)
    assert isinstance(folded, Classifier) and folded.num_classes == model.num_classes == 1000
    assert folded.smallest_image == model.smallest_image
    assert hash(folded) == hash(zoo.fold_batchnorm(model, variables)[0])  # static under jit
    assert zoo.fold_batchnorm(folded, weights) == (folded, weights)
    expected = model.apply(variables, images, train=False)
    run = jax.jit(functools.partial(folded.apply, train=False))
    np.testing.assert_allclose(run(weights, images), expected, rtol=1e-4, atol=1e-4)
    exported = jax.export.export(run)(*jax.tree.map(jnp.asarray, (weights, images)))
    np.testing.assert_array_equal(exported.call(weights, images), run(weights, images))
    rows, _, _ = layer_table(folded, images.shape[1:], train=False)
    kept = {row.name for row in rows if row.kind == "BatchNorm"}
    assert kept == STAYS["resnet_v2"]


def test_it_can_be_part_of_another_network():
    model = NETWORKS["resnet_padded"]
    images = images_for(model)
    folded, weights = zoo.fold_batchnorm(model, random_variables(model, images.shape[1:]))

    class Doubled(nn.Module):
        backbone: nn.Module

        def __call__(self, x):
            return 2 * self.backbone(x, train=False)

    out = Doubled(folded).apply({"params": {"backbone": weights["params"]}}, images)
    np.testing.assert_array_equal(out, 2 * folded.apply(weights, images, train=False))


def test_each_array_keeps_its_type():
    model = NETWORKS["resnet_v2"]
    variables = random_variables(model, (12, 12, 3))
    half = {**variables, "params": jax.tree.map(jnp.bfloat16, variables["params"])}
    _, weights = zoo.fold_batchnorm(model, half)
    block = weights["params"]["stage1_block1"]
    assert {x.dtype for x in block["conv1"].values()} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in block["preact_bn"].values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", [*WITHOUT_NORM, "vgg11"])
def test_without_batchnorm_nothing_changes(name):
    model, variables = zoo.create_model(name), object()
    folded, weights = zoo.fold_batchnorm(model, variables)
    assert folded is model and weights is variables


def test_folded_it_does_not_train():
    model = NETWORKS["resnet_padded"]
    folded, weights = zoo.fold_batchnorm(model, random_variables(model, (12, 12, 3)))
    with pytest.raises(ValueError, match=r"train=True: .* train the one that"):
        folded.apply(weights, np.ones((1, 12, 12, 3), "f4"), train=True)


def test_variables_must_be_those_of_the_model():
    model = NETWORKS["resnet_padded"]
    variables = random_variables(model, (12, 12, 3))
    other = random_variables(NETWORKS["resnet_basic"], (12, 12, 3))
    for wrong, named in (
        ({"params": variables["params"]}, r"batch_stats/stage1_block1/bn1/mean"),
        ({"batch_stats": variables["batch_stats"]}, r"params/head/bias"),
        ({**variables, "ema": {"x": np.ones(1)}}, r"1 \(ema/x\)"),
        (variables["params"], r"batch_stats/"),
        (other, r"batch_stats/stage2_block1/downsample_bn/mean"),
    ):
        with pytest.raises(WeightsError, match=f"not those of this ResNet: .*{named}"):
            zoo.fold_batchnorm(model, wrong)


def test_a_network_that_changes_with_its_images_is_not_run_wrongly():
    model = Changing(10)
    folded, weights = zoo.fold_batchnorm(model, random_variables(model, (1, 1, 3)))
    assert folded.apply(weights, np.ones((2, 1, 1, 3), "f4"), train=False).shape == (2, 10)
    with pytest.raises(ValueError, match=r"\[2, 3, 3, 3\] Changing does not have bn where"):
        folded.apply(weights, np.ones((2, 3, 3, 3), "f4"), train=False)


WHOLE = (
    "vgg11_bn",
    "resnet50_v1",
    "resnet50_v2",
    "googlenet",
    "inception_v3",
    "inception_v4",
    "inception_resnet_v2",
    "xception",
    "mobilenet_v1_050",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_v2_s",
)


def test_every_family_is_tested():
    assert {MODELS[name].module for name in (*WHOLE, *WITHOUT_NORM)} == {
        entry.module for entry in MODELS.values()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks_are_equal(name):
    model = zoo.create_model(name)
    size = model.smallest_image if model.smallest_image > 1 else 32
    images = np.random.default_rng(1).normal(size=(1, size, size, 3)).astype("f4")
    variables = random_variables(model, images.shape[1:])
    folded, _ = check_equal(model, variables, images, 1e-4)
    stays = norms_of(variables) - {*folded.folds.values()}
    assert {norm.rsplit("/")[-1] for norm in stays} == (
        {"preact_bn", "final_bn"} if name == "resnet50_v2" else set()
    )
    if name == "resnet50_v2":  # has both kinds
        with jax.enable_x64(True):
            exact = jax.tree.map(lambda x: x.astype("f8"), variables)
            check_equal(model, exact, images.astype("f8"), 1e-9)
