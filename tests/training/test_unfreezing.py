"""What is frozen for a time: not touched by one bit until then, and free from then on."""

import signal

import jax
import numpy as np
import pytest

from configs import mlp_digits, resnet_digits
from tests.training.test_loop import Tripwire, assert_same_bits, final_state, log_of, send
from tests.training.test_resident import assert_close, assert_close_logs, in_loops, stopped_at
from zoo.errors import ConfigError, Interrupted
from zoo.training.checkpoint import Checkpoints
from zoo.training.loop import fit
from zoo.training.setup import build

__all__ = ["in_loops"]  # a fixture


@pytest.fixture
def config():
    """A perceptron: the head from the beginning, a layer from step 8, another never."""
    config = mlp_digits.get_config()
    config.model.arguments = {"widths": (16, 12), "dropout_rate": 0.0}
    config.batch_size = 24
    config.train_for = "20 steps"
    config.log_every = "2 steps"
    config.evaluate_every = "10 steps"
    config.checkpoint.every = "4 steps"
    config.checkpoint.keep = 9
    config.augment.images = ()
    config.data.cache = True
    config.average.ema_decay = 0.9
    config.loss.l2 = 1e-3
    config.optimizer.name = "adamw"
    config.optimizer.arguments = {"nesterov": True}
    config.optimizer.weight_decay = 0.1
    config.optimizer.warmup = "2 steps"
    config.optimizer.clip_norm = 1.0
    config.optimizer.groups = (
        ("head/.*", {}),
        ("hidden2/.*", {"frozen": "8 steps", "rate": 0.5}),
        ("hidden1/.*", {"frozen": True}),
    )
    return config


def states(config, splits, workdir):
    """Returns the state at every checkpoint, and before the first step."""
    setup = build(config, splits)
    checkpoints = Checkpoints.to_read(workdir / "checkpoints")
    found = {step: checkpoints.restore(step, setup.state_like)[0] for step in checkpoints.steps()}
    checkpoints.close()
    return jax.device_get({0: setup.init(), **found})


@pytest.mark.slow
def test_what_is_frozen_for_a_time_is_not_touched_until_then(config, splits, tmp_path, capsys):
    fit(config, tmp_path, splits=splits)
    out = capsys.readouterr().out
    assert "held_by=devices, as what the head is given instead of images up to step 8" in out
    assert "from step 8 on frozen: 1,040 parameters and 0 of 0" in out
    at = states(config, splits, tmp_path)
    for step in (4, 8):
        for tree in (at[step].params, at[step].ema["params"]):
            assert_same_bits(tree["hidden1"], at[0].params["hidden1"])
            assert_same_bits(tree["hidden2"], at[0].params["hidden2"])
        assert not np.array_equal(at[step].params["head"]["bias"], at[0].params["head"]["bias"])
    for step in (12, 20):
        assert_same_bits(at[step].params["hidden1"], at[0].params["hidden1"])
        for leaf in ("kernel", "bias"):
            new, old = (at[s].params["hidden2"][leaf] for s in (step, 0))
            assert not np.array_equal(new, old)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bits_on_both_sides(config, splits, tmp_path):
    expected = fit(config, tmp_path / "straight", splits=splits)
    config.data.resident = False  # so that the trap counts what steps read
    config.data.cache = False
    # All 280 images for features, five steps, and whatever is read ahead.
    for reads in (100, 280 + 24 * 5):
        trap = splits._replace(train=Tripwire(splits.train, reads, send(signal.SIGTERM)))
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "broken", splits=trap)
    assert fit(config, tmp_path / "broken", splits=splits)["metrics"] == expected["metrics"]
    runs = [final_state(config, splits, tmp_path / name)[0] for name in ("straight", "broken")]
    assert_same_bits(*runs)
    assert log_of(tmp_path / "straight") == log_of(tmp_path / "broken")


@pytest.mark.slow
def test_features_are_the_same_training_as_images(config, splits, tmp_path):
    config.model.arguments = {"widths": (16,), "dropout_rate": 0.5}  # in front of the head
    config.optimizer.groups = (("head/.*", {}), (".*", {"frozen": "8 steps"}))
    for features in (None, False):
        config.data.features = features
        fit(config, tmp_path / str(features), splits=splits)
    one, other = (final_state(config, splits, tmp_path / name)[0] for name in ("None", "False"))
    assert_close(one, other)
    assert_close_logs(log_of(tmp_path / "None"), log_of(tmp_path / "False"))


@pytest.mark.slow
def test_features_over_several_devices(config, splits, devices, tmp_path):
    config.optimizer.groups = (("head/.*", {}), (".*", {"frozen": True}))
    config.model.arguments = {"widths": (16,), "dropout_rate": 0.5}
    config.accumulate = 3
    for features in (True, False):
        config.data.features = features
        fit(config, tmp_path / str(features), splits=splits, devices=devices)
    assert_close_logs(log_of(tmp_path / "True"), log_of(tmp_path / "False"))


def test_features_are_for_one_program(config, splits, devices):
    config.optimizer.groups = (("head/.*", {}), (".*", {"frozen": True}))
    assert build(config, splits, devices).features is not None
    config.parallel.mode = "pmap"
    assert build(config, splits, devices).features is None
    config.data.features = True
    with pytest.raises(ConfigError, match="features=True is for one process, one seed and"):
        build(config, splits, devices)


@pytest.mark.slow
def test_stages_in_a_loop_are_the_same_training(config, splits, tmp_path, in_loops, monkeypatch):
    fit(config, tmp_path / "loop", splits=splits)
    with monkeypatch.context() as patch:
        stopped_at(5, patch)
        with pytest.raises(Interrupted, match="stopped after step 6"):
            fit(config, tmp_path / "broken", splits=splits)
    fit(config, tmp_path / "broken", splits=splits)
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "loop")
    monkeypatch.undo()
    fit(config, tmp_path / "steps", splits=splits)
    assert_close_logs(log_of(tmp_path / "loop"), log_of(tmp_path / "steps"))


@pytest.mark.slow
def test_several_seeds_unfreeze_as_one_does(config, splits, tmp_path):
    config.evaluate_every = "20 steps"  # so that the best step is the same
    config.seeds = 2
    both = fit(config, tmp_path / "both", splits=splits)
    config.seeds = 1
    config.data.features = False  # which several networks cannot share
    for seed in ("0", "1"):
        config.seed = int(seed)
        assert fit(config, tmp_path / seed, splits=splits)["metrics"] == both["seeds"][seed]


@pytest.mark.slow
def test_batch_norm_is_frozen_with_its_stage(splits, tmp_path):
    config = resnet_digits.get_config()
    config.data.image_size = 8
    config.batch_size, config.train_for = 24, "4 steps"
    config.log_every = config.checkpoint.every = "2 steps"
    config.evaluate_every = "4 steps"
    config.optimizer.warmup = "0 steps"
    config.augment.images = ()
    config.optimizer.unfreeze = ("2 steps",)
    assert fit(config, tmp_path, splits=splits)["step"] == 4
    at = states(config, splits, tmp_path)
    assert_same_bits(at[2].batch_stats, at[0].batch_stats)
    body = [name for name in at[0].params if name != "head"]
    for step, kept in ((2, ""), (4, "stage3")):
        for name in body:
            for tree in ("params", "batch_stats"):
                new, old = (getattr(at[s], tree).get(name, {}) for s in (step, 0))
                same = all(map(np.array_equal, *map(jax.tree.leaves, (new, old))))
                assert same == (not kept or not name.startswith(kept)), (step, name, tree)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": ((".*", {"frozen": "30 steps"}),)}, "everything is frozen"),
        (
            {"groups": (("head/.*", {}), (".*", {"frozen": "20 steps"}))},
            "'.*' is frozen for 20 steps, and the whole training has 20",
        ),
        (
            {"groups": (("head/.*", {}), (".*", {"frozen": "5 weeks"}))},
            "config.optimizer.groups: '.*': duration '5 weeks'",
        ),
        ({"groups": (("head/.*", {}), (".*", {"frozen": "0 steps"}))}, "at least '1 steps'"),
        ({"groups": (), "unfreeze": ("8 steps", "4 steps")}, "none shorter than the one before"),
        ({"groups": (), "unfreeze": ("1 steps",) * 3}, "3 times for 2 stages (hidden1, hidden2)"),
        ({"groups": (), "unfreeze": (5,)}, "config.optimizer.unfreeze=(5,)"),
        ({"groups": ((".*", {}),), "unfreeze": ("1 steps",)}, "leave out the rule '.*'"),
    ],
)
def test_times_that_cannot_be(config, splits, changes, message):
    config.optimizer.update(changes)
    with pytest.raises(ConfigError) as caught:
        build(config, splits)
    assert message in str(caught.value)
