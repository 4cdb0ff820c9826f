"""Groups: frozen is untouched, a factor is a factor, and a typing error is an error."""

import functools
import re

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.errors import ConfigError
from zoo.paths import paths_of
from zoo.registry import create_model
from zoo.training.groups import (
    assign,
    describe_groups,
    frozen_statistics,
    layerwise_rules,
    module_order,
    parse_groups,
    thaws_of,
    use_frozen_statistics,
)
from zoo.training.optimizer import is_kernel, make_optimizer
from zoo.training.state import parameter_count

RNG = np.random.default_rng(0)


def array(*shape):
    return np.float32(RNG.normal(size=shape))


PARAMS = {
    "stem_conv": {"kernel": array(3, 3, 1, 2)},
    "stem_bn": {"scale": array(2), "bias": array(2)},
    "stage1": {"conv": {"kernel": array(3, 3, 2, 2)}, "bn": {"bias": array(2)}},
    "head": {"kernel": array(2, 3), "bias": array(3)},
}
STATS = {
    "stem_bn": {"mean": array(2), "var": array(2)},
    "stage1": {"bn": {"mean": array(2), "var": array(2)}, "free": {"mean": array(2)}},
}
GROUPS = [
    ("stem.*", {"frozen": True}),
    ("stage1.*", {"rate": 0.1, "weight_decay": 0.0}),
    (".*", {}),
]
GRADIENTS = [jax.tree.map(lambda p: array(*p.shape), PARAMS) for _ in range(2)]


def train(optimizer, gradients=GRADIENTS, params=PARAMS):
    @jax.jit
    def steps(params, gradients):
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    return jax.device_get(steps(params, gradients))


def first_updates(optimizer, gradient):
    update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])
    return jax.device_get(update(gradient, PARAMS))


def make(name="sgd", rate=0.5, **options):
    options = {"arguments": {"momentum": 0.9} if name == "sgd" else {}} | options
    return make_optimizer(name, lambda count: rate / (1 + count), **options)


@pytest.mark.parametrize("name", [pytest.param("sgd", marks=pytest.mark.slow), "adamw"])
def test_each_group_trains_as_if_alone(name):
    got = train(make(name, weight_decay=0.1, groups=GROUPS))
    slow = train(make(name, rate=0.05))  # a tenth, without decay
    usual = train(make(name, weight_decay=0.1))
    expected = {"stem_conv": PARAMS, "stem_bn": PARAMS, "stage1": slow, "head": usual}
    for module, tree in expected.items():
        for a, b in zip(jax.tree.leaves(got[module]), jax.tree.leaves(tree[module]), strict=True):
            if tree is PARAMS:
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_group_s_own_decay_counts_more_than_an_argument():
    groups = [("head.*", {"weight_decay": 0.0}), (".*", {})]
    optimizer = make("adamw", arguments={"weight_decay": 0.3}, groups=groups)
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    updates = first_updates(optimizer, zeros)
    assert not updates["head"]["kernel"].any()
    np.testing.assert_allclose(
        updates["stem_conv"]["kernel"], -0.5 * 0.3 * PARAMS["stem_conv"]["kernel"], rtol=1e-6
    )


def test_frozen_parameters_have_no_state_and_no_part_in_the_norm():
    optimizer = make("adam", groups=GROUPS)
    state = jax.eval_shape(optimizer.init, PARAMS)
    trained = parameter_count({k: PARAMS[k] for k in ("stage1", "head")})
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert parameter_count(floats) == 2 * trained  # Adam's two moments

    clip = make_optimizer(
        "sgd", lambda c: 1.0, arguments={}, clip_norm=1.0, groups=GROUPS[:1] + GROUPS[2:]
    )
    loud = jax.tree.map(lambda p: p, GRADIENTS[0])
    loud["stem_conv"]["kernel"] = 1e6 * loud["stem_conv"]["kernel"]
    updates = first_updates(clip, loud)
    norm = np.sqrt(sum((u**2).sum() for u in jax.tree.leaves(updates)))
    assert norm == pytest.approx(1, rel=1e-5)


def test_what_thaws_begins_anew_with_the_rate_of_that_step():
    """Its averages are those of a run that begins there; the schedule is two steps on."""
    groups = [("stage1.*", {"frozen": "2 steps"}), (".*", {})]
    options = {"name": "adamw", "weight_decay": 0.1, "groups": groups}
    frozen, free = (make(step=step, **options) for step in (1, 2))
    state, params = frozen.init(PARAMS), PARAMS
    assert jax.tree.structure(state) == jax.tree.structure(free.init(PARAMS))

    @functools.partial(jax.jit, static_argnames="thawed")
    def step(params, state, gradient, thawed):
        updates, state = (free if thawed else frozen).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for number, gradient in enumerate([*GRADIENTS, *GRADIENTS]):
        params, state = step(params, state, gradient, number >= 2)
        if number < 2:
            jax.tree.map(np.testing.assert_array_equal, params["stage1"], PARAMS["stage1"])
    late = make_optimizer("adamw", lambda count: 0.5 / (3 + count), arguments={}, weight_decay=0.1)
    whole = train(make("adamw", weight_decay=0.1), [*GRADIENTS, *GRADIENTS])
    for name, expected in (("stage1", train(late)), ("head", whole)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
            params[name],
            expected[name],
        )


def test_what_is_frozen_for_a_time_at_each_step():
    groups = parse_groups([("stem.*", {"frozen": "5 steps"}), ("s.*", {"frozen": "1 step"})])
    assert thaws_of(groups) == [1, 5]
    at = [[group.at(step).frozen for group in groups] for step in (0, 1, 4, 5, 9)]
    assert at == [[True, True], [True, False], [True, False], [False, False], [False, False]]
    assert thaws_of([group.at(1) for group in groups]) == [5]
    assert not groups[0].at(5).keeps_statistics and groups[0].keeps_statistics
    rows = describe_groups(
        PARAMS,
        parse_groups([("stem.*", {"frozen": "5 steps"}), (".*", {})]),
        is_kernel,
        weight_decay=0.1,
    )
    assert (rows[0].frozen, rows[0].thaws, rows[0].rate, rows[0].weight_decay) == (True, 5, 1, 0.1)


def test_no_groups_and_one_group_for_all_are_the_same():
    plain = first_updates(make(weight_decay=0.1), GRADIENTS[0])
    grouped = first_updates(make(weight_decay=0.1, groups=[(".*", {})]), GRADIENTS[0])
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(grouped), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("hed/.*", {}), (".*", {})], "'hed/.*' matches no parameter. Close are head"),
        ([("stem", {}), (".*", {})], "did you mean 'stem.*'?"),
        ([("kernel", {}), (".*", {})], "did you mean '.*kernel.*'?"),
        ([("stem.*", {}), ("stem_bn.*", {}), (".*", {})], "earlier rules take all"),
        ([("stem.*", {})], "no rule is for 'head/bias' and 3 more"),
        ([("(", {})], "no regular expression"),
        ([(".*", {"frozn": True})], "Did you mean 'frozen'?"),
        ([(".*", {"rate": 0})], "say frozen"),
        ([(".*", {"weight_decay": float("nan")})], "0 or more"),
        ([(".*", {"frozen": 1})], "True or False"),
        ([(".*", {"frozen": "0 steps"})], "at least '1 steps'"),
        ([".*"], "give (pattern, settings)"),
    ],
)
def test_bad_groups(rules, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        make(groups=rules).init(PARAMS)
    assert "\n" not in str(caught.value)


def test_the_first_rule_counts_and_the_rest_may_be_nothing():
    groups = parse_groups([("stem_bn/.*", {}), ("s.*", {}), ("head/.*", {}), (".*", {})])
    numbers = dict(zip(paths_of(PARAMS), jax.tree.leaves(assign(PARAMS, groups)), strict=True))
    assert numbers["stem_bn/scale"] == 0
    assert numbers["stem_conv/kernel"] == numbers["stage1/bn/bias"] == 1
    rows = describe_groups(PARAMS, groups, is_kernel, weight_decay=0.1)
    assert [(r.arrays, r.parameters) for r in rows] == [(2, 4), (3, 56), (2, 9), (0, 0)]
    first, second, _ = describe_groups(PARAMS, parse_groups(GROUPS), is_kernel, weight_decay=0.1)
    assert (first.rate, first.weight_decay, first.frozen, first.statistics) == (0, 0, True, True)
    assert (second.rate, second.weight_decay, second.frozen) == (0.1, 0, False)
    assert describe_groups(PARAMS, (), is_kernel)[0].parameters == parameter_count(PARAMS)


def test_frozen_blocks_keep_their_statistics_unless_told_otherwise():
    mask = frozen_statistics(PARAMS, STATS, parse_groups(GROUPS))
    assert jax.tree.leaves(mask["stem_bn"]) == [True, True]
    assert not any(jax.tree.leaves(mask["stage1"]))
    rules = [("stem.*", {"frozen": True, "statistics": False}), (".*", {"statistics": True})]
    mask = frozen_statistics(PARAMS, STATS, parse_groups(rules))
    assert not any(jax.tree.leaves(mask["stem_bn"]))
    assert all(jax.tree.leaves(mask["stage1"]))  # that without parameters too
    half = parse_groups([("stem_bn/bias", {"frozen": True}), (".*", {})])
    assert not any(jax.tree.leaves(frozen_statistics(PARAMS, STATS, half)))


class Norms(nn.Module):
    """Two BatchNorms, one of them in a block that is computed again."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train, name="first")(x)
        return nn.remat(Inner, static_argnums=2)(name="inner")(x, train)


class Inner(nn.Module):
    """A block."""

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train, name="bn")(x)


@pytest.mark.parametrize("pattern", [pytest.param("first.*", marks=pytest.mark.slow), "inner.*"])
def test_frozen_norms_are_in_evaluation_and_the_others_are_not(pattern):
    x = 3 + 2 * array(16, 4)
    net = Norms()
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    params, stats = {"scale": ones, "bias": zeros}, {"mean": zeros, "var": ones}
    variables = {
        "params": {"first": params, "inner": {"bn": params}},
        "batch_stats": {"first": stats, "inner": {"bn": stats}},
    }
    groups = parse_groups([(pattern, {"frozen": True}), (".*", {})])
    mask = frozen_statistics(variables["params"], variables["batch_stats"], groups)

    @jax.jit
    def apply(variables, x):
        with use_frozen_statistics(mask):
            return net.apply(variables, x, train=True, mutable=["batch_stats"])

    out, updated = apply(variables, x)
    for path, stays, before, after in zip(
        paths_of(mask),
        jax.tree.leaves(mask),
        jax.tree.leaves(variables["batch_stats"]),
        jax.tree.leaves(updated["batch_stats"]),
        strict=True,
    ):
        assert bool((before == after).all()) == stays, path
    # The other one normalises by the batch; fresh averages leave all as it is.
    expected = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(out, expected, atol=1e-3)


def rates_of(name, image_shape, decay):
    model = create_model(name, num_classes=3)
    order = module_order(model, image_shape)
    groups = parse_groups(layerwise_rules(order, decay))
    images = jnp.zeros((1, *image_shape))
    params = jax.eval_shape(lambda k: model.init(k, images, train=False), jax.random.key(0))[
        "params"
    ]
    numbers = jax.tree.leaves(assign(params, groups))
    rates = zip(paths_of(params), numbers, strict=True)
    return order, {path.split("/")[0]: groups[number].rate for path, number in rates}


def test_rates_fall_from_the_head_back():
    order, rates = rates_of("lenet5", (32, 32, 1), 0.5)
    assert order == ["c1", "c3", "c5", "f6", "head"]
    assert [rates[m] for m in order] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    with pytest.raises(ConfigError, match="at most 1"):
        layerwise_rules(order, 1.5)


@pytest.mark.slow
def test_rates_fall_by_stage():
    _, rates = rates_of("resnet18", (64, 64, 3), 0.5)
    assert rates["stage4_block1"] == rates["stage4_block2"] == 0.5
    assert rates["stem_conv"] == rates["stem_bn"] == 0.5**5
    _, rates = rates_of("googlenet", (224, 224, 3), 0.5)
    assert rates["aux1_conv"] == rates["head"] == 1
    assert rates["stage3_block2"] == 0.5
    assert rates["stem1"] == rates["stem3"] == 0.5**4


@pytest.mark.parametrize("rule", ["head", 5, ("head/.*", True), ("head/.*", "frozen")])
def test_a_rule_that_is_no_pair_is_refused(rule):
    with pytest.raises(ConfigError, match="give \\(pattern, settings\\)"):
        parse_groups([rule])
