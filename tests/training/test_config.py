"""What a configuration may hold, and what follows from it."""

import json
import re

import jax.numpy as jnp
from ml_collections import ConfigDict
import optax
import pytest

from configs import default
from tests.conftest import ROOT
from zoo.errors import ConfigError
from zoo.training.config import (
    changed_keys,
    check_keys,
    check_values,
    flatten,
    make_plan,
    make_preprocessing,
    plain,
    to_steps,
)
from zoo.training.optimizer import make_optimizer, make_schedule, optimizer_names
from zoo.weights.preprocessing import Preprocessing

RECIPES = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem != "default")


def plan_of(config, **numbers):
    options = {"num_examples": 1000, "num_outputs": 10, "num_devices": 1}
    return make_plan(config, image_shape=(32, 32, 1), **(options | numbers))


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("7 steps", 7),
        ("1 step", 1),
        ("1_000 steps", 1000),
        ("1e3 steps", 1000),
        ("2 epochs", 21),
        ("0.5 epochs", 6),
        ("1000 examples", 10),
        ("1001 examples", 11),
        ("0 steps", 0),
    ],
)
def test_durations(duration, steps):
    assert to_steps(duration, batch_size=100, num_examples=1050) == steps


@pytest.mark.parametrize("duration", ["", "10", "epochs", "-1 steps", "3 weeks", "nan epochs"])
def test_bad_durations(duration):
    with pytest.raises(ConfigError, match="give a number and a unit"):
        to_steps(duration, batch_size=100, num_examples=1050)


def test_every_default_key_is_read_by_the_code_and_explained():
    code = "".join(p.read_text() for p in (ROOT / "zoo").rglob("*.py"))
    text = (ROOT / "configs" / "default.py").read_text()
    for key in dict(flatten(default.get_config())):
        leaf = key.rpartition(".")[2]
        assert re.search(
            rf"\b(data|config(\.\w+)?|augment|optimizer|settings)\.{leaf}\b|\"{key}\"", code
        ), key
        line = next(li for li in text.splitlines() if f"config.{key} = " in li)
        assert "#" in line, f"{key} has no comment"


def test_nothing_reads_a_config_with_a_default():
    for path in (ROOT / "zoo").rglob("*.py"):
        assert "config.get(" not in path.read_text(), path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
@pytest.mark.parametrize("variant", ["", "smoke"])
def test_every_recipe_is_valid(path, variant):
    scope = {}
    exec(compile(path.read_text(), path, "exec"), scope)
    config = scope["get_config"](variant)
    check_keys(config, default.get_config())
    check_values(config)
    plan_of(config)
    assert config.is_locked


def test_plan():
    config = default.get_config()
    config.batch_size = 64
    config.train_for = "3 epochs"
    config.optimizer.warmup = "64 examples"
    plan = plan_of(config, num_devices=8)
    assert (plan.total_steps, plan.warmup_steps, plan.batch_per_device) == (47, 1, 8)
    assert (plan.num_outputs, plan.image_shape) == (10, (32, 32, 1))


def test_rates_and_durations_follow_the_batch_and_the_data():
    config = default.get_config()
    config.batch_size = 512
    config.optimizer.base_batch = 256
    config.optimizer.schedule_arguments = {"boundaries": ("10 epochs", 30), "factor": 0.1}
    config.best.patience = "2 epochs"
    plan = plan_of(config)
    assert plan.learning_rate == pytest.approx(0.2)
    assert plan.schedule_arguments == {"boundaries": [20, 30], "factor": 0.1}
    assert (plan.patience, plan.swa_start) == (4, None)


def test_a_configuration_is_what_json_gives_back():
    config = default.get_config()
    config.optimizer.groups = (("head.*", {"rate": 0.5}), (".*", {}))
    config.model.arguments = {"widths": (64, 32), "norm": len}
    values = plain(config)
    assert json.loads(json.dumps(values)) == values
    assert values["optimizer.groups"] == [["head.*", {"rate": 0.5}], [".*", {}]]


def test_recipes_cannot_invent_keys():
    config = default.get_config()
    with pytest.raises(AttributeError, match="batchsize"):
        config.batchsize = 3
    with config.unlocked():
        config.optimizer.lr = 3
    with pytest.raises(ConfigError, match=r"config\.optimizer\.lr=3 is read by nobody"):
        check_keys(config, default.get_config())


def test_types_are_checked_even_when_the_lock_was_picked():
    config = default.get_config()
    with config.ignore_type():
        config.batch_size = "many"
    with pytest.raises(ConfigError, match=r"config\.batch_size='many' is str, wanted int"):
        check_keys(config, default.get_config())
    with pytest.raises(ConfigError, match=r"config\..* is missing"):
        check_keys(ConfigDict({"batch_size": 3}), default.get_config())


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("batch_size", 0, "greater than 0"),
        ("seed", -1, "from 0 to"),
        ("average.ema_decay", 1.0, "less than 1"),
        ("accumulate", 0, "greater than 0"),
        ("max_skipped", -1, "0 or more"),
        ("model.num_classes", 0, "greater than 0"),
        ("model.dtype", "float16", "'float32', 'bfloat16'"),
        ("data.fit", "stretch", "'squash', 'crop', 'pad'"),
        ("data.crop_fraction", 1.5, "at most 1"),
        ("data.interpolation", "cubic", "'bicubic'"),
        ("data.mean", (0.1, 0.2), "1 or 3 numbers"),
        ("data.std", (0.0,), "greater than 0"),
        ("data.channels", 2, "1 or 3"),
        ("data.threads", 0, "greater than 0"),
        ("loss.aux_weight", -1.0, "0 or more"),
        ("best.min_delta", -1.0, "0 or more"),
        ("optimizer.layer_decay", 0.0, "greater than 0 and at most 1"),
        ("optimizer.final_fraction", 1.5, "from 0 to 1"),
        ("optimizer.learning_rate", -0.1, "greater than 0"),
        ("optimizer.learning_rate", float("nan"), "greater than 0"),
        ("optimizer.schedule", "cosin", "'cosine'"),
        ("optimizer.weight_decay", -1.0, "0 or more"),
        ("checkpoint.keep", 1, "2 or more"),
    ],
)
def test_impossible_values(key, value, allowed):
    config = default.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=re.escape(f"config.{key}={value!r}")) as error:
        check_values(config)
    assert allowed in str(error.value)


@pytest.mark.parametrize(
    ("changes", "numbers", "message"),
    [
        ({"batch_size": 100}, {"num_devices": 8}, "100 cannot be divided among 8 devices; 96 can"),
        ({"accumulate": 3}, {"num_devices": 2}, "among 2 devices in 3 parts each; 126 can"),
        ({"average.swa_start": "11 epochs"}, {}, "longer than the whole training"),
        ({"train_for": "soon"}, {}, "config.train_for: duration 'soon'"),
        ({"log_every": "0 steps"}, {}, "config.log_every='0 steps': must be at least one step"),
        ({"optimizer.warmup": "11 epochs"}, {}, "longer than the whole training"),
    ],
)
def test_what_does_not_go_together(changes, numbers, message):
    config = default.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan_of(config, **numbers)


def prepared(weights=None, **changes):
    config = default.get_config()
    config.update_from_flattened_dict({f"data.{key}": v for key, v in changes.items()})
    return make_preprocessing(config, weights, (32, 32, 1), ["a", "b"])


CAFFE = Preprocessing(
    64, (0.4, 0.5, 0.6), (0.1,) * 3, "bicubic", 0.9, "squash", "BGR", ("x",), 80, 0.95
)


def test_images_are_prepared_as_the_weights_want_unless_said_otherwise():
    assert prepared() == Preprocessing(
        32, (0.5,), (0.5,), crop_fraction=1.0, class_names=("a", "b")
    )
    assert prepared(CAFFE) == CAFFE.replace(class_names=("a", "b"))
    changed = prepared(CAFFE, image_size=48, mean=(0.1,), interpolation="nearest")
    assert changed == CAFFE.replace(
        image_size=48,
        mean=(0.1,) * 3,
        interpolation="nearest",
        class_names=("a", "b"),
        test_image_size=None,
        test_crop_fraction=None,
    )
    grey = prepared(CAFFE, channels=1)
    assert grey.mean == pytest.approx((0.5,)) and len(grey.std) == 1
    assert (grey.channel_order, grey.test_image_size) == ("RGB", 80)
    assert prepared(channels=3, std=(0.1, 0.2, 0.3)).std == (0.1, 0.2, 0.3)


def test_values_per_channel_have_to_be_as_many():
    with pytest.raises(
        ConfigError, match=r"data.mean=\(0.1, 0.2, 0.3\): the images have 1 channel"
    ):
        prepared(mean=(0.1, 0.2, 0.3))


def test_changes_that_matter():
    old, new = default.get_config(), default.get_config()
    new.log_every = "3 steps"
    new.data.threads = 7
    assert changed_keys(plain(old), plain(new)) == []
    new.optimizer.learning_rate = 0.3
    assert changed_keys(plain(old), plain(new)) == ["optimizer.learning_rate"]


# -- optimisers and schedules -----------------------------------------------------------------


def test_schedules():
    options = {"learning_rate": 2.0, "total_steps": 110, "warmup_steps": 10}
    for name, middle, end in (("constant", 2, 2), ("cosine", 1, 0), ("linear", 1, 0)):
        schedule = make_schedule(name, **options)
        values = [float(schedule(s)) for s in (0, 5, 10, 60, 110)]
        assert values == pytest.approx([0, 1, 2, middle, end], abs=1e-6)


def test_every_optimiser_of_optax_can_be_named():
    assert {"sgd", "adam", "adamw", "rmsprop", "lamb", "lars", "lion"} <= set(optimizer_names())


def test_weight_decay_leaves_biases_alone():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    for name in ("sgd", "adamw"):
        optimizer = make_optimizer(
            name, optax.constant_schedule(0.1), arguments={}, weight_decay=0.5
        )
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        assert float(updates["bias"].sum()) == 0
        assert updates["kernel"].reshape(-1).tolist() == pytest.approx([-0.05] * 4)


def test_clipping():
    optimizer = make_optimizer("sgd", optax.constant_schedule(1.0), arguments={}, clip_norm=1.0)
    params = {"w": jnp.zeros(2)}
    updates, _ = optimizer.update({"w": jnp.array([30.0, 40.0])}, optimizer.init(params), params)
    assert updates["w"].tolist() == pytest.approx([-0.6, -0.8])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("adamm", {}, "Did you mean 'adam'"),
        ("adam", {"beta1": 0.9}, "adam has no argument 'beta1'"),
        ("sgd", {"momentum": 0.9, "nesterv": True}, "Did you mean 'nesterov'?"),
    ],
)
def test_bad_optimisers(name, arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_optimizer(name, optax.constant_schedule(0.1), arguments=arguments)
