"""VGG's dense layers as convolutions (section 3.2), and recomputation."""

import functools

import jax
import numpy as np
import pytest

from zoo.models.vgg import VGG

SMALL = {
    "stage_sizes": (1, 1, 1, 1, 2),
    "widths": (2, 3, 4, 5, 6),
    "hidden_features": 8,
    "num_classes": 3,
}


def make(height, width, **fields):
    """A small network, its variables (no bias is 0) and images."""
    model = VGG(**{**SMALL, **fields})
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, height, width, 3))
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    variables = jax.tree.map(lambda x: rng.uniform(-0.5, 0.6, x.shape), shapes)
    return model, variables, images


@functools.partial(jax.jit, static_argnums=0)
def endpoints(model, variables, images):
    return model.apply(variables, images, train=False, method="endpoints")


def dense_head(params, window):
    """fc1, fc2 and head of [B, 7, 7, C], as matrix products."""
    x = window.reshape(len(window), -1)
    for name in ("fc1", "fc2"):
        kernel = params[name]["kernel"]
        x = np.maximum(x @ kernel.reshape(x.shape[-1], -1) + params[name]["bias"], 0)
    return x, x @ params["head"]["kernel"] + params["head"]["bias"]


def test_the_sliding_head_equals_the_dense_head_on_each_window_of_the_last_map():
    # Not on each crop of the image: there convolutions would see zeros around the crop.
    with jax.enable_x64(True):
        model, variables, images = make(224 + 64, 224 + 33, fully_convolutional=True)
        out = jax.device_get(endpoints(model, variables, images))
    params = jax.device_get(variables["params"])
    last = out["stride32"]  # [B, 9, 8, C]
    assert out["logits_map"].shape == (2, 3, 2, 3)
    features = []
    for i, j in np.ndindex(3, 2):
        x, logits = dense_head(params, last[:, i : i + 7, j : j + 7])
        np.testing.assert_allclose(out["logits_map"][:, i, j], logits, rtol=0, atol=1e-12)
        features.append(x)
    np.testing.assert_allclose(out["pre_logits"], np.mean(features, 0), rtol=0, atol=1e-12)
    means = np.mean(out["logits_map"], (1, 2))
    np.testing.assert_allclose(out["logits"], means, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_both_modes_have_the_same_weights_and_agree_on_one_window():
    with jax.enable_x64(True):
        dense = endpoints(*make(224, 224))
        sliding = endpoints(*make(224, 224, fully_convolutional=True))
    assert "logits_map" not in dense
    np.testing.assert_array_equal(sliding["logits_map"][:, 0, 0], dense["logits"])
    for name in dense:
        np.testing.assert_array_equal(sliding[name], dense[name])


def test_too_small_images_say_what_is_wanted():
    make(32, 45)
    with pytest.raises(ValueError, match="at least 32x32"):
        make(31, 45)
    with pytest.raises(ValueError, match="at least 224x224"):
        make(224, 223, fully_convolutional=True)


def test_batch_norm_stands_behind_every_convolution():
    _, variables, _ = make(32, 32, use_batch_norm=True)
    stage5 = {"conv1": {"kernel", "bias"}, "bn1": {"scale", "bias"}}
    stage5 |= {"conv2": {"kernel", "bias"}, "bn2": {"scale", "bias"}}
    assert {k: set(v) for k, v in variables["params"]["stage5"].items()} == stage5
    assert set(variables["batch_stats"]["stage5"]) == {"bn1", "bn2"}


def test_recomputed_stages_change_neither_weights_nor_gradients():
    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model, variables, images):
        def loss(params):
            return model.apply({"params": params}, images, train=False).sum()

        return jax.grad(loss)(variables["params"])

    stages = {"stage_sizes": (1, 1), "widths": (2, 3)}
    plain = gradient(*make(32, 32, **stages))
    again = gradient(*make(32, 32, **stages, remat=(1, 2)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), plain, again)
    assert max(float(np.abs(g).max()) for g in jax.tree.leaves(plain["stage1"])) > 0
