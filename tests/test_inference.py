"""A network prepared for inference computes what it computed before, in fewer operations."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_folding import NETWORKS, images_for, random_variables
import zoo
from zoo import inference
from zoo.inference import for_inference
from zoo.ops import onednn_inference
from zoo.ops.onednn_inference import ACTIVATIONS, convolve, pack
from zoo.ops.plain import make_window
from zoo.ops.pointwise import rectify

QUIET = 1e-5  # of the largest logit


def logits_of(model, variables, images):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


def record(monkeypatch):
    """Notes what is convolved and packed from now on."""
    convolved, packed = [], []

    def convolve(*args, activation, **kwargs):
        convolved.append((activation, args[3] is not None))
        return onednn_inference.convolve(*args, activation=activation, **kwargs)

    def pack(kernel, *args):
        packed.append(kernel.shape)
        return onednn_inference.pack(kernel, *args)

    class Recorded:
        ACTIVATIONS = ACTIVATIONS

    Recorded.convolve, Recorded.pack = staticmethod(convolve), staticmethod(pack)
    monkeypatch.setattr(inference, "onednn_inference", Recorded)
    return convolved, packed


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
    convolved, packed = record(monkeypatch)
    model = NETWORKS["resnet_bottleneck"]  # two blocks, each with a shortcut of its own
    images = images_for(model)
    run = for_inference(model, random_variables(model, images.shape[1:]))
    first = run(images)
    kinds = sorted((f.__name__ if f else "", adds) for f, adds in convolved)
    # The stem and two convolutions of each block, its last one, and its shortcut.
    assert kinds == [("", False)] * 2 + [("rectify", True)] * 2 + [("relu", False)] * 5
    assert len(packed) == 9
    np.testing.assert_array_equal(run(images), first)
    assert len(packed) == 9  # once for all calls
    run(images[:1])
    assert len(packed) == 18  # and for each shape


def test_weights_of_numpy_are_as_good(use_onednn, monkeypatch):
    convolved, packed = record(monkeypatch)
    model = zoo.create_model("lenet5")  # without BatchNorm, so that they come back as they are
    images = np.ones((2, 32, 32, 1), np.float32)
    variables = jax.device_get(random_variables(model, images.shape[1:]))
    found = for_inference(model, variables)(images)
    np.testing.assert_allclose(found, logits_of(model, variables, images), rtol=1e-4, atol=1e-5)
    assert len(convolved) == len(packed) > 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("adds", [False, True])
def test_a_convolution_and_what_follows(activation, adds):
    rng = np.random.default_rng(0)
    window = make_window((9, 8), (3, 3), 2, ((1, 1), (1, 0)), groups=2)
    x, kernel, bias = (
        jnp.asarray(3 * rng.normal(size=size), jnp.float32)
        for size in ((2, 9, 8, 8), (3, 3, 4, 6), (6,))
    )
    addend = jnp.asarray(rng.normal(size=(2, *window.out, 6)), jnp.float32) if adds else None
    packed = pack(kernel, 2, window)
    options = {"kernel_shape": kernel.shape, "window": window, "activation": activation}
    found = jax.jit(functools.partial(convolve, **options))(x, packed, bias, addend)
    wanted = bias + jax.lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    wanted = wanted if addend is None else wanted + addend
    wanted = wanted if activation is None else activation(wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_activations_are_known_by_what_they_compute():
    def other(x):  # looks like one of them from outside
        return jnp.maximum(x, 1.0)

    x = jnp.ones((2, 3))
    for f in (nn.relu, nn.relu6, nn.silu, nn.hard_swish, rectify):
        assert inference._activation(jax.make_jaxpr(f)(x).jaxpr.eqns[0]) is f
    for f in (nn.gelu, nn.sigmoid, jax.jit(other), jax.custom_jvp(other)):
        if isinstance(f, jax.custom_jvp):
            f.defjvp(lambda x, t: (x[0], t[0]))
        assert inference._activation(jax.make_jaxpr(f)(x).jaxpr.eqns[0]) is None


def test_elsewhere_it_is_the_folded_network(devices, monkeypatch, use_onednn):
    model = NETWORKS["resnet_padded"]
    images = np.concatenate([images_for(model)] * 4)
    variables = random_variables(model, images.shape[1:])
    wanted = logits_of(model, variables, images)
    convolved, _ = record(monkeypatch)
    run = for_inference(model, jax.device_put(variables, devices[0]))
    mesh = jax.sharding.Mesh(np.asarray(devices), "data")
    spread = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
    with pytest.raises(ValueError, match="incompatible devices"):
        run(spread)  # JAX's rule: weights lie on one of them
    np.testing.assert_allclose(jax.jit(run)(images), wanted, rtol=1e-4, atol=1e-4)
    assert not convolved
    np.testing.assert_allclose(run(images), wanted, rtol=1e-4, atol=1e-4)
    assert convolved


def test_wrong_variables_are_refused():
    model = zoo.create_model("resnet20")
    with pytest.raises(ValueError, match="not those of this"):
        for_inference(model, {"params": {}, "batch_stats": {}})
