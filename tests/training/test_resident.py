"""Data on the devices and several seeds at once: the same training as ever."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from configs import lenet_digits, mlp_digits
from tests.training.test_loop import assert_same_bits, final_state, log_of
from zoo.errors import ConfigError, DataError, Interrupted, NonFiniteError
from zoo.training import epochs, replicas
from zoo.training.checkpoint import Checkpoints
from zoo.training.loop import fit
from zoo.training.setup import build

ROUNDING = {"rtol": 2e-4, "atol": 2e-5}  # of another program for the same numbers, float32


@pytest.fixture
def config():
    """Dropout, augmentation, mixing and an average, over two epochs and a bit of 200 digits."""
    config = mlp_digits.get_config()
    config.model.arguments = {"widths": (16,), "dropout_rate": 0.2}
    config.batch_size = 24
    config.train_for = "20 steps"
    config.log_every = "3 steps"
    config.evaluate_every = "10 steps"
    config.checkpoint.every = "5 steps"
    config.optimizer.warmup = "2 steps"
    config.augment.images = (("random_padding_crop", {"padding": 1}),)
    config.augment.mix = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}
    config.average.ema_decay = 0.9
    config.data.max_bad_examples = 1
    return config


class OneBad:
    """A source of which example 7 cannot be decoded."""

    def __init__(self, source):
        self._source = source
        self.class_names, self.fingerprint = source.class_names, source.fingerprint

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        if index == 7:
            raise DataError("seven.jpg: cannot be decoded")
        return self._source[index]

    def describe(self, index):
        return self._source.describe(index)


@pytest.fixture
def flawed(splits):
    return splits._replace(train=OneBad(splits.train))


@pytest.fixture
def in_loops(monkeypatch):
    """Everything as on a GPU: steps in a loop, replicas in one program."""
    for module in (epochs, replicas):
        monkeypatch.setattr(module, "loops_are_fast", lambda mesh: True)


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **ROUNDING)


def assert_close_logs(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert one.get("data/order") == other.get("data/order")
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
def test_held_data_give_the_same_bits(config, flawed, devices, tmp_path, count, capsys):
    results = {}
    for held in (True, False):
        config.data.resident = held
        folder = tmp_path / str(held)
        results[held] = fit(config, folder, splits=flawed, devices=devices[:count])
        assert f"held_by={'devices' if held else 'host'}" in capsys.readouterr().out
    assert results[True]["metrics"] == results[False]["metrics"]
    assert results[True]["bad_examples"] == results[False]["bad_examples"] == {"train": 1}
    assert log_of(tmp_path / "True") == log_of(tmp_path / "False")
    one, other = (final_state(config, flawed, tmp_path / str(held)) for held in (True, False))
    assert_same_bits(one[0], other[0])
    assert one[1]["progress"] == other[1]["progress"]


@pytest.mark.slow
def test_held_data_give_the_same_bits_with_convolutions(splits, tmp_path):
    config = lenet_digits.get_config()
    config.train_for = config.evaluate_every = "10 steps"
    config.average.swa_start = "5 steps"  # BatchNorm has its statistics measured
    config.average.swa_every = "2 steps"
    config.model.name, config.data.channels, config.data.image_size = "resnet20", 1, 16
    for held in (True, False):
        config.data.resident = held
        fit(config, tmp_path / str(held), splits=splits)
    assert log_of(tmp_path / "True") == log_of(tmp_path / "False")
    results = [json.loads((tmp_path / x / "results.json").read_text()) for x in ("True", "False")]
    assert results[0]["metrics"] == results[1]["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
def test_a_loop_is_the_same_training(
    config, flawed, devices, tmp_path, count, in_loops, monkeypatch
):
    config.data.resident = False
    fit(config, tmp_path / "ordinary", splits=flawed, devices=devices[:count])
    calls = []
    advance = epochs.Loop.advance

    def recorded(self, state, step):
        state, metrics, made = advance(self, state, step)
        calls.append((step, step + made))
        return state, metrics, made

    monkeypatch.setattr(epochs.Loop, "advance", recorded)
    config.data.resident = True
    fit(config, tmp_path / "loop", splits=flawed, devices=devices[:count])
    # Every third step is logged, every fifth saved; epochs end in steps 9, 17 and 25.
    assert [stop for _, stop in calls] == [3, 5, 6, 9, 10, 12, 15, 17, 18, 20]
    assert [start for start, _ in calls] == [0, *(stop for _, stop in calls[:-1])]
    assert_close_logs(log_of(tmp_path / "loop"), log_of(tmp_path / "ordinary"))
    one, other = (final_state(config, flawed, tmp_path / x) for x in ("loop", "ordinary"))
    assert_close(one[0], other[0])
    assert one[1]["progress"]["order"] == other[1]["progress"]["order"]


def test_stretches_end_where_something_is_due():
    ends = [0]
    while ends[-1] < 40:
        ends.append(epochs.next_stop(ends[-1], every=(7, 100), epoch=(25, 2), total=40))
    assert ends == [0, 7, 13, 14, 21, 25, 28, 35, 38, 40]
    for size, batch in ((3, 10), (1258, 64), (49, 3), (64, 64)):  # an epoch of less than a step
        stops = [0]
        while stops[-1] < 1000:
            stops.append(
                epochs.next_stop(stops[-1], every=(5000,), epoch=(size, batch), total=1000)
            )
        wanted = {-(-size * e // batch) for e in range(1, 1000 * batch // size + 1)}
        assert set(stops) == {0, 1000} | {s for s in wanted if s < 1000}


@pytest.mark.slow
def test_a_loop_is_compiled_once(config, splits, tmp_path, in_loops, monkeypatch):
    made = []
    make_loop = epochs.make_loop
    monkeypatch.setattr(epochs, "make_loop", lambda *a: made.append(make_loop(*a)) or made[-1])
    fit(config, tmp_path, splits=splits)
    (loop,) = made
    assert loop._cache_size() == 1


def stopped_at(step, monkeypatch, module=epochs.Loop):
    """Has the stretch that contains a step begin with a signal."""
    advance = module.advance

    def interrupted(self, state, begun):
        result = advance(self, state, begun)
        if begun <= step < begun + (result[2] or 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(module, "advance", interrupted)


@pytest.mark.slow
def test_a_loop_interrupted_and_resumed_is_uninterrupted(
    config, flawed, tmp_path, in_loops, monkeypatch
):
    fit(config, tmp_path / "straight", splits=flawed)
    with monkeypatch.context() as patch:
        stopped_at(7, patch)
        with pytest.raises(Interrupted, match="stopped after step 9"):
            fit(config, tmp_path / "broken", splits=flawed)
    fit(config, tmp_path / "broken", splits=flawed)
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "straight")
    one, other = (final_state(config, flawed, tmp_path / x) for x in ("broken", "straight"))
    assert_same_bits(one[0], other[0])
    assert one[1]["progress"] == other[1]["progress"]


@pytest.mark.slow
def test_steps_are_undone_within_a_loop(config, splits, tmp_path, in_loops):
    config.optimizer.name = "sgd"
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = 1e38
    config.max_skipped = 2
    with pytest.raises(NonFiniteError, match="not finite in 4 steps in a row before step 5"):
        fit(config, tmp_path, splits=splits)
    assert not list((tmp_path / "checkpoints").iterdir())


def state_of_seeds(config, splits, workdir):
    setup = replicas.replicate(build(config, splits))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=99, best_step=lambda: None)
    state, record = checkpoints.restore_newest(setup.state_like)
    checkpoints.close()
    return jax.device_get(state), record


def single_runs(config, splits, seeds, tmp_path, devices=None):
    """Trains each seed by itself, and returns its results, final state and log."""
    runs = []
    for seed in seeds:
        config.seed = seed
        results = fit(config, tmp_path / f"single{seed}", splits=splits, devices=devices)
        state, _ = final_state(config, splits, tmp_path / f"single{seed}")
        runs.append((results, state, log_of(tmp_path / f"single{seed}")))
    config.seed = seeds[0]
    return runs


def check_seeds(config, splits, tmp_path, devices, same):
    """Trains seeds 5 and 6 singly and at once, and compares everything."""
    seeds = (5, 6)
    singles = single_runs(config, splits, seeds, tmp_path, devices)
    config.seeds = 2
    results = fit(config, tmp_path / "all", splits=splits, devices=devices)
    state, _ = state_of_seeds(config, splits, tmp_path / "all")
    for i, (_, single, _) in enumerate(singles):
        same(replicas.replica(state, i), single)
    for line, *own in zip(log_of(tmp_path / "all"), *(log for _, _, log in singles), strict=True):
        for name in own[0].keys() - {"step", "epoch", "data/order"}:
            values = [one[name] for one in own]
            assert line[name] == pytest.approx(np.mean(values), rel=1e-3)
            if name != "train/learning_rate":
                deviation = np.std(values, ddof=1)
                assert line[f"{name}_std"] == pytest.approx(deviation, rel=2e-2, abs=1e-4)
    return results


@pytest.mark.slow
def test_each_of_several_seeds_is_its_single_run(config, flawed, devices, tmp_path, capsys):
    config.evaluate_every = "20 steps"  # one, so that the best step is the same for all
    results = check_seeds(config, flawed, tmp_path, devices[:1], assert_same_bits)
    for seed, own in results["seeds"].items():
        single = json.loads((tmp_path / f"single{seed}" / "results.json").read_text())
        assert json.loads(json.dumps(own)) == single["metrics"]
    tops = [own["test"]["top1"] for own in results["seeds"].values()]
    assert tops[0] != tops[1]
    assert results["metrics"]["test"]["top1"] == pytest.approx(np.mean(tops))
    assert results["metrics"]["test"]["top1_std"] == pytest.approx(np.std(tops, ddof=1))
    # weights/ are the best replica's by validation, and seeds/ has all.
    best = max(results["seeds"], key=lambda s: results["seeds"][s]["val"]["top1"])
    assert results["best_seed"] == int(best)
    for name in ("weights", "weights_ema"):
        file = next(p.name for p in (tmp_path / "all" / name).iterdir() if "safe" in p.name)
        for seed in ("5", "6"):
            mine = (tmp_path / "all" / "seeds" / seed / name / file).read_bytes()
            assert mine == (tmp_path / f"single{seed}" / name / file).read_bytes()
            assert (mine == (tmp_path / "all" / name / file).read_bytes()) == (seed == best)
    out = capsys.readouterr().out
    for text in ("seeds=2", "mlp=1,210", "  top1", " % ± "):
        assert text in out
    assert "_std" not in out


@pytest.mark.slow
def test_seeds_in_one_program_are_their_single_runs(config, flawed, devices, tmp_path, in_loops):
    config.optimizer.plateau = {"factor": 0.5, "patience": 1}
    config.evaluate_every = "5 steps"
    check_seeds(config, flawed, tmp_path, devices, assert_close)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [False, True])
def test_several_seeds_interrupted_and_resumed_are_uninterrupted(
    config, splits, tmp_path, at_once, monkeypatch
):
    config.seeds = 2
    config.optimizer.plateau = {"factor": 0.5, "patience": 1}
    for module in (epochs, replicas):
        monkeypatch.setattr(module, "loops_are_fast", lambda mesh: at_once)
    expected = fit(config, tmp_path / "straight", splits=splits)
    with monkeypatch.context() as patch:
        stopped_at(10, patch, epochs.Loop if at_once else epochs.InTurns)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "broken", splits=splits)
    results = fit(config, tmp_path / "broken", splits=splits)
    assert results["metrics"] == expected["metrics"]
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "straight")
    one, other = (state_of_seeds(config, splits, tmp_path / x) for x in ("broken", "straight"))
    assert_same_bits(one[0], other[0])
    assert one[1] == other[1]


@pytest.mark.slow
def test_seeds_with_batch_norm_and_the_mean_of_weights(splits, tmp_path):
    config = lenet_digits.get_config()
    config.train_for = config.evaluate_every = "6 steps"
    config.optimizer.warmup = "0 steps"
    config.average.swa_start = "2 steps"
    config.average.swa_every = "2 steps"
    config.model.name, config.data.channels, config.data.image_size = "resnet20", 1, 16
    singles = single_runs(config, splits, (0, 1), tmp_path)
    config.seeds = 2
    results = fit(config, tmp_path / "all", splits=splits)
    for own, (expected, _, _) in zip(results["seeds"].values(), singles, strict=True):
        assert own == expected["metrics"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 2, "data.resident": False}, "several seeds at once need the data"),
        ({"seeds": 2, "model.weights": "there"}, "config.seeds=2 draws initial weights"),
        ({"seeds": 2, "seed": 2**32 - 1}, "config.seeds=2: config.seed=4294967295 leaves no room"),
        ({"seeds": 0}, "config.seeds=0: must be greater than 0"),
        ({"data.resident": True, "augment.crop": {"scale": (0.5, 1.0)}, "data.cache": False},
         "config.data.resident=True keeps one image per example"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(config, splits, tmp_path, change, message):
    config.update_from_flattened_dict(change)
    with pytest.raises(ConfigError, match=message):
        fit(config, tmp_path / "run", splits=splits)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pmap", "jax.pmap"])
def test_replicas_in_one_program_are_the_same_in_each_mode(
    config, flawed, devices, tmp_path, in_loops, mode
):
    config.seeds = 2
    for chosen in ("jit", mode):
        config.parallel.mode = chosen
        fit(config, tmp_path / chosen, splits=flawed, devices=devices[:4])
    assert_close_logs(log_of(tmp_path / mode), log_of(tmp_path / "jit"))
