"""Features in the place of images: the network's own, for every family, and never by mistake."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.errors import ConfigError
from zoo.registry import create_model
from zoo.training.features import chosen, from_features
from zoo.training.groups import frozen_mask, frozen_statistics, parse_groups, use_frozen_statistics
from zoo.training.step import Frozen

HEAD_ONLY = (("head/.*", {}), (".*", {"frozen": True}))
NO_AUX = {"aux_heads": False}
SMALL = {"hidden_features": 16}


def made(name, size, channels=3, rules=HEAD_ONLY, *, augmented=False, aux_weight=0.0, **fields):
    """Returns a model, the shapes of its variables, and what `from_features` says of it."""
    model = create_model(name, num_classes=5, **fields)
    init = functools.partial(model.init, train=False)
    shape = (size, size, channels)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, *shape)))
    groups = parse_groups(rules)
    params, statistics = shapes["params"], shapes.get("batch_stats", {})
    frozen = Frozen(frozen_mask(params, groups), frozen_statistics(params, statistics, groups))
    found = from_features(model, shapes, frozen, shape, augmented=augmented, aux_weight=aux_weight)
    return model, shapes, frozen, found


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "size", "fields", "place"),
    [
        ("mlp", 8, {"dropout_rate": 0.5, "widths": (16,)}, "drop1"),
        ("linear", 8, {}, "head"),
        ("lenet5", 32, {}, "head"),
        slow("alexnet_2012", 96, SMALL | {"dropout_rate": 0.0}, "head_drop"),
        slow("vgg11_bn", 64, SMALL | {"dropout_rate": 0.0}, "fc2_drop"),
        slow("resnet18", 32, {"dropout_rate": 0.5}, "dropout"),
        slow("googlenet", 64, {}, "dropout"),
        slow("mobilenet_v3_small", 32, {}, "dropout"),
        slow("efficientnet_b0", 32, {"drop_path_rate": 0.0}, "dropout"),
    ],
)
def test_a_head_on_features_is_the_network_on_images(name, size, fields, place):
    channels = 1 if name == "lenet5" else 3
    model, shapes, frozen, (found, why) = made(name, size, channels, **fields)
    assert found is not None and not why
    assert found.place == place
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: np.float32(rng.uniform(0.02, 0.1, s.shape)), shapes)
    images = np.float32(rng.normal(size=(3, size, size, channels)))
    rngs = {"dropout": jax.random.key(7)}

    @jax.jit
    def both(variables, images):
        with use_frozen_statistics(frozen.statistics):
            options = {"train": True, "rngs": rngs, "mutable": ["batch_stats"]}
            whole, _ = model.apply(variables, images, **options)
            features = found.of_images(variables, images)
            head, _ = found.apply(variables, features, **options)
        return whole, head, found.apply(variables, features, train=False)

    whole, head, evaluated = both(variables, images)
    assert np.isfinite(whole).all() and np.ptp(np.asarray(whole), axis=0).min() > 0
    np.testing.assert_allclose(head, whole, rtol=1e-4)
    expected = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        ("mlp", 8, {"augmented": True}, "config.augment changes the images"),
        ("mlp", 8, {"rules": (("hidden1/bias", {}), *HEAD_ONLY)}, "'hidden1/bias' is not frozen"),
        ("mlp", 8, {"widths": (8, 8), "dropout_rate": 0.1}, "'drop1' drops at random"),
        ("vgg11", 64, SMALL, "'fc1_drop' drops at random"),
        slow("googlenet", 64, {"aux_weight": 0.3}, "auxiliary heads counts"),
        (
            "resnet20",
            32,
            {"rules": (("head/.*", {}), (".*", {"frozen": True, "statistics": False}))},
            "'stage1_block1/bn1/mean' is not frozen",
        ),
        slow(
            "efficientnet_b0", 32, {"drop_path_rate": 0.2}, "'stage2_block2/drop' drops at random"
        ),
    ],
)
def test_what_cannot_be_computed_once(name, size, options, message):
    *_, (found, why) = made(name, size, **options)
    assert found is None and message in why
    with pytest.raises(ConfigError, match="features=True keeps what the head is given, but"):
        chosen(True, found, why, alone=True, size=1)
    assert not chosen(None, found, why, alone=True, size=1)


def test_a_network_without_a_layer_called_head():
    *_, (found, why) = made("lenet5", 32, 1)
    assert chosen(None, found, why, alone=True, size=2**20)
    assert not chosen(None, found, why, alone=True, size=2**40)
    assert not chosen(None, found, why, alone=False, size=1)
    with pytest.raises(ConfigError, match="one process, one seed"):
        chosen(True, found, why, alone=False, size=1)
