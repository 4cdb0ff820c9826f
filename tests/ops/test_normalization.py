import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import pytest

from zoo.ops.normalization import BatchNorm, batch_norm_train

EPSILON = 1e-3


def inputs(shape=(6, 5, 4, 7), dtype=np.float64):
    draw = np.random.default_rng(0)
    # Means that differ from 0 and variances from 1, as after a convolution.
    x = draw.normal(2 * draw.normal(size=shape[-1]), 1 + draw.random(shape[-1]), shape)
    scale, bias = draw.normal(size=(2, shape[-1]))
    return tuple(jnp.asarray(a, dtype) for a in (x, scale, bias))


def flax_norm(x, scale, bias, axis_name=None, **fields):
    """What flax's own layer returns and averages: y, mean, var."""
    layer = nn.BatchNorm(
        use_running_average=False, momentum=0.0, epsilon=EPSILON, axis_name=axis_name, **fields
    )
    stats = {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    y, updated = layer.apply(variables, x, mutable=["batch_stats"])
    return y, updated["batch_stats"]["mean"], updated["batch_stats"]["var"]


def ours(x, scale, bias, **options):
    return batch_norm_train(x, scale, bias, EPSILON, **options)


def pulled_back(function, arguments, seed=1):
    """The gradients of a random sum of all outputs."""

    def total(*arguments):
        out = function(*arguments)
        draw = np.random.default_rng(seed)
        return sum(jnp.vdot(draw.normal(size=o.shape), o.astype(jnp.float32)) for o in out)

    def total64(*arguments):
        out = function(*arguments)
        draw = np.random.default_rng(seed)
        return sum(jnp.vdot(draw.normal(size=o.shape), o) for o in out)

    double = arguments[0].dtype == np.float64
    return jax.grad(total64 if double else total, range(len(arguments)))(*arguments)


def close(got, wanted, limit):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.abs(a - b).max() <= limit * np.abs(b).max()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("wrap", "shape"), [(jax.jit, (6, 5, 4, 7)), (jax.jit, (9, 3)), (jax.remat, (6, 5, 4, 7))]
)
def test_values_and_all_gradients_are_flax(x64, wrap, shape):
    arguments = inputs(shape)

    def both(norm):
        return jax.jit(lambda *a: (norm(*a), pulled_back(norm, a)))(*arguments)

    close(both(wrap(ours)), both(flax_norm), 1e-9)


def test_gradients_of_gradients_are_flax(x64):
    x, scale, bias = inputs((5, 3))

    def bumpiness(function, x):
        return jnp.square(jax.grad(lambda x: jnp.sin(function(x, scale, bias)[0]).sum())(x)).sum()

    got, wanted = (jax.jit(jax.grad(functools.partial(bumpiness, f)))(x) for f in (ours, flax_norm))
    close(got, wanted, 1e-9)


def test_vmap_normalises_each_by_itself_or_together(x64):
    x, scale, bias = inputs((4, 6, 3))
    got, wanted = (
        jax.jit(jax.vmap(f, in_axes=(0, None, None)))(x, scale, bias) for f in (ours, flax_norm)
    )
    close(got, wanted, 1e-9)

    def each(norm):
        def values_and_gradients(*arguments):
            norm_of = functools.partial(norm, axis_name="rows")
            # Gradients within what is mapped, as in training.
            return norm_of(*arguments), pulled_back(norm_of, arguments)

        mapped = jax.vmap(values_and_gradients, in_axes=(0, None, None), axis_name="rows")
        return jax.jit(mapped)

    close(each(ours)(x, scale, bias), each(flax_norm)(x, scale, bias), 1e-9)


@pytest.mark.parametrize(
    ("axes", "groups"), [("group", None), (("data", "group"), None), ("group", [[0], [1]])]
)
def test_devices_that_share_statistics_get_flax_gradients(x64, devices, axes, groups):
    mesh = Mesh(np.asarray(devices[:4]).reshape(2, 2), ("data", "group"))
    x, scale, bias = inputs((8, 3, 5))
    whole, rows = PartitionSpec(), PartitionSpec(("data", "group"))

    def on_devices(norm):
        def body(x, scale, bias, dy):
            def total(*arguments):
                y, _, _ = norm(*arguments, axis_name=axes, axis_index_groups=groups)
                return jnp.vdot(y, dy)

            dx, *others = jax.grad(total, (0, 1, 2))(x, scale, bias)
            return dx, lax.psum(others, ("data", "group"))

        return jax.jit(
            jax.shard_map(
                body,
                mesh=mesh,
                in_specs=(rows, whole, whole, rows),
                out_specs=(rows, whole),
                check_vma=False,
            )
        )

    dy = inputs((8, 3, 5))[0][::-1]
    close(on_devices(ours)(x, scale, bias, dy), on_devices(flax_norm)(x, scale, bias, dy), 1e-9)


def test_half_precision_keeps_its_input_and_sums_in_float32():
    x, scale, bias = inputs((64, 8, 8, 3), np.float32)
    x = x.astype(jnp.bfloat16)
    out = ours(x, scale, bias, dtype=jnp.bfloat16)
    assert [o.dtype for o in out] == [jnp.bfloat16, jnp.float32, jnp.float32]
    close(out, flax_norm(x, scale, bias, dtype=jnp.bfloat16), 1e-2)
    # The sums of 4,096 rows; in bfloat16 they would be off by percents.
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(out[1], wide.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(out[2], wide.var((0, 1, 2)), rtol=1e-4)
    _, back = jax.vjp(lambda x: ours(x, scale, bias, dtype=jnp.bfloat16)[0], x)
    kept = [a for a in jax.tree.leaves(back) if a.size >= x.size]
    assert [a.dtype for a in kept] == [jnp.bfloat16]


def test_a_constant_channel_stays_finite():
    x = jnp.full((4, 2, 2, 3), 7.0)
    out, back = jax.vjp(ours, x, jnp.ones(3), jnp.zeros(3))
    assert np.all(np.asarray(out[2]) == 0)
    assert all(np.isfinite(g).all() for g in back(jax.tree.map(jnp.ones_like, out)))


def test_the_layer_has_flax_variables_averages_and_evaluation():
    x = inputs((4, 6, 3), np.float32)[0].astype(jnp.bfloat16)
    mine, theirs = (
        functools.partial(norm, momentum=0.9, dtype=jnp.bfloat16)
        for norm in (BatchNorm, nn.BatchNorm)
    )
    draw, zero = nn.initializers.normal(1.0), nn.initializers.zeros
    variables, others = (
        norm(use_running_average=False, scale_init=draw, bias_init=zero).init(jax.random.key(1), x)
        for norm in (mine, theirs)
    )
    assert jax.tree.structure(variables) == jax.tree.structure(others)
    jax.tree.map(np.testing.assert_array_equal, variables, others)
    (y, updated), (wanted, averages) = (
        norm(use_running_average=False).apply(variables, x, mutable=["batch_stats"])
        for norm in (mine, theirs)
    )
    close(y, wanted, 1e-2)
    close(updated, averages, 1e-6)
    moved = {**variables, **averages}
    y, wanted = (norm(use_running_average=True).apply(moved, x) for norm in (mine, theirs))
    close(y, wanted, 0)


def test_what_it_does_not_do_is_refused():
    x = jnp.zeros((2, 3))
    for fields, call in (
        ({"use_bias": False}, {}),
        ({"axis": 0}, {}),
        ({"use_fast_variance": False}, {}),
        ({}, {"mask": jnp.ones((2, 1), bool)}),
    ):
        name = next(iter(fields or call))
        with pytest.raises(ValueError, match=rf"{name}=.*flax\.linen\.BatchNorm"):
            BatchNorm(use_running_average=False, **fields).init(jax.random.key(0), x, **call)
