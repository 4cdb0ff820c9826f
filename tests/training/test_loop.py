"""The loop's laws, in process: resumed is uninterrupted, finished is finished."""

import json
import os
from pathlib import Path
import signal

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zoo
from zoo.data.source import ArraySource, Splits
from zoo.errors import ConfigError, DataError, Interrupted, NonFiniteError, TemporaryError
from zoo.training.checkpoint import Checkpoints
from zoo.training.loop import fit, only_one_run
from zoo.training.report import read_metrics
from zoo.training.setup import build
from zoo.weights.preprocessing import Preprocessing


class Tripwire:
    """A source that does something when it has been read so many times."""

    def __init__(self, source: ArraySource, reads: int, action):
        self._source, self._left, self._action = source, reads, action
        self.class_names, self.labels = source.class_names, source.labels
        self.fingerprint = source.fingerprint

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        self._left -= 1
        if self._left == 0:
            self._action()
        return self._source[index]

    def describe(self, index):
        return self._source.describe(index)


def send(signum):
    return lambda: os.kill(os.getpid(), signum)


def log_of(workdir: Path) -> list[dict]:
    """The lines of metrics.jsonl without what depends on the clock."""
    return [
        {k: v for k, v in line.items() if k != "time" and not k.startswith("perf/")}
        for line in read_metrics(workdir / "metrics.jsonl")
    ]


def final_state(config, splits, workdir: Path):
    setup = build(config, splits)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=99, best_step=lambda: None)
    state, record = checkpoints.restore_newest(setup.state_like)
    checkpoints.close()
    return jax.device_get(state), record


def assert_same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_a_run_leaves_everything_behind(config, splits, tmp_path, capsys):
    results = fit(config, tmp_path, splits=splits)
    out = capsys.readouterr().out
    names = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}
    assert names == {
        *("config.json", "env.json", "metrics.jsonl", "results.json"),
        *("checkpoints", "plots", "tensorboard", "weights"),
    }
    # What a person sees: the header, the course, the results.
    for text in ("learning_rate=0.002", "total_steps=20", "lenet5=61,706", "train=200", "jax="):
        assert text in out
    assert "step 20/20  train  loss" in out
    assert "validation" in out and "95 % interval" in out
    # What a program reads.
    assert json.loads((tmp_path / "config.json").read_text())["optimizer.learning_rate"] == 0.002
    assert json.loads((tmp_path / "env.json").read_text())["versions"]["jax"] == jax.__version__
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, 21))
    assert [line["step"] for line in lines if "val/loss" in line] == [10, 20]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = [e.value for e in events.Scalars("train/loss")]
    assert logged == pytest.approx([li["train/loss"] for li in lines if "train/loss" in li])
    assert (tmp_path / "plots" / "learning_curves.png").read_bytes()[:4] == b"\x89PNG"
    # The figures: every example counted once, the interval around the proportion.
    for group, count in (("val", 50), ("test", 30)):
        values = results["metrics"][group]
        assert values["examples"] == count
        assert values["top1"] * count == pytest.approx(round(values["top1"] * count))
        assert values["top1_interval"][0] <= values["top1"] <= values["top1_interval"][1]
    _, record = final_state(config, splits, tmp_path)
    assert record["data"]["class_names"] == list("0123456789")
    assert record["data"]["train_split"] == splits.train.fingerprint
    assert record["position"] == 20 * 24
    # The best weights, for anyone who goes on from here.
    model, variables, preprocess = zoo.load("lenet5", tmp_path / "weights")
    images = np.stack([preprocess(image) for image, _ in splits.test])
    best = model.apply(variables, images, train=False).argmax(-1)
    assert (best == splits.test.labels).mean() == pytest.approx(results["metrics"]["test"]["top1"])
    assert preprocess.class_names == tuple("0123456789")
    config.model.weights = str(tmp_path / "weights")
    for key in ("fit", "mean", "std"):
        config.data[key] = None
    setup = build(config, splits)
    assert setup.preprocessing == preprocess
    assert_same_bits(setup.init().params, variables["params"])
    config.data.image_size = 64
    with pytest.raises(ConfigError, match=r"config.model: LeNet-5 takes images \[B, 32, 32, C\]"):
        build(config, splits)
    config.model.weights = str(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"config.model.weights: .*no such file or folder"):
        build(config, splits)


@pytest.mark.slow
def test_a_run_goes_on_without_the_weights_that_it_began_with(config, splits, tmp_path, capsys):
    model = zoo.create_model("lenet5", num_classes=10)
    variables = model.init(jax.random.key(5), np.zeros((1, 32, 32, 1)), train=False)
    prepared = Preprocessing(32, (0.3,), (0.4,), fit="squash", class_names=tuple("abcdefghij"))
    zoo.save_weights(tmp_path / "given", model, variables, prepared)
    config.model.weights = str(tmp_path / "given")
    config.data.std = (0.5,)
    trap = splits._replace(train=Tripwire(splits.train, 24 * 7, send(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "run", splits=trap)
    assert "the head of" in capsys.readouterr().err
    for file in (tmp_path / "given").iterdir():
        file.unlink()
    fit(config, tmp_path / "run", splits=splits)
    begun = zoo.load_weights("lenet5", tmp_path / "run" / "initial_weights")
    assert_same_bits(begun.variables, variables)
    assert begun.preprocessing == prepared
    _, _, trained = zoo.load("lenet5", tmp_path / "run" / "weights")
    assert trained == prepared.replace(
        mean=config.data.mean, std=(0.5,), class_names=tuple("0123456789")
    )


@pytest.mark.parametrize(
    ("reads", "signum"),
    [
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),  # while the first step compiles
        pytest.param(24 * 5, signal.SIGINT, marks=pytest.mark.slow),
        (24 * 7 + 3, signal.SIGTERM),
        pytest.param(24 * 12, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(config, splits, tmp_path, reads, signum):
    config.data.cache = False  # so that the tripwire is reached in a later epoch as well
    config.average.ema_decay = 0.9
    config.log_every = "3 steps"  # a log interval across the interruption
    expected = fit(config, tmp_path / "straight", splits=splits)
    trap = splits._replace(train=Tripwire(splits.train, reads, send(signum)))
    with pytest.raises(Interrupted, match="run it again to go on") as stopped:
        fit(config, tmp_path / "broken", splits=trap)
    assert stopped.value.exit_code == 128 + signum
    assert not (tmp_path / "broken" / "results.json").exists()
    results = fit(config, tmp_path / "broken", splits=splits)
    assert results["metrics"] == expected["metrics"]
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "straight")
    states = [final_state(config, splits, tmp_path / w) for w in ("broken", "straight")]
    assert_same_bits(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]


@pytest.mark.slow
def test_a_signal_during_evaluation_loses_nothing(config, splits, tmp_path):
    config.data.cache = False
    expected = fit(config, tmp_path / "straight", splits=splits)
    trap = splits._replace(validation=Tripwire(splits.validation, 30, send(signal.SIGTERM)))
    with pytest.raises(Interrupted, match="after step 10"):
        fit(config, tmp_path / "broken", splits=trap)
    assert fit(config, tmp_path / "broken", splits=splits)["metrics"] == expected["metrics"]
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "straight")


@pytest.mark.slow
def test_handlers_are_put_back(config, splits, tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    fit(config, tmp_path, splits=splits)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_finished_run_says_so_and_changes_nothing(config, splits, tmp_path, capsys):
    first = fit(config, tmp_path, splits=splits)
    before = contents(tmp_path)
    capsys.readouterr()
    again = fit(config, tmp_path, splits=splits)
    assert again == json.loads(json.dumps(first))
    assert contents(tmp_path) == before
    assert "is finished, 20 steps; nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_going_on_on_fewer_devices_is_the_same_training(config, splits, devices, tmp_path):
    config.data.cache = False
    straight = fit(config, tmp_path / "straight", splits=splits)
    trap = splits._replace(train=Tripwire(splits.train, 24 * 9, send(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "moved", splits=trap, devices=devices)
    moved = fit(config, tmp_path / "moved", splits=splits, devices=devices[:1])
    for group, values in straight["metrics"].items():
        assert moved["metrics"][group]["loss"] == pytest.approx(values["loss"], rel=1e-3)
    orders = [[li.get("data/order") for li in log_of(tmp_path / w)] for w in ("straight", "moved")]
    assert orders[0] == orders[1]


@pytest.mark.slow
def test_one_device_and_eight_agree(config, splits, devices, tmp_path):
    logs = {}
    for count in (1, 8):
        workdir = tmp_path / str(count)
        fit(config, workdir, splits=splits, devices=devices[:count])
        logs[count] = [line for line in log_of(workdir) if "train/loss" in line]
    for one, eight in zip(logs[1], logs[8], strict=True):
        assert one["data/order"] == eight["data/order"]
        assert one["train/loss"] == pytest.approx(eight["train/loss"], rel=1e-4)


@pytest.mark.slow
def test_the_best_is_tested_not_the_last(config, splits, tmp_path):
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = 0.02
    config.train_for = "60 steps"
    config.evaluate_every = "5 steps"
    results = fit(config, tmp_path, splits=splits)
    logged = {li["step"]: li for li in log_of(tmp_path) if "val/top1" in li}
    best = max(logged, key=lambda step: (logged[step]["val/top1"], -step))
    assert results["best_step"] == best
    assert results["metrics"]["val"]["top1"] == logged[best]["val/top1"]
    kept = {int(p.name) for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {best, 55, 60}


def test_without_validation_and_test_splits(config, splits, tmp_path):
    results = fit(config, tmp_path, splits=Splits(splits.train, None, None))
    assert results["metrics"] == {}
    assert results["best_step"] is None


@pytest.mark.slow
def test_averaged_weights_are_evaluated_beside_the_raw_ones(config, splits, tmp_path):
    config.average.ema_decay = 0.8
    results = fit(config, tmp_path, splits=splits)
    assert set(results["metrics"]) == {"val", "val_ema", "test", "test_ema"}
    assert results["metrics"]["val"]["loss"] != results["metrics"]["val_ema"]["loss"]


@pytest.mark.slow
def test_bad_examples_within_the_budget_are_counted(config, splits, tmp_path):
    class OneBad(Tripwire):
        def __getitem__(self, index):
            if index == 7:
                raise DataError("seven.jpg: cannot be decoded")
            return self._source[index]

    bad = splits._replace(test=OneBad(splits.test, 0, None))
    with pytest.raises(DataError, match=r"seven\.jpg"):
        fit(config, tmp_path / "strict", splits=bad)
    config.data.max_bad_examples = 1
    results = fit(config, tmp_path / "tolerant", splits=bad)
    assert results["metrics"]["test"]["examples"] == 29
    assert results["bad_examples"] == {"test": 1}


@pytest.mark.slow
def test_a_diverging_run_stops_and_saves_nothing_of_it(config, splits, tmp_path):
    config.optimizer.name = "sgd"
    config.optimizer.schedule = "constant"
    config.optimizer.warmup = "0 steps"
    config.optimizer.learning_rate = 1e38
    config.max_skipped = 2
    with pytest.raises(NonFiniteError, match="not finite in 3 steps in a row before step 3"):
        fit(config, tmp_path, splits=splits)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer.learning_rate": 0.5}, "config.optimizer.learning_rate was 0.002 and is 0.5"),
        pytest.param(
            {"train_for": "40 steps"},
            "config.train_for was '20 steps' and is '40 steps'",
            marks=pytest.mark.slow,
        ),
        pytest.param({"seed": 3}, "config.seed was 0 and is 3", marks=pytest.mark.slow),
    ],
)
def test_another_experiment_in_the_same_workdir_is_refused(
    config, splits, tmp_path, change, message, capsys
):
    fit(config, tmp_path, splits=splits)
    before = contents(tmp_path)
    config.update_from_flattened_dict(change)
    with pytest.raises(ConfigError, match=message):
        fit(config, tmp_path, splits=splits)
    after = contents(tmp_path)
    assert {k: v for k, v in after.items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }
    config.checkpoint.allow_changes = True
    results = fit(config, tmp_path, splits=splits)
    assert results["step"] == (40 if "train_for" in change else 20)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_other_data_in_the_same_workdir_are_refused(config, splits, tmp_path):
    trap = splits._replace(train=Tripwire(splits.train, 24 * 3, send(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        fit(config, tmp_path, splits=trap)
    other = splits._replace(train=ArraySource(splits.train._images, splits.train.labels[::-1]))
    with pytest.raises(ConfigError, match="the train split changed"):
        fit(config, tmp_path, splits=other)


def test_a_workdir_in_use_is_refused(config, splits, tmp_path):
    with only_one_run(tmp_path), pytest.raises(TemporaryError, match="in use by another run"):
        fit(config, tmp_path, splits=splits)
    fit(config, tmp_path, splits=splits)


@pytest.mark.slow
def test_damaged_results_are_made_again(config, splits, tmp_path, capsys):
    results = fit(config, tmp_path, splits=splits)
    (tmp_path / "results.json").write_text('{"step": 2')
    assert fit(config, tmp_path, splits=splits)["metrics"] == results["metrics"]
    assert "results.json is damaged" in capsys.readouterr().err


def test_metrics_cut_short_by_a_kill_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "trai')
    assert [line["step"] for line in read_metrics(path)] == [1]


@pytest.mark.slow
def test_a_disk_full_keeps_the_earlier_checkpoints(config, splits, tmp_path, monkeypatch):
    fit(config, tmp_path, splits=splits)
    import orbax.checkpoint as ocp

    saved = ocp.CheckpointManager.save

    def full(self, step, *args, **kwargs):
        if step > 25:
            raise OSError(28, "No space left on device")
        return saved(self, step, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    config.train_for = "40 steps"
    config.checkpoint.allow_changes = True
    with pytest.raises(TemporaryError, match="No space left on device"):
        fit(config, tmp_path, splits=splits)
    monkeypatch.undo()
    assert fit(config, tmp_path, splits=splits)["step"] == 40
