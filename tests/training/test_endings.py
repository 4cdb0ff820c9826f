"""How runs end and what decides it: early stopping, plateaus, budgets, and what is left."""

import json
import signal

import jax
import numpy as np
import pytest

from configs import mlp_digits
from tests.training.test_loop import Tripwire, assert_same_bits, final_state, log_of, send
import zoo
from zoo.data.source import ArraySource
from zoo.errors import ConfigError, DataError, Interrupted, NonFiniteError
from zoo.tasks.task import Best
from zoo.training import steps
from zoo.training.loop import _by_set, fit
from zoo.training.progress import Progress


@pytest.fixture
def config():
    """Softmax regression for 40 steps of 24 digits, evaluated every 4."""
    config = mlp_digits.get_config("linear")
    config.batch_size = 24
    config.train_for = "40 steps"
    config.log_every = "4 steps"
    config.evaluate_every = "4 steps"
    config.checkpoint.every = "40 steps"
    config.optimizer.warmup = "0 steps"
    return config


@pytest.mark.parametrize(
    ("best", "values", "step", "stuck"),
    [
        (Best("top1", larger_is_better=True), [0.5, 0.6, 0.604, 0.609], 2, [0, 0, 0, 1]),
        (Best("loss", larger_is_better=False), [1.0, 0.9, 0.895, 0.85], 4, [0, 0, 0, 0]),
        (Best("top1", larger_is_better=True), [np.nan, np.nan, np.nan, 0.1], 4, [0, 0, 0, 0]),
    ],
)
def test_patience_counts_from_the_last_that_was_better_by_min_delta(best, values, step, stuck):
    progress, seen = Progress(best, min_delta=0.01), []
    for i, value in enumerate(values, 1):
        progress.validated(i, value)
        seen.append(progress.is_stuck(i, 2))
    assert progress.best_step == step
    assert seen == list(map(bool, stuck))
    assert not progress.is_stuck(10**9, None)


def stuck(config):
    """Makes the second evaluation the best for ever."""
    config.optimizer.schedule = "step"
    config.optimizer.schedule_arguments = {"boundaries": ("8 steps",), "factor": 1e-9}
    config.best.patience = "8 steps"
    config.best.min_delta = 1e-4
    config.best.metric = "val/loss"
    return config


def test_a_run_stops_early_with_its_best_weights(config, splits, tmp_path, capsys):
    results = fit(stuck(config), tmp_path, splits=splits)
    assert (results["step"], results["best_step"], results["stopped_early"]) == (16, 8, True)
    lines = {li["step"]: li for li in log_of(tmp_path) if "val/loss" in li}
    assert sorted(lines) == [4, 8, 12, 16]
    assert results["metrics"]["val"]["loss"] == lines[8]["val/loss"]
    model, variables, preprocess = zoo.load("linear", tmp_path / "weights")
    images = np.stack([preprocess(image) for image, _ in splits.test])
    right = model.apply(variables, images, train=False).argmax(-1) == splits.test.labels
    assert right.mean() == pytest.approx(results["metrics"]["test"]["top1"])
    capsys.readouterr()
    assert fit(config, tmp_path, splits=splits) == json.loads(json.dumps(results))
    assert "is finished, 16 steps" in capsys.readouterr().out


@pytest.mark.slow
def test_an_early_stop_that_was_killed_stops_there_again(config, splits, tmp_path):
    expected = fit(stuck(config), tmp_path / "straight", splits=splits)
    fit(config, tmp_path / "broken", splits=splits)
    (tmp_path / "broken" / "results.json").unlink()  # as if killed while finishing
    again = fit(config, tmp_path / "broken", splits=splits)
    assert again["metrics"] == expected["metrics"]
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "straight")


@pytest.mark.slow
def test_a_stopped_run_has_left_its_best_weights(config, splits, tmp_path):
    trap = splits._replace(train=Tripwire(splits.train, 24 * 11, send(signal.SIGTERM)))
    config.data.cache = False
    with pytest.raises(Interrupted):
        fit(config, tmp_path, splits=trap)
    model, variables, preprocess = zoo.load("linear", tmp_path / "weights")
    images = np.stack([preprocess(image) for image, _ in splits.validation])
    right = model.apply(variables, images, train=False).argmax(-1) == splits.validation.labels
    best = max(line["val/top1"] for line in log_of(tmp_path) if "val/top1" in line)
    assert right.mean() == pytest.approx(best)


@pytest.mark.slow
def test_a_plateau_lowers_the_rate_and_a_resumed_run_lowers_it_alike(config, splits, tmp_path):
    config.data.cache = False
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = 1e-9  # the loss does not move
    config.optimizer.plateau = {"factor": 0.1, "patience": 2, "rtol": 0.01}
    config.average.ema_decay = 0.5
    expected = fit(config, tmp_path / "straight", splits=splits)
    rates = [line["train/learning_rate"] for line in log_of(tmp_path / "straight")[::2]]
    np.testing.assert_allclose(rates[:3], 1e-9, rtol=1e-5)
    assert rates[-1] < 1.01e-12
    trap = splits._replace(train=Tripwire(splits.train, 24 * 19, send(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "broken", splits=trap)
    assert fit(config, tmp_path / "broken", splits=splits)["metrics"] == expected["metrics"]
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "straight")
    states = [final_state(config, splits, tmp_path / w)[0] for w in ("broken", "straight")]
    assert_same_bits(*states)


@pytest.mark.slow
def test_the_mean_of_weights_has_statistics_of_its_own(config, splits, tmp_path):
    config.model.name = "resnet20"
    config.model.arguments = {"stage_sizes": (1,)}
    config.average.swa_start = "20 steps"
    config.average.swa_every = "4 steps"
    config.best.metric = "val_swa/top1"
    results = fit(config, tmp_path, splits=splits)
    assert set(results["metrics"]) == {"val", "val_swa", "test", "test_swa"}
    assert results["best_step"] >= 20
    assert not any("val_swa/loss" in line for line in log_of(tmp_path) if line["step"] < 20)
    _, swa, _ = zoo.load("resnet20", tmp_path / "weights_swa", **config.model.arguments.to_dict())
    state, _ = final_state(config, splits, tmp_path)
    assert not np.allclose(
        swa["batch_stats"]["stem_bn"]["mean"], state.swa["batch_stats"]["stem_bn"]["mean"]
    )


@pytest.mark.slow
def test_the_mean_of_weights_goes_on_to_the_end_and_leaves_frozen_statistics(
    config, splits, tmp_path
):
    config.model.name = "resnet20"
    config.model.arguments = {"stage_sizes": (1,)}
    config.train_for = "12 steps"
    config.average.swa_start = "8 steps"
    config.average.swa_every = "2 steps"
    config.best.metric = "val/loss"
    config.best.min_delta = 1e6  # the first evaluation stays the best
    config.optimizer.groups = (("stem.*", {"frozen": True}), (".*", {}))
    results = fit(config, tmp_path, splits=splits)
    assert results["best_step"] == 4
    assert "test_swa" in results["metrics"]
    _, swa, _ = zoo.load("resnet20", tmp_path / "weights_swa", **config.model.arguments.to_dict())
    state, _ = final_state(config, splits, tmp_path)
    assert int(state.swa["count"]) == 3
    assert_same_bits(swa["params"], state.swa["params"])
    assert not swa["batch_stats"]["stem_bn"]["mean"].any()
    assert not np.array_equal(
        swa["batch_stats"]["stage1_block1"]["bn1"]["mean"],
        state.swa["batch_stats"]["stage1_block1"]["bn1"]["mean"],
    )


@pytest.mark.parametrize(
    ("bad", "ends"), [pytest.param((9,), False, marks=pytest.mark.slow), ((9, 10, 11), True)]
)
def test_steps_are_skipped_within_the_budget(config, splits, tmp_path, monkeypatch, bad, ends):
    make = steps.make_train_step

    def make_failing(**options):
        step = make(**options)

        def failing(state, batch, key):
            new, metrics = step(state, batch, key)
            total, count = metrics["loss"]
            is_bad = jax.numpy.isin(state.step, jax.numpy.array(bad))
            return new, {**metrics, "loss": (total + jax.numpy.where(is_bad, np.nan, 0), count)}

        return failing

    monkeypatch.setattr(steps, "make_train_step", make_failing)
    config.log_every = "1 step"
    config.max_skipped = 2
    if ends:
        with pytest.raises(NonFiniteError, match="not finite in 3 steps in a row before step 12"):
            fit(config, tmp_path, splits=splits)
        assert max(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == 8
    else:
        assert fit(config, tmp_path, splits=splits)["skipped_steps"] == 1
        lines = {li["step"]: li for li in log_of(tmp_path) if "train/skipped" in li}
        assert [step for step, line in lines.items() if line["train/skipped"]] == [10]
        assert lines[10]["train/learning_rate"] == lines[9]["train/learning_rate"]


@pytest.mark.slow
def test_the_best_by_another_metric_is_forgotten(config, splits, tmp_path):
    fit(config, tmp_path, splits=splits)
    config.train_for = "48 steps"
    config.best.metric = "val/loss"
    config.checkpoint.allow_changes = True
    results = fit(config, tmp_path, splits=splits)
    lines = {li["step"]: li["val/loss"] for li in log_of(tmp_path) if "val/loss" in li}
    assert results["best_step"] == min((44, 48), key=lambda step: lines[step])


def test_figures_of_averages_are_printed_by_their_name():
    values = {"val/loss": 1, "val/top1": 0.5, "val_ema/loss": 2, "val_ema/top1": 0.1}
    assert _by_set(values) == "loss 1.0000  top1 50.00 %  ema loss 2.0000  top1 10.00 %"


@pytest.mark.slow
def test_groups_are_restored_and_what_is_frozen_stays(config, splits, tmp_path):
    config.model.name = "mlp"
    config.model.arguments = {"widths": (8, 8)}
    config.data.cache = False
    config.optimizer.groups = (
        ("hidden1.*", {"frozen": True}),
        ("hidden2/.*", {"rate": 0.1, "weight_decay": 0.0}),
        (".*", {}),
    )
    config.optimizer.weight_decay = 1e-3
    expected = fit(config, tmp_path / "straight", splits=splits)
    trap = splits._replace(train=Tripwire(splits.train, 24 * 13, send(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "broken", splits=trap)
    assert fit(config, tmp_path / "broken", splits=splits)["metrics"] == expected["metrics"]
    config.train_for = "4 steps"
    fit(config, tmp_path / "short", splits=splits)
    long, short = (final_state(config, splits, tmp_path / w)[0] for w in ("straight", "short"))
    assert_same_bits(long.params["hidden1"], short.params["hidden1"])
    assert not np.array_equal(long.params["hidden2"]["kernel"], short.params["hidden2"]["kernel"])


@pytest.mark.parametrize("rate", [1e6, 1e38])
@pytest.mark.slow
def test_a_rate_far_too_high_never_spoils_what_is_saved(config, splits, tmp_path, rate):
    results = fit(config, tmp_path, splits=splits)
    config.train_for = "80 steps"
    config.optimizer.learning_rate = rate
    config.max_skipped = 3
    config.checkpoint.allow_changes = True
    if rate == 1e6:  # finite, if absurd: Adam's steps are of that size, and go on
        assert fit(config, tmp_path, splits=splits)["best_step"] == results["best_step"]
    else:
        with pytest.raises(NonFiniteError, match=r"config\.max_skipped=3") as error:
            fit(config, tmp_path, splits=splits)
        assert error.value.exit_code == 70
    state, record = final_state(config, splits, tmp_path)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.variables))
    assert record["progress"]["best_step"] == results["best_step"]
    assert (tmp_path / "checkpoints" / str(results["best_step"])).is_dir()
    model, variables, preprocess = zoo.load("linear", tmp_path / "weights")
    images = np.stack([preprocess(image) for image, _ in splits.test])
    right = model.apply(variables, images, train=False).argmax(-1) == splits.test.labels
    assert right.mean() == pytest.approx(results["metrics"]["test"]["top1"])


def test_pixels_that_are_not_finite_cannot_come_in(splits):
    images = np.full((4, 8, 8), np.nan, np.float32)
    with pytest.raises(DataError, match="images must be uint8"):
        ArraySource(images, np.zeros(4, int))


def test_a_label_out_of_range_ends_the_run_before_it_trains_on_it(config, splits, tmp_path):
    class Wrong(Tripwire):
        def __getitem__(self, index):
            image, label = self._source[index]
            return image, 12 if index == 100 else label

    config.data.cache = False
    with pytest.raises(DataError, match=r"array example 100.* label 12, allowed are 0 to 9"):
        fit(config, tmp_path, splits=splits._replace(train=Wrong(splits.train, 0, None)))
    state, _ = final_state(config, splits, tmp_path)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.variables))
    assert fit(config, tmp_path, splits=splits)["step"] == 40


@pytest.mark.slow
def test_another_optimiser_is_refused_and_harms_nothing(config, splits, tmp_path):
    fit(config, tmp_path, splits=splits)
    before = final_state(config, splits, tmp_path)
    changed = config.copy_and_resolve_references()
    changed.train_for = "60 steps"
    changed.optimizer.name = "nadam"
    with pytest.raises(ConfigError, match=r"config\.optimizer\.name was 'adam' and is 'nadam'"):
        fit(changed, tmp_path, splits=splits)
    changed.optimizer.name = "lion"  # whose state is another, too
    changed.checkpoint.allow_changes = True
    with pytest.raises(ConfigError, match="is of another model or optimiser"):
        fit(changed, tmp_path, splits=splits)
    after = final_state(config, splits, tmp_path)
    assert_same_bits(before[0], after[0])
    assert before[1] == after[1]


@pytest.mark.parametrize(
    "changes",
    [{"best.patience": "8 steps"}, {"best.metric": "val/loss"}, {"optimizer.plateau.factor": 0.5}],
)
def test_what_goes_by_validation_wants_a_split(config, splits, tmp_path, changes):
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match="goes by the validation split, and there is none"):
        fit(config, tmp_path, splits=splits._replace(validation=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best.metric": "val/top2"}, "there are val/loss, val/top1, val/top5"),
        ({"best.metric": "val_ema/top1"}, "there are val/loss"),
        ({"optimizer.groups": (("haed.*", {}),)}, "matches no parameter"),
        ({"optimizer.groups": (("head/bias", {}),)}, "no rule is for 'head/kernel'"),
        ({"optimizer.groups": ((".*", {"frozen": True}),)}, "everything is frozen"),
        ({"optimizer.groups": ((".*", {}),), "optimizer.layer_decay": 0.5}, "leave out the rule"),
        ({"optimizer.name": "lbfgs"}, "is not an optimiser"),
        ({"task.arguments": {"class_weights": "abc"}}, "class_weights=('a', 'b', 'c')"),
        ({"optimizer.plateau": {"patince": 3}}, "Did you mean 'patience'"),
        ({"optimizer.schedule_arguments": {"factor": 3}}, "schedule 'cosine' has no argument"),
        ({"task.name": "clasification"}, "Did you mean 'classification'"),
        ({"task.arguments": {"label_smoothing": 1.0}}, "less than 1"),
        ({"task.name": "binary"}, "wants 2 classes and the data have 10"),
        ({"augment.images": (("random_flip", {}),)}, "config.augment.images: "),
        ({"augment.mix": {"mixup": 1}}, "config.augment.mix has no argument"),
        ({"augment.crop": {"scale": (2, 1)}}, "config.augment.crop"),
        ({"model.num_classes": 5}, "num_classes=5, but digits has 10 classes"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    config, splits, tmp_path, changes, message
):
    config.data.cache = False
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError) as error:
        fit(config, tmp_path / "run", splits=splits)
    assert message in str(error.value)
    assert str(error.value).startswith("config.")
    assert not (tmp_path / "run").exists()


def test_results_of_before_early_stopping_are_no_obstacle(config, splits, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"step": 8, "config": {}, "metrics": {}}))
    config.train_for = "4 steps"
    assert fit(config, tmp_path, splits=splits)["step"] == 4


@pytest.mark.slow
def test_a_head_with_other_outputs_than_classes_is_exported(config, tmp_path):
    config.data.name = "mock:2"
    config.data.train_split = config.data.validation_split = "train[:48]"
    config.data.test_split = ""
    config.task.name = "binary"
    config.train_for = "4 steps"
    fit(config, tmp_path)
    model, _, _ = zoo.load("linear", tmp_path / "weights")
    assert model.num_classes == 1
