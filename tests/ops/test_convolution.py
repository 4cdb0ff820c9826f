"""Every way to compute a convolution, compared with XLA's own, with both gradients."""

from concurrent.futures import ThreadPoolExecutor
import functools
import itertools

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import pytest

from zoo.ops import onednn, onednn_library, plain, xla_cpu
from zoo.ops.convolution import conv2d
from zoo.ops.plain import make_window
from zoo.ops.pooling import max_pool2d

PADDINGS = {"VALID": "VALID", "SAME": "SAME", "uneven": ((0, 1), (2, 1))}
# Kernel, strides, groups, dilation: each form of xla_cpu, each kind of kernel of oneDNN.
SHAPES = [
    *itertools.product((1, 3), (1, 2), (1,), (1,)),
    *itertools.product((3, 5), (1, 2), (6,), (1,)),
    *((3, 3, 1, 1), (5, 2, 1, 1), (3, 1, 2, 1), (3, 2, 3, 1), (1, 2, 2, 1), (1, 1, 6, 1)),
    *((3, 1, 1, 2), (3, 2, 1, 3), (3, 1, 6, 2), (3, 2, 6, 2), (3, 1, 2, 2)),
]
CASES = [
    (kernel, strides, groups, dilation, padding)
    for kernel, strides, groups, dilation in SHAPES
    for padding in PADDINGS
    if kernel > 1 or padding != "uneven"
]


def arrays(kernel, strides, groups, padding, dilation=1, dtype=np.float32, batch=2):
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(batch, 9, 8, 6)), dtype)
    w = jnp.asarray(draw.normal(size=(kernel, kernel, 6 // groups, 12 if groups < 6 else 6)), dtype)
    window = make_window(x.shape[1:3], w.shape[:2], strides, PADDINGS[padding], groups, dilation)
    g = jnp.asarray(draw.normal(size=(batch, *window.out, w.shape[3])), dtype)
    return x, w, g, window


def products(x, w, g, window, module):
    """The three products by the functions of a module."""
    return (
        module.forward(x, w, window=window),
        module.input_gradient(g, w, window=window),
        module.kernel_gradient(x, g, window=window),
    )


def ours(x, w, g, window):
    """The same by `conv2d` and its gradients, as whoever is chosen computes them."""
    convolve = functools.partial(
        conv2d,
        strides=window.strides,
        padding=window.padding,
        groups=window.groups,
        dilation=window.dilation,
    )
    y, pull_back = jax.vjp(convolve, x, w)
    return y, *pull_back(g)


def assert_close(got, wanted, limit):
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.abs(a - b).max() <= limit * np.abs(b).max()


# Every shape in float64, where only rounding could differ; others where they might.
OTHER_TYPES = [
    (shape, dtype)
    for shape in ((1, 2, 1, 1), (3, 1, 1, 1), (3, 2, 6, 1))
    for dtype in (np.float32, jnp.bfloat16)
]


EXACT = [
    (s, np.float64) if i % 3 == 0 else pytest.param(s, np.float64, marks=pytest.mark.slow)
    for i, s in enumerate(SHAPES)
]


@pytest.mark.parametrize(("shape", "dtype"), [*EXACT, *OTHER_TYPES])
def test_forms_for_the_cpu_equal_xlas_convolution(shape, dtype):
    limit = {np.float32: 1e-5, np.float64: 1e-13, jnp.bfloat16: 0.03}[dtype]
    kernel, strides, groups, dilation = shape
    with jax.enable_x64(dtype == np.float64):
        for padding in PADDINGS if kernel > 1 else ("VALID",):
            *of, window = arrays(kernel, strides, groups, padding, dilation, dtype)
            wanted = jax.jit(functools.partial(products, window=window, module=plain))(*of)
            got = jax.jit(functools.partial(products, window=window, module=xla_cpu))(*of)
            assert_close(got, wanted, limit)


@pytest.mark.parametrize(("kernel", "strides", "groups", "dilation", "padding"), CASES)
def test_onednn_equals_xlas_convolution(kernel, strides, groups, dilation, padding, use_onednn):
    *of, window = arrays(kernel, strides, groups, padding, dilation)
    run = jax.jit(functools.partial(ours, window=window))
    assert run.lower(*of).as_text().count(onednn.TARGET) == 3
    wanted = jax.jit(functools.partial(products, window=window, module=plain))(*of)
    assert_close(run(*of), wanted, 1e-5)


def test_derivatives_of_derivatives_in_both_modes():
    x, w, _, window = arrays(3, 2, 1, "SAME")

    def energy(convolve):
        return lambda w: jnp.sum(convolve(x, w) ** 3)

    mine = functools.partial(conv2d, strides=2, padding="SAME")
    theirs = functools.partial(plain.forward, window=window)
    direction = jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape)
    for derive in (
        lambda f: jax.jvp(f, (w,), (direction,)),
        lambda f: jax.jvp(jax.grad(f), (w,), (direction,)),
        lambda f: jax.vjp(jax.grad(f), w)[1](direction),
        lambda f: [jax.grad(lambda w: jnp.sum(jax.jvp(f, (w,), (direction,))[1]))(w)],
    ):
        assert_close(derive(energy(mine)), derive(energy(theirs)), 1e-5)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 3)])
def test_mapped_as_xlas_convolution(axes):
    *of, window = arrays(3, 2, 1, "SAME", batch=1)
    x, w = (
        jnp.stack([a, 2 * a, -a], i) if i is not None else a
        for a, i in zip(of[:2], axes, strict=True)
    )
    mine = functools.partial(conv2d, strides=2, padding="SAME")
    theirs = functools.partial(plain.forward, window=window)

    def gradients(convolve):
        def total(x, w):
            return jnp.sum(convolve(x, w) ** 2)

        return jax.vmap(jax.grad(total, (0, 1)), axes)(x, w)

    assert_close([jax.vmap(mine, axes)(x, w)], [jax.vmap(theirs, axes)(x, w)], 1e-5)
    assert_close(gradients(mine), gradients(theirs), 1e-5)


def kernel_gradient_by_rows(x, w, window, *, check):
    """The gradient of sum(y^2) with each device on its rows: the mapped function, what is right."""
    mesh = Mesh(np.array(jax.devices()[:2]), "data")
    rows, whole = PartitionSpec("data"), PartitionSpec()

    def gradient(x, w):
        found = jax.grad(lambda w: jnp.sum(conv2d(x, w, padding="SAME") ** 2))(w)
        return found if check else lax.psum(found, "data")  # which a check does by itself

    mapped = jax.jit(
        jax.shard_map(gradient, mesh=mesh, in_specs=(rows, whole), out_specs=whole, check_vma=check)
    )
    y = plain.forward(x, w, window=window)
    return mapped, plain.kernel_gradient(x, 2 * y, window=window)


@pytest.mark.parametrize("check", [True, False])
def test_each_device_of_a_shard_map_on_its_rows(check, use_onednn):
    x, w, _, window = arrays(3, 1, 1, "SAME", batch=4)
    mapped, wanted = kernel_gradient_by_rows(x, w, window, check=check)
    assert onednn.TARGET in mapped.lower(x, w).as_text()
    assert_close([mapped(x, w)], [wanted], 1e-5)


def test_what_the_compiler_splits_over_devices_is_left_to_it(use_onednn):
    x, w, *_ = arrays(3, 1, 1, "SAME", batch=4)
    mesh = Mesh(np.array(jax.devices()[:2]), "data")
    x = jax.device_put(x, jax.NamedSharding(mesh, PartitionSpec("data")))
    w = jax.device_put(w, jax.NamedSharding(mesh, PartitionSpec()))
    run = jax.jit(functools.partial(conv2d, padding="SAME"))
    assert onednn.TARGET not in run.lower(x, w).as_text()
    assert run(x, w).sharding.spec == PartitionSpec("data")


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_exported_for_any_number_of_images(platform):
    def net(x, w, deep):
        x = max_pool2d(conv2d(conv2d(x, w, strides=2), deep, groups=12), 3, 1, "SAME")
        return x.mean((1, 2))

    x, w, *_ = arrays(3, 1, 1, "VALID")
    batch = jax.export.symbolic_shape("b, 9, 8, 6")
    deep = jnp.ones((3, 3, 1, 12))
    exported = jax.export.export(jax.jit(net), platforms=[platform])(
        jax.ShapeDtypeStruct(batch, x.dtype), w, deep
    )
    if platform == "cpu":
        assert_close([exported.call(x, w, deep)], [net(x, w, deep)], 1e-5)


def test_gradients_where_shardings_are_part_of_types():
    x, w, *_ = arrays(3, 1, 1, "SAME", batch=4)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        rows = jax.device_put(x, jax.NamedSharding(mesh, PartitionSpec("data")))

        got = jax.jit(jax.grad(lambda w: jnp.sum(conv2d(rows, w, padding="SAME") ** 2)))(w)
    wanted = jax.grad(lambda w: jnp.sum(conv2d(x, w, padding="SAME") ** 2))(w)
    assert_close([got], [wanted], 1e-5)


def test_what_is_exported_has_the_form_of_each_platform(use_onednn):
    x, w, *_ = arrays(3, 1, 6, "SAME")
    run = jax.jit(functools.partial(conv2d, padding="SAME", groups=6))
    text = {
        platform: jax.export.export(run, platforms=[platform], disabled_checks=_any_call())(x, w)
        for platform in ("cpu", "tpu")
    }
    assert onednn.TARGET in text["cpu"].mlir_module()
    assert "stablehlo.convolution" in text["tpu"].mlir_module()
    assert onednn.TARGET not in text["tpu"].mlir_module()


def _any_call():
    return [jax.export.DisabledSafetyCheck.custom_call(onednn.TARGET)]


def test_several_threads_at_once(use_onednn):
    *of, window = arrays(3, 1, 1, "SAME", batch=16)
    run = jax.jit(functools.partial(ours, window=window)).lower(*of).compile()
    wanted = [np.asarray(a) for a in run(*of)]
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: run(*of), range(64)):
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(a, b)


def test_what_onednn_refuses_is_the_error_of_the_program(use_onednn, monkeypatch):
    def refuse(*_):
        raise onednn.OneDNNError("no such convolution")

    monkeypatch.setattr(onednn, "_product", refuse)
    x, w, *_ = arrays(3, 1, 1, "SAME")
    with pytest.raises(jax.errors.JaxRuntimeError, match="OneDNNError: no such convolution"):
        jax.block_until_ready(jax.jit(functools.partial(conv2d, padding=((2, 2), (2, 2))))(x, w))


def test_without_the_package_nothing_changes(monkeypatch):
    monkeypatch.setattr(onednn_library, "PACKAGE", "not-a-package")
    onednn_library.library.cache_clear()
    with pytest.raises(onednn.OneDNNError, match="pip install 'zoo\\[cpu\\]'"):
        onednn.enable()
    assert not onednn.enabled() and not onednn.installed()
    onednn_library.library.cache_clear()


@pytest.mark.parametrize(
    ("x", "w", "options", "problem"),
    [
        ((1, 8, 8, 4), (3, 3, 3, 8), {}, "kernel .3, 3, 3, 8. in 1 groups does not fit"),
        ((1, 8, 8, 4), (3, 3, 2, 7), {"groups": 2}, "in 2 groups does not fit"),
    ],
)
def test_what_does_not_fit_is_named(x, w, options, problem):
    with pytest.raises(ValueError, match=problem):
        conv2d(jnp.ones(x), jnp.ones(w), **options)
