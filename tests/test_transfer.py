"""Another head on the same network, and marks for what stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo

IMAGES = np.float32(np.random.default_rng(0).normal(size=(2, 32, 32, 1)))


def lenet(num_classes=10):
    model = zoo.create_model("lenet5", num_classes=num_classes)
    return model, jax.jit(model.init, static_argnames="train")(
        jax.random.key(0), IMAGES, train=False
    )


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_swapped_head_has_other_classes_on_the_same_features():
    model, variables = lenet()
    swapped, new = zoo.swap_head(model, variables, 3, jax.random.key(1))
    assert swapped.num_classes == 3 and model.num_classes == 10
    assert variables["params"]["head"]["kernel"].shape == (84, 10)  # nothing is changed
    body = {name: tree for name, tree in variables["params"].items() if name != "head"}
    assert_same(body, {name: tree for name, tree in new["params"].items() if name != "head"})
    before = model.apply(variables, IMAGES, train=False, method="endpoints")
    after = swapped.apply(new, IMAGES, train=False, method="endpoints")
    np.testing.assert_array_equal(before["pre_logits"], after["pre_logits"])
    kernel = new["params"]["head"]["kernel"]
    np.testing.assert_allclose(after["logits"], after["pre_logits"] @ kernel, rtol=1e-5, atol=1e-6)
    again = zoo.swap_head(model, variables, 3, jax.random.key(1))[1]
    assert_same(new, again)
    assert kernel.std() == pytest.approx(84**-0.5, rel=0.1)


def test_auxiliary_heads_are_swapped_as_well():
    model = zoo.create_model("googlenet", num_classes=6)
    images = jnp.zeros((1, 224, 224, 3))
    shapes = jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))

    def swap(variables):
        return zoo.swap_head(model, variables, 4, jax.random.key(1))[1]

    swapped = model.clone(num_classes=4)
    expected = jax.eval_shape(lambda key: swapped.init(key, images, train=False), jax.random.key(0))
    assert jax.eval_shape(swap, shapes) == expected


def test_a_head_that_is_not_there_or_has_no_classes():
    model = zoo.create_model("lenet5", num_classes=None)
    with pytest.raises(ValueError, match="LeNet5 has no head to swap, only c1"):
        zoo.swap_head(model, {"params": {"c1": {}}}, 3, jax.random.key(0))
    model, variables = lenet()
    with pytest.raises(ValueError, match="num_classes=0: must be a whole number from 1 on"):
        zoo.swap_head(model, variables, 0, jax.random.key(0))


def test_frozen_parameters_stay_in_a_loop_of_ones_own():
    model, variables = lenet(3)
    params = variables["params"]
    mask = zoo.freeze(params, "(?!head/).*")
    frozen = optax.multi_transform({True: optax.set_to_zero(), False: optax.adamw(0.1)}, mask)
    masked = optax.chain(optax.adamw(0.1), optax.masked(optax.set_to_zero(), mask))
    labels = jnp.array([0, 1])

    @jax.jit
    def train(params):
        def loss(p):
            logits = model.apply({"params": p}, IMAGES, train=True)
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradient = jax.grad(loss)(params)
        return [
            optax.apply_updates(params, o.update(gradient, o.init(params), params)[0])
            for o in (frozen, masked)
        ]

    for trained in train(params):
        for name, tree in params.items():
            same = jax.tree.map(np.array_equal, trained[name], tree)
            assert all(jax.tree.leaves(same)) == (name != "head"), name


def test_all_variables_are_marked_by_module():
    bn = {"scale": np.ones(2), "bias": np.ones(2)}
    variables = {
        "params": {"stem_bn": bn, "head": {"kernel": np.ones(2)}},
        "batch_stats": {"stem_bn": {"mean": np.ones(2), "var": np.ones(2)}},
    }
    mask = zoo.freeze(variables, "stem.*")
    assert mask["params"] == {"stem_bn": {"scale": True, "bias": True}, "head": {"kernel": False}}
    assert mask["batch_stats"] == {"stem_bn": {"mean": True, "var": True}}
    assert jax.tree.structure(mask) == jax.tree.structure(variables)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("stem", "did you mean 'stem.*'"),
        ("hed/.*", "matches no parameter. Close are head"),
        ("(", "is no regular expression"),
    ],
)
def test_patterns_that_freeze_nothing(pattern, message):
    params = {"stem_conv": {"kernel": np.ones(2)}, "head": {"kernel": np.ones(2)}}
    with pytest.raises(ValueError) as caught:
        zoo.freeze(params, pattern)
    assert message in str(caught.value)
