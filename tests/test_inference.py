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
from zoo.ops import onednn_inference, plain
from zoo.ops.onednn_inference import ACTIVATIONS, Convolution, convolve, images_at_a_time, pack
from zoo.ops.plain import make_window
from zoo.ops.pointwise import rectify

QUIET = 1e-5  # of the largest logit


def logits_of(model, variables, images):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


def record(monkeypatch):
    """Notes what is convolved, call by call, and packed from now on."""
    calls, packed = [], []

    def convolve(x, convolutions, operands, images):
        calls.append((images, convolutions))
        return onednn_inference.convolve(x, convolutions, operands, images)

    def pack(kernel, *args):
        packed.append(kernel.shape)
        return onednn_inference.pack(kernel, *args)

    class Recorded:
        ACTIVATIONS, images_at_a_time = ACTIVATIONS, staticmethod(images_at_a_time)

    Recorded.convolve, Recorded.pack = staticmethod(convolve), staticmethod(pack)
    monkeypatch.setattr(inference, "onednn_inference", Recorded)
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
    done = [convolution for _, chain in calls for convolution in chain]
    kinds = sorted((c.activation.__name__ if c.activation else "", c.adds) for c in done)
    # The stem and two convolutions of each block, its last one, and its shortcut.
    assert kinds == [("", False)] * 2 + [("rectify", True)] * 2 + [("relu", False)] * 5
    assert sorted(len(chain) for _, chain in calls) == [1, 1, 1, 3, 3]  # those of a block are one
    assert len(packed) == 9
    np.testing.assert_array_equal(run(images), first)
    assert len(packed) == 9  # once for all calls
    run(images[:1])
    assert len(packed) == 18  # and for each shape


def test_weights_of_numpy_are_as_good(use_onednn, monkeypatch):
    calls, packed = record(monkeypatch)
    model = zoo.create_model("lenet5")  # without BatchNorm, so that they come back as they are
    images = np.ones((2, 32, 32, 1), np.float32)
    variables = jax.device_get(random_variables(model, images.shape[1:]))
    found = for_inference(model, variables)(images)
    np.testing.assert_allclose(found, logits_of(model, variables, images), rtol=1e-4, atol=1e-5)
    assert sum(len(chain) for _, chain in calls) == len(packed) > 0


def convolved(x, kernel, bias, convolution, addend=None):
    """The same by XLA."""
    y = bias + plain.forward(x, kernel, window=convolution.window)
    y = y if addend is None else y + addend
    return y if convolution.activation is None else convolution.activation(y)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("adds", [False, True])
def test_a_convolution_and_what_follows(activation, adds):
    rng = np.random.default_rng(0)
    window = make_window((9, 8), (3, 3), 2, ((1, 1), (1, 0)), groups=2)
    x, kernel, bias = (
        jnp.asarray(3 * rng.normal(size=size), jnp.float32)
        for size in ((2, 9, 8, 8), (3, 3, 4, 6), (6,))
    )
    addend = [jnp.asarray(rng.normal(size=(2, *window.out, 6)), jnp.float32)] if adds else []
    what = Convolution(kernel.shape, window, activation, adds)
    operands = [[pack(kernel, what, 2), bias, *addend]]
    found = jax.jit(lambda x, operands: convolve(x, [what], operands, 2))(x, operands)
    wanted = convolved(x, kernel, bias, what, *addend)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("images", [1, 2, 6])
def test_a_chain_of_convolutions_takes_a_few_images_at_a_time(images):
    rng = np.random.default_rng(0)

    def draw(*size):
        return jnp.asarray(rng.normal(size=size), jnp.float32)

    point = make_window((7, 7), (1, 1), 1, "VALID")
    chain = [
        Convolution((1, 1, 8, 16), point, nn.relu),
        Convolution((3, 3, 1, 16), make_window((7, 7), (3, 3), 1, "SAME", groups=16), nn.silu),
        Convolution((1, 1, 16, 5), point, nn.hard_swish, adds=True),
        Convolution((1, 1, 5, 8), point, adds=True),
    ]
    x = draw(6, 7, 7, 8)
    kernels, biases = [draw(*c.kernel) for c in chain], [draw(c.kernel[3]) for c in chain]
    addends = [None, None, draw(6, 7, 7, 5), draw(6, 7, 7, 8)]
    wanted, operands = x, []
    for what, kernel, bias, addend in zip(chain, kernels, biases, addends, strict=True):
        wanted = convolved(wanted, kernel, bias, what, addend)
        operands.append([pack(kernel, what, images), bias] + ([] if addend is None else [addend]))
    found = jax.jit(lambda x, operands: convolve(x, chain, operands, images))(x, operands)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_large_maps_lie_between_few_images(use_onednn, monkeypatch):
    monkeypatch.setattr(onednn_inference, "_CACHE", 4 * 16 * 16 * 32 * 2)
    calls, _ = record(monkeypatch)
    model = zoo.create_model("mobilenet_v1", width_mult=0.5, num_classes=5)
    images = jax.random.normal(jax.random.key(0), (4, 64, 64, 3))
    variables = random_variables(model, images.shape[1:])
    found = for_inference(model, variables)(images)
    wanted = logits_of(model, variables, images)
    np.testing.assert_allclose(found, wanted, atol=QUIET * np.abs(wanted).max())
    # Large maps first; channels grow once more; the rest is small enough for all images.
    assert [images for images, _ in calls] == [1, 2, 4]
    assert sum(len(chain) for _, chain in calls) == 27


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
