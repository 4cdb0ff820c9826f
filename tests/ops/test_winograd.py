"""Convolutions of 3x3 by fewer multiplications, compared with XLA's in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ops.test_convolution import kernel_gradient_by_rows, products
import zoo
from zoo.inference import for_inference
from zoo.ops import onednn, onednn_product, plain, winograd
from zoo.ops.convolution import conv2d
from zoo.ops.plain import make_window

PADDINGS = {"VALID": "VALID", "SAME": "SAME", "full": ((2, 2), (2, 2)), "uneven": ((0, 2), (1, 0))}


def arrays(image=(9, 8), padding="SAME", batch=2, inside=6, out=12):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(batch, *image, inside)).astype(np.float32)
    kernel = draw.normal(size=(3, 3, inside, out)).astype(np.float32)
    window = make_window(image, (3, 3), 1, PADDINGS.get(padding, padding))
    g = draw.normal(size=(batch, *window.out, out)).astype(np.float32)
    return x, kernel, g, window


def found_by(module, *of):
    """The three products by the functions of a module."""
    *of, window = of
    return jax.jit(functools.partial(products, window=window, module=module))(*of)


def exact(*of):
    """The same in float64."""
    with jax.enable_x64(True):
        *of, window = of
        return found_by(plain, *(a.astype(np.float64) for a in of), window)


def errors(found, wanted):
    """Root mean squares of what is wrong, each by that of what is right."""
    pairs = [(np.asarray(a, np.float64), np.asarray(b)) for a, b in zip(found, wanted, strict=True)]
    return [np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)) for a, b in pairs]


@pytest.fixture
def always(use_onednn, monkeypatch):
    """Lets every convolution that suits be computed so, however small."""

    def pays(window, *sizes, **kwargs):
        return winograd.suits(window)

    monkeypatch.setattr(winograd, "pays", pays)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    "image",
    [(9, 8), *(pytest.param(size, marks=pytest.mark.slow) for size in ((4, 4), (3, 13), (16, 5)))],
)
def test_it_equals_xlas_convolution(image, padding):
    of = arrays(image, padding)
    found = found_by(winograd, *of)
    wanted = exact(*of)
    assert [a.shape for a in found] == [a.shape for a in wanted]
    assert max(errors(found, wanted)) < 1.5e-6


def test_it_rounds_as_float32_does():
    of = arrays((14, 14), inside=128, out=64)
    assert max(errors(found_by(winograd, *of), exact(*of))) < 1.5e-6


@pytest.mark.slow
def test_usual_points_would_round_more_coarsely(monkeypatch):
    of = arrays((14, 14), inside=128, out=64)
    mine = errors(found_by(winograd, *of), exact(*of))
    monkeypatch.setattr(winograd, "POINTS", (0, 1, -1, 2, -2))
    for name, matrix in zip(("_IMAGES", "_KERNELS", "_RESULTS"), winograd._matrices(), strict=True):
        monkeypatch.setattr(winograd, name, matrix.astype(np.float32))
    usual = errors(found_by(winograd, *of), exact(*of))
    assert all(b > 1.5 * a for a, b in zip(mine, usual, strict=True))


def test_transformations_are_exact_for_whole_numbers():
    images, kernels, results = winograd._matrices()
    rng = np.random.default_rng(0)
    d, k = rng.integers(-9, 9, 6), rng.integers(-9, 9, 3)
    found = results.T @ ((images @ d) * (kernels @ k))
    np.testing.assert_allclose(found, np.correlate(d, k, "valid"), atol=1e-11)


def test_many_images_are_taken_in_parts(monkeypatch):
    of = arrays(batch=5)
    whole = found_by(winograd, *of)
    monkeypatch.setattr(winograd, "_MOST", 2 * 6 * 36 * 12)  # two images of 6 tiles
    sizes = []

    def multiply(a, b):
        sizes.append(a.shape[0] // 6)
        return onednn_product.forward(a, b)

    class Recorded:
        transpose, transposed = onednn_product.transpose, onednn_product.transposed
        forward = staticmethod(multiply)

    monkeypatch.setattr(winograd, "onednn_product", Recorded)
    parts = found_by(winograd, *of)
    assert sorted(sizes) == [1, 1, 2, 2, 2, 2]
    assert max(errors(parts, [np.asarray(a, np.float64) for a in whole])) < 1e-6


def test_conv2d_and_its_derivatives_use_it(always):
    x, kernel, g, window = arrays()
    directions = jnp.cos(x), jnp.sin(kernel)

    def energy(convolve):
        return lambda x, k: jnp.vdot(jnp.tanh(convolve(x, k)), g)

    mine = energy(functools.partial(conv2d, padding="SAME"))
    theirs = energy(functools.partial(plain.forward, window=window))
    text = jax.jit(jax.grad(mine, (0, 1))).lower(x, kernel).as_text()
    assert text.count(onednn_product.TARGET) == 3 and onednn.TARGET not in text
    for derive in (
        lambda f: jax.jvp(f, (x, kernel), directions),
        lambda f: jax.grad(f, (0, 1))(x, kernel),
        lambda f: jax.jvp(jax.grad(f, 1), (x, kernel), directions),
    ):
        for found, wanted in zip(
            jax.jit(derive, static_argnums=0)(mine), derive(theirs), strict=True
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "options",
    [{"strides": 2}, {"dilation": 2}, {"groups": 2}, {"padding": ((3, 3), (3, 3))}, {"size": 5}],
)
def test_what_does_not_suit_is_computed_as_before(options, always):
    x = jnp.ones((2, 9, 8, 6))
    size = options.pop("size", 3)
    kernel = jnp.ones((size, size, 6 // options.get("groups", 1), 12))
    text = jax.jit(functools.partial(conv2d, **options)).lower(x, kernel).as_text()
    assert onednn.TARGET in text and onednn_product.TARGET not in text


def test_it_is_chosen_where_it_pays():
    def pays(size, inside, out, **kwargs):
        return winograd.pays(make_window((size, size), (3, 3), 1, "SAME"), 8, inside, out, **kwargs)

    assert pays(112, 64, 128) and pays(28, 512, 512) and pays(28, 128, 128)  # of VGG, ResNet-18
    assert not pays(112, 16, 16) and not pays(7, 512, 512)  # transformations, kernels cost more
    assert pays(14, 256, 256, prepared=True) and not pays(14, 256, 256)
    assert not winograd.pays(make_window((28, 28), (3, 3), 2, "SAME"), 8, 512, 512)


@pytest.mark.parametrize("check", [True, False])
def test_each_device_of_a_shard_map_on_its_rows(check, always):
    x, kernel, _, window = arrays(batch=4)
    mapped, wanted = kernel_gradient_by_rows(x, kernel, window, check=check)
    assert onednn_product.TARGET in mapped.lower(x, kernel).as_text()
    assert max(errors([mapped(x, kernel)], [np.asarray(wanted, np.float64)])) < 3e-6


@pytest.mark.slow
def test_for_inference_transforms_kernels_once(always, monkeypatch):
    transform, shapes = winograd.transform, []
    monkeypatch.setattr(winograd, "transform", lambda k: (shapes.append(k.shape), transform(k))[1])
    model = zoo.create_model("vgg11", num_classes=5, hidden_features=8)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = model.init(jax.random.key(1), images, train=False)
    wanted = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    shapes.clear()
    run = for_inference(model, variables)
    for _ in range(2):
        np.testing.assert_allclose(run(images), wanted, atol=1e-5 * np.abs(wanted).max())
    assert len(shapes) == 8  # convolutions
