"""A network prepared for inference computes what it computed before, in fewer operations."""

from collections import Counter
import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_folding import NETWORKS, images_for, random_variables
import zoo
from zoo.inference import for_inference
from zoo.layers import Classifier, Conv, avg_pool
from zoo.ops import onednn_inference, onednn_network, plain
from zoo.ops.onednn_inference import ACTIVATIONS, Step, compute, pack
from zoo.ops.plain import make_window

QUIET = 1e-5  # of the largest logit


def logits_of(model, variables, images):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


def record(monkeypatch):
    """Notes what is computed, call by call, and packed from now on."""
    calls, packed = [], []
    compute, pack = onednn_inference.compute, onednn_inference.pack

    def recorded_compute(maps, steps, constants, outputs, images):
        calls.append((images, steps))
        return compute(maps, steps, constants, outputs, images)

    def recorded_pack(kernel, *args):
        packed.append(kernel.shape)
        return pack(kernel, *args)

    monkeypatch.setattr(onednn_inference, "compute", recorded_compute)
    monkeypatch.setattr(onednn_inference, "pack", recorded_pack)
    return calls, packed


QUICK = ("resnet_bottleneck", "mobilenet_v3", "unfoldable")  # every kind of operation


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_it_is_the_same_network(name, use_onednn):
    model = NETWORKS[name]
    images = images_for(model)
    variables = random_variables(model, images.shape[1:])
    wanted = np.asarray(logits_of(model, variables, images))
    found = np.asarray(for_inference(model, variables)(images))
    assert np.abs(found - wanted).max() < QUIET * np.abs(wanted).max()


def test_what_follows_a_convolution_is_done_on_the_way(use_onednn, monkeypatch):
    calls, packed = record(monkeypatch)
    model = NETWORKS["resnet_bottleneck"]  # two blocks, each with a shortcut of its own
    images = images_for(model)
    run = for_inference(model, random_variables(model, images.shape[1:]))
    first = run(images)
    ((_, steps),) = calls  # all of the network is one
    kinds = Counter((step.kind, step.activation, len(step.sources)) for step in steps)
    assert kinds == {
        ("convolution", "relu", 1): 5,  # the stem and two convolutions of each block
        ("max_pool", "", 1): 1,
        ("convolution", "relu", 2): 2,  # the last of each block, to which the shortcut is added
        ("convolution", "", 1): 2,
        ("mean_pool", "", 1): 1,
    }
    assert len(packed) == 9
    np.testing.assert_array_equal(run(images), first)
    assert len(packed) == 9  # once for all calls
    run(images[:1])
    assert len(packed) == 18  # and for each shape
    assert run(images[:0]).shape == (0, *first.shape[1:])


def test_squeeze_excite_and_the_classifier_are_steps_as_well(use_onednn, monkeypatch):
    calls, _ = record(monkeypatch)
    model = NETWORKS["mobilenet_v3"]
    images = images_for(model)
    for_inference(model, random_variables(model, images.shape[1:]))(images)
    ((_, steps),) = calls
    assert {step.kind for step in steps} == {"convolution", "mean_pool", "scale"}
    assert steps[-1].shape == (1, 1, 1000)
    gates = [step for step in steps if step.activation == "hard_sigmoid"]
    assert gates
    assert all(step.shape[:2] == (1, 1) for step in gates)


def test_weights_of_numpy_are_as_good(use_onednn, monkeypatch):
    calls, packed = record(monkeypatch)
    model = zoo.create_model("lenet5")  # without BatchNorm, so that they come back as they are
    images = np.ones((2, 32, 32, 1), np.float32)
    variables = jax.device_get(random_variables(model, images.shape[1:]))
    found = for_inference(model, variables)(images)
    np.testing.assert_allclose(found, logits_of(model, variables, images), rtol=1e-4, atol=1e-5)
    kinds = [step.kind for _, steps in calls for step in steps]
    assert kinds.count("convolution") == len(packed) > 0


class Sums(Classifier):
    """Sums that are means, and such as look like them."""

    @nn.compact
    def endpoints(self, images, *, train):
        del train
        x = Conv(8, 3, name="conv")(images) + 1.0
        windows = (1, 3, 3, 1), (1, 1, 1, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, *windows)
        one = avg_pool(x, 3, 1, 1) + avg_pool(x, 3, 1, 1, count_include_pad=False)
        x = one + total / 8.0 + x.mean((1, 2), keepdims=True) + x.sum((1, 2), keepdims=True) / 5
        per_row = x * x.mean((2, 3), keepdims=True)
        return self.pool_and_classify(per_row, 0.0, train=False)


def test_means_are_told_from_other_sums(use_onednn, monkeypatch):
    calls, _ = record(monkeypatch)
    model, images = Sums(10), jax.random.normal(jax.random.key(0), (3, 9, 9, 3))
    variables = random_variables(model, images.shape[1:])
    found = for_inference(model, variables)(images)
    wanted = logits_of(model, variables, images)
    np.testing.assert_allclose(found, wanted, atol=QUIET * np.abs(wanted).max())
    kinds = Counter(step.kind for _, steps in calls for step in steps)
    assert (kinds["mean_pool"], kinds["mean_pool_inside"], kinds["scale"]) == (3, 1, 0)


def by_xla(step, sources, *constants):
    """The same as a step by XLA."""
    x, window = sources[0], step.window
    activation = {name: f for f, name in ACTIVATIONS.items()}.get(step.activation, lambda y: y)
    if step.kind == "convolution":
        kernel, bias = constants
        y = bias + plain.forward(x, kernel, window=window)
        return activation(sum(sources[1:], y))
    if step.kind == "max_pool":
        return nn.max_pool(x, window.kernel, window.strides, window.padding)
    if step.kind.startswith("mean_pool"):
        inside = step.kind == "mean_pool_inside"
        sizes = window.kernel, window.strides, window.padding
        return nn.avg_pool(x, *sizes, count_include_pad=not inside)
    if step.kind == "concatenate":
        return jnp.concatenate(sources, 3)
    return {"add": jnp.add, "scale": jnp.multiply, "activate": activation}[step.kind](*sources)


def draw(rng, *size):
    return jnp.asarray(2 * rng.normal(size=size), jnp.float32)


def check(maps, steps, outputs, images):
    """Compares the results of some steps with those of XLA."""
    rng = np.random.default_rng(1)
    values, constants = list(maps), []
    for step in steps:
        sources, given = [values[i] for i in step.sources], ()
        if step.kind == "convolution":
            window = step.window
            inputs = sources[0].shape[3] // window.groups
            given = draw(rng, *window.kernel, inputs, step.shape[2]), draw(rng, step.shape[2])
            constants += [pack(given[0], step, images), given[1]]
        values.append(by_xla(step, sources, *given))
    run = jax.jit(lambda *arrays: compute(arrays, steps, constants, outputs, images))
    found = run(*maps)
    assert len(found) == len(outputs)
    for y, i in zip(found, outputs, strict=True):
        assert y.shape[1:] == steps[i].shape
        np.testing.assert_allclose(y, values[len(maps) + i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["", *ACTIVATIONS.values()])
@pytest.mark.parametrize("adds", [False, True])
def test_a_convolution_and_what_follows(activation, adds):
    rng = np.random.default_rng(0)
    for sizes, channels in (((9, 8), 8), ((1, 1), 5)):  # the second is a product of matrices
        window = make_window(sizes, (1, 1), 1, "VALID")
        if channels == 8:
            window = make_window(sizes, (3, 3), 2, ((1, 1), (1, 0)), groups=2)
        maps = [draw(rng, 2, *sizes, channels), draw(rng, 2, *window.out, 6)][: 1 + adds]
        step = Step("convolution", (0, 1)[: 1 + adds], (*window.out, 6), window, activation)
        check(maps, [step], [0], 2)


@pytest.mark.parametrize("kind", ["max_pool", "mean_pool", "mean_pool_inside"])
def test_pooling(kind):
    for sizes, strides, padding in (((3, 3), 2, ((0, 1), (1, 1))), ((7, 6), 1, "VALID")):
        window = make_window((7, 6), sizes, strides, padding)
        x = draw(np.random.default_rng(0), 2, 7, 6, 5)
        check([x], [Step(kind, (0,), (*window.out, 5), window)], [0], 1)


@pytest.mark.parametrize("images", [1, 2, 6])
def test_steps_take_a_few_images_at_a_time(images):
    rng = np.random.default_rng(0)
    point, whole = make_window((7, 7), (1, 1), 1, "VALID"), make_window((7, 7), (7, 7), 1, "VALID")
    pixel = make_window((1, 1), (1, 1), 1, "VALID")
    around = make_window((7, 7), (3, 3), 1, "SAME")
    maps = [draw(rng, 6, 7, 7, 8), draw(rng, 6, 7, 7, 16)]
    wide, one = (7, 7, 16), (1, 1, 16)
    steps = [  # their results are 2, 3, ...
        Step("convolution", (0,), wide, point, "relu"),
        Step("convolution", (2, 1), wide, dataclasses.replace(around, groups=16), "silu"),
        Step("mean_pool", (3,), one, whole),
        Step("convolution", (4,), one, pixel, "sigmoid"),
        Step("scale", (3, 5), wide),
        Step("add", (6, 2), wide),
        Step("activate", (7,), wide, activation="hard_swish"),
        Step("max_pool", (8,), wide, around),
        Step("concatenate", (9, 8, 0), (7, 7, 40)),
        Step("convolution", (10,), (7, 7, 5), point),
    ]
    check(maps, steps, [9], images)
    check(maps, steps, [3, 6, 9], images)  # these are needed later


def test_results_share_places_when_they_are_no_longer_read():
    wide, one = (7, 7, 16), (1, 1, 16)
    steps = [
        Step("activate", (0,), wide, activation="relu"),  # 1
        Step("mean_pool", (1,), one),  # 2
        Step("scale", (1, 2), wide),  # 3: in the place of 1, not of its gate
        Step("max_pool", (3,), wide),  # 4: not in place
        Step("add", (4, 3), wide),  # 5, in either
        Step("activate", (5,), wide, activation="relu"),
    ]
    groups = onednn_inference._share(steps, [wide] + [step.shape for step in steps], [5])
    assert [sorted(group) for group in groups] == [[1, 3, 5], [2, 4]]


@pytest.mark.slow
def test_large_maps_lie_between_few_images(use_onednn, monkeypatch):
    monkeypatch.setattr(onednn_network, "_CACHE", 4 * 16 * 16 * 32 * 2)
    monkeypatch.setattr(onednn_network, "_STEP", 0.0)
    calls, _ = record(monkeypatch)
    model = zoo.create_model("mobilenet_v1", width_mult=0.5, num_classes=5)
    images = jax.random.normal(jax.random.key(0), (4, 64, 64, 3))
    variables = random_variables(model, images.shape[1:])
    found = for_inference(model, variables)(images)
    wanted = logits_of(model, variables, images)
    np.testing.assert_allclose(found, wanted, atol=QUIET * np.abs(wanted).max())
    # Maps become smaller, and kernels larger.
    assert [images for images, _ in calls] == [1, 2, 4]
    assert sum(len(steps) for _, steps in calls) == 29


def test_activations_are_known_by_what_they_compute():
    def other(x):  # looks like one of them from outside
        return jnp.maximum(x, 1.0)

    x = jnp.ones((2, 3))
    for f in ACTIVATIONS:
        assert onednn_network._activation(jax.make_jaxpr(f)(x).jaxpr.eqns[0]) is f
    for f in (nn.gelu, nn.tanh, jax.jit(other), jax.custom_jvp(other)):
        if isinstance(f, jax.custom_jvp):
            f.defjvp(lambda x, t: (x[0], t[0]))
        assert onednn_network._activation(jax.make_jaxpr(f)(x).jaxpr.eqns[0]) is None


def test_elsewhere_it_is_the_folded_network(devices, monkeypatch, use_onednn):
    model = NETWORKS["resnet_padded"]
    images = np.concatenate([images_for(model)] * 4)
    variables = random_variables(model, images.shape[1:])
    wanted = logits_of(model, variables, images)
    calls, _ = record(monkeypatch)
    run = for_inference(model, jax.device_put(variables, devices[0]))
    mesh = jax.sharding.Mesh(np.asarray(devices), "data")
    spread = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
    with pytest.raises(ValueError, match="incompatible devices"):
        run(spread)  # JAX's rule: weights lie on one of them
    np.testing.assert_allclose(jax.jit(run)(images), wanted, rtol=1e-4, atol=1e-4)
    assert not calls
    np.testing.assert_allclose(run(images), wanted, rtol=1e-4, atol=1e-4)
    assert calls


def test_wrong_variables_are_refused():
    model = zoo.create_model("resnet20")
    with pytest.raises(ValueError, match="not those of this"):
        for_inference(model, {"params": {}, "batch_stats": {}})
