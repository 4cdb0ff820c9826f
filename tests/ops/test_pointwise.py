import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import pytest

from zoo.layers import Conv
from zoo.ops.normalization import BatchNorm, batch_norm_train, norm_after
from zoo.ops.pointwise import pointwise_norm_train, rectify

EPSILON = 1e-3


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def inputs(rows=(8, 3, 2), features=4, wide=9, dtype=np.float64):
    draw = np.random.default_rng(0)
    x = np.maximum(draw.normal(0.3, 1, (*rows, features)), 0)  # as behind a ReLU
    kernel = draw.normal(size=(features, wide))
    scale, bias = draw.normal(size=(2, wide))
    return tuple(jnp.asarray(a, dtype) for a in (x, kernel, scale, bias))


def plain(x, kernel, scale, bias, **options):
    """The convolution, then flax's layer."""
    layer = nn.BatchNorm(
        use_running_average=False, momentum=0.0, epsilon=EPSILON, dtype=x.dtype, **options
    )
    stats = {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    y, updated = layer.apply(variables, x @ kernel.astype(x.dtype), mutable=["batch_stats"])
    return y, updated["batch_stats"]["mean"], updated["batch_stats"]["var"]


def ours(*arguments, **options):
    return pointwise_norm_train(*arguments, EPSILON, **options)


def values_and_gradients(function, *arguments):
    """The gradients of a random sum of all outputs, and these; to be compiled as one."""

    def total(*arguments):
        draw, out = np.random.default_rng(1), function(*arguments)
        return sum(jnp.vdot(draw.normal(size=o.shape), o) for o in out), out

    return jax.grad(total, range(len(arguments)), has_aux=True)(*arguments)


def of(function):
    return functools.partial(values_and_gradients, function)


def close(got, wanted, limit=1e-9):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.abs(np.asarray(a - b)).max() <= limit * np.abs(np.asarray(b)).max()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.remat])
def test_it_is_the_convolution_and_then_flax(x64, wrap):
    arguments = inputs()
    close(jax.jit(of(wrap(ours)))(*arguments), jax.jit(of(plain))(*arguments))


def test_vmap_keeps_each_by_itself(x64):
    x, *others = inputs()
    axes = (0, None, None, None)
    got, wanted = (jax.jit(jax.vmap(of(f), axes))(x, *others) for f in (ours, plain))
    close(got, wanted)


def test_devices_that_share_statistics_get_flax_gradients(x64, devices):
    mesh = Mesh(np.asarray(devices[:4]).reshape(2, 2), ("data", "group"))
    x, *others = inputs()
    whole, rows = PartitionSpec(), PartitionSpec(("data", "group"))

    def on_devices(norm):
        def body(x, dy, *others):
            def total(*arguments):
                return jnp.vdot(norm(*arguments, axis_name="group")[0], dy)

            dx, *gradients = jax.grad(total, range(4))(x, *others)
            return dx, lax.psum(gradients, ("data", "group"))

        specs = (rows, rows, whole, whole, whole)
        out = (rows, whole)
        return jax.jit(
            jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
        )

    dy = jnp.asarray(np.random.default_rng(2).normal(size=(8, 3, 2, 9)))
    close(on_devices(ours)(x, dy, *others), on_devices(plain)(x, dy, *others))


def test_half_precision_is_no_further_from_the_truth_than_two_layers():
    arguments = inputs((64, 7, 7), 32, 128, np.float32)
    half = (arguments[0].astype(jnp.bfloat16), *arguments[1:])

    def two_layers(x, kernel, scale, bias):
        return batch_norm_train(x @ kernel.astype(x.dtype), scale, bias, EPSILON, dtype=x.dtype)

    exact = (half[0].astype(jnp.float32), half[1].astype(jnp.bfloat16).astype(jnp.float32))

    truth = jax.jit(of(plain))(*exact, *half[2:])

    def errors(got):
        return [
            float(jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b))
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(truth), strict=True)
        ]

    mine, theirs = (errors(jax.jit(of(f))(*half)) for f in (ours, two_layers))
    # dx, dkernel, dscale, dbias; y, mean, var.
    assert all(m <= 1.5 * t + 1e-5 for m, t in zip(mine, theirs, strict=True)), (mine, theirs)
    assert max(mine) < 0.01


def test_the_product_is_not_kept():
    x, *others = inputs(dtype=np.float32)
    _, back = jax.vjp(lambda *a: ours(*a)[0], x.astype(jnp.bfloat16), *others)
    kept = [a.shape for a in jax.tree.leaves(back) if a.ndim == x.ndim]
    assert kept == [x.shape]


def test_rectify_is_relu_and_keeps_its_result():
    x = jnp.array([-1.5, -0.0, 0.0, 2.0, jnp.nan])
    dy = jnp.arange(1.0, 6.0)
    (y, back), (wanted, reference) = jax.vjp(rectify, x), jax.vjp(nn.relu, x)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(back(dy)[0][:4], reference(dy)[0][:4])


class Block(nn.Module):
    fused: bool
    train: bool
    dtype: jnp.dtype = jnp.bfloat16
    features: int = 8
    strides: int = 1

    @nn.compact
    def __call__(self, x):
        conv = Conv(self.features, 1, self.strides, dtype=self.dtype, name="conv")
        norm = BatchNorm(use_running_average=not self.train, dtype=self.dtype, name="bn")
        return norm_after(norm, conv, x) if self.fused else norm(conv(x))


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"train": True}, False),
        ({"train": False}, True),
        ({"train": True, "dtype": jnp.float32}, True),
        ({"train": True, "features": 4}, True),
        ({"train": True, "strides": 2}, True),
    ],
)
def test_the_layer_takes_the_convolution_in_where_it_widens(fields, same):
    x = inputs((4, 6, 6), 4, dtype=np.float32)[0]
    one, two = Block(True, **fields), Block(False, **fields)
    variables, others = (jax.jit(net.init)(jax.random.key(0), x) for net in (one, two))
    jax.tree.map(np.testing.assert_array_equal, variables, others)
    (y, updated), (wanted, averages) = (
        jax.jit(functools.partial(net.apply, mutable=["batch_stats"]))(variables, x)
        for net in (one, two)
    )
    assert y.dtype == wanted.dtype
    called = []

    def watch(call, arguments, options, context):
        called.append(context.module.name)
        return call(*arguments, **options)

    with nn.intercept_methods(watch):
        jax.eval_shape(functools.partial(one.apply, mutable=["batch_stats"]), variables, x)
    assert ("conv" in called) == same
    limit = 0 if same else 0.02
    for a, b in zip(
        jax.tree.leaves((y, updated)), jax.tree.leaves((wanted, averages)), strict=True
    ):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.abs(a - b).max() <= limit * np.abs(b).max()
