"""Turns, ratios and results, with contenders that only pretend to work."""

from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import time
from typing import Any

import jax
import pytest

from benchmarks import record
from benchmarks.peers import by_flax, run, summary, turns
from benchmarks.peers.contenders import CONTENDERS, Contender, Network, choose, network_of
from benchmarks.peers.models import MODELS
from benchmarks.peers.processes import ContenderError, Process, environment
from benchmarks.peers.turns import Limits
from benchmarks.peers.worker import Job
from zoo import describe
from zoo.description import layer_table
from zoo.errors import ConfigError

LIMITS = Limits(rounds=3, turn=0.03, warm_up=0.1, time=5.0, start=20.0)
PRETEND = "tests.benchmarks.pretend"


@pytest.fixture(autouse=True)
def known_network(monkeypatch):
    monkeypatch.setattr(turns, "network_of", lambda *_: Network(1234, 99, ""))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started = []

    def start(name: str = "one", /, **options: Any) -> Process:
        contender = Contender(name, PRETEND, "zoo", "pretends", options=options)
        job = Job(PRETEND, "resnet50", 4, 8, (0,), 1, 0.1, 0.0, options)
        variables = environment(contender, 1, tmp_path)
        started.append(Process(contender, job, variables, tmp_path / f"{name}.log"))
        return started[-1]

    yield start
    for process in started:
        process.close()


def take_all(processes: dict[str, Process], limits: Limits = LIMITS) -> dict[str, Any]:
    entries = turns.begin(processes, "train", "resnet50", 8, limits)
    turns.compare(processes, entries, limits)
    turns.end(processes, entries)
    return entries


def test_contenders_take_turns_in_every_round(start, tmp_path):
    diary = tmp_path / "diary"
    names = ["a", "b", "c"]
    processes = {n: start(n, name=n, diary=str(diary), sleeps=0.03) for n in names}
    entries = take_all(processes)
    assert [entries[n]["parameters"] for n in names] == [1234] * 3
    rounds = [line.split()[0] for line in diary.read_text().split("\n")[:-1]]
    # With a step below a quarter of a second each turn is an untimed step and a timed one.
    assert rounds[-18:] == ["a", "a", "b", "b", "c", "c"] * 3
    for entry in entries.values():
        assert [turn["round"] for turn in entry["turns"]] == [0, 1, 2]
        assert all(turn["seconds"] >= 0.03 for turn in entry["turns"])
        assert all(turn["processor_seconds"] < 0.03 for turn in entry["turns"])  # it slept


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_threads_that_spin_stand_still_while_others_work(start):
    spinning = start(spins=True)
    spinning.ask({"begin": "train"}, 20)
    time.sleep(0.05)  # the signal takes effect
    before = processor_seconds(spinning.pid)
    time.sleep(0.3)
    assert processor_seconds(spinning.pid) - before <= 0.02
    assert spinning.ask({"steps": 1}, 20)["seconds"] < 5  # and it goes on


def test_slow_contender_has_fewer_rounds_and_never_none(start):
    limits = Limits(rounds=5, turn=0.1, warm_up=0.1, time=1.5, start=20)
    entries = take_all(
        {"slow": start("slow", sleeps=0.6), "fast": start("fast", sleeps=0.01)}, limits
    )
    assert len(entries["slow"]["turns"]) == turns.LEAST_ROUNDS
    assert entries["slow"]["steps_per_turn"] == 1
    assert len(entries["fast"]["turns"]) == 5
    assert 2 <= entries["fast"]["steps_per_turn"] <= 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cannot": ["train"]}, "ValueError: there is no train here"),
        ({"dies_at": 1}, "its process ended with code 7: something terrible"),
        ({"dies_at": 4}, "its process ended with code 7: something terrible"),
    ],
)
def test_failure_is_told_and_others_go_on(start, options, message):
    processes = {"bad": start("bad", **options), "good": start("good", sleeps=0.02)}
    entries = take_all(processes)
    assert entries["bad"]["error"] == message
    assert "error" not in entries["good"] and len(entries["good"]["turns"]) == 3
    assert not processes["bad"].alive and processes["good"].alive


def test_contender_that_hangs_is_ended(start):
    process = start(hangs_at=2)
    process.ask({"begin": "train"}, 20)
    with pytest.raises(ContenderError, match="no answer within 0 s"):
        process.ask({"steps": 1}, 0.2)
    assert not process.alive


def test_network_of_another_size_does_not_take_part(start, monkeypatch):
    monkeypatch.setattr(turns, "network_of", lambda *_: Network(1235, 99, ""))
    entries = take_all({"one": start()})
    assert "has 1,234 parameters; the same one in zoo has 1,235" in entries["one"]["error"]
    assert "turns" not in entries["one"]


def test_environment_of_the_caller_does_not_reach_contenders(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("HOME", "/somewhere")
    variables = environment(CONTENDERS["flax"], 2, tmp_path)
    assert "XLA_FLAGS" not in variables
    assert variables["OMP_NUM_THREADS"] == "2" and variables["HOME"] == "/somewhere"
    assert "individual_convolution" in environment(CONTENDERS["zoo"], 2, tmp_path)["XLA_FLAGS"]


def result(work: str = "infer", model: str = "resnet50", **seconds: Any) -> dict[str, Any]:
    """A result of batch 10; None in place of seconds is a round without a turn."""
    contenders = {
        name: {"turns": [{"round": i, "seconds": s} for i, s in enumerate(values) if s]}
        for name, values in seconds.items()
    }
    group = MODELS[model].group
    return {"model": model, "work": work, "group": group, "batch": 10, "contenders": contenders}


def test_ratio_pairs_rounds_with_the_row_of_the_best_median():
    some = result(
        zoo=[1.0, 1.0, 2.0],
        torch=[1.0, 1.0, 1.0],
        torch_compile=[2.0, 0.5, 0.8],
        onnxruntime=[None, 0.25, 0.5],
    )
    assert summary.rate(some, "torch_compile") == (12.5, 5.0, 20.0)
    best = summary.compare(some, ("torch", "torch_compile"))
    assert best is not None and best.peer == "torch_compile"
    assert best.by_round == pytest.approx({0: 2.0, 1: 0.5, 2: 0.4})
    assert best.spread == pytest.approx((0.5, 0.4, 2.0))
    partly = summary.compare(some, ("torch", "onnxruntime"))
    assert partly is not None and partly.by_round == pytest.approx({1: 0.25, 2: 0.25})
    assert summary.compare(some, ("keras",)) is None


def test_unfolded_network_stands_in_where_folding_failed():
    some = result(zoo=[], zoo_unfolded=[1.0], torch=[2.0])
    ratio = summary.compare(some, ("torch",))
    assert ratio is not None and (ratio.ours, ratio.by_round) == ("zoo_unfolded", {0: 2.0})


def test_geometric_mean_is_taken_within_rounds():
    ratios = [
        summary.Ratio("zoo", "torch", {0: 1.0, 1: 4.0, 2: 2.0}),
        summary.Ratio("zoo", "torch", {0: 4.0, 1: 1.0}),
    ]
    assert summary.geometric_mean(ratios) == pytest.approx((5**0.5, 2.0, 5**0.5))


def test_table_tells_models_groups_and_failures():
    some = [
        result("train", zoo=[1.0], torch=[2.0]),
        result("train", "vgg16", zoo=[1.0], torch=[8.0]),
        result("train", "mobilenet_v2", zoo=[], torch=[8.0]),
        result("train", "xception", zoo=[2.0], torch=[1.0]),
    ]
    text = "\n".join(summary.ratios_table(some, "train"))
    assert "| **dense**, geometric mean | |  |  | 4.00 (4.00-4.00) |" in text
    assert "| mobilenet_v2 | failed |" in text
    assert "| **light**, geometric mean | |  |  | 0.50 (0.50-0.50), of 1 of 2 |" in text
    failed = {"error": "it broke", "differs": "-1% parameters"}
    lines = summary.rates_table(
        {**some[0], "image_size": 8, "contenders": {"torch": failed, "keras": {"absent": "none"}}}
    )
    assert "-1% parameters; FAILED: it broke" in lines[1] and lines[2].endswith("none")


def test_stopped_run_goes_on(monkeypatch, tmp_path):
    works = {"infer": ("infer",), "both": ("train", "infer")}
    pretended = {
        name: Contender(name, PRETEND, "zoo", "pretends", works[key], {"sleeps": 0.01})
        for name, key in (("zoo", "both"), ("torch", "both"), ("onnxruntime", "infer"))
    }
    pretended["keras"] = Contender("keras", PRETEND, "keras", "pretends")
    monkeypatch.setattr(run, "CONTENDERS", pretended)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    # Git is asked where the results are kept.
    monkeypatch.setattr(run, "surroundings", lambda *_, **__: {"commit": "abc"})
    limits = Limits(rounds=2, turn=0.02, warm_up=0.05, time=5, start=20)

    def settings(*models: str, batch: int = 4) -> run.Settings:
        return run.Settings(
            models=models,
            works=("train", "infer"),
            contenders=tuple(pretended),
            batch=batch,
            size=8,
            threads=1,
            xla_flags=None,
            limits=limits,
            cache=tmp_path,
            name="tried",
        )

    first = settings("alexnet", "resnet18")
    measuring = run.measure_all(first, run.Results(first, resume=False))
    made, file = next(measuring)
    measuring.close()  # stopped after one
    assert (made["model"], made["work"]) == ("alexnet", "train")
    assert set(made["contenders"]) == {"zoo", "torch", "keras"}
    assert "not there" in made["contenders"]["keras"]["absent"]
    results = run.Results(first, resume=True)
    assert [(r["model"], r["work"]) for r, _ in run.measure_all(first, results)] == [
        ("alexnet", "infer"),
        ("resnet18", "train"),
        ("resnet18", "infer"),
    ]
    kept = json.loads(file.read_text())
    assert kept["alexnet train"] == json.loads(json.dumps(made))
    assert len(kept["resnet18 infer"]["contenders"]["onnxruntime"]["turns"]) == 2
    with pytest.raises(ConfigError, match="measured with batch=4, not 5"):
        run.Results(settings("alexnet", batch=5), resume=True)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"--models='resnet51': no such.*resnet50"):
        choose(["vgg16", "resnet51"], MODELS, "models")


def test_variant_of_a_peer_is_described():
    same, other = (network_of("resnet50", family, 64) for family in ("torch", "keras"))
    assert (same.parameters, same.differs) == (25_557_032, "")
    # https://keras.io/api/applications: 25.6 million with biases; the strides are elsewhere.
    assert other.parameters == 25_583_592 and other.macs < same.macs
    assert "resnet50_v1" in other.differs and "multiply-adds" in other.differs


def test_plain_flax_network_is_resnet50():
    rows, out, variables = layer_table(by_flax.ResNet50(), (64, 64, 3), train=False)
    expected = describe("resnet50", image_shape=(64, 64, 3))
    count = sum(p.size for p in jax.tree.leaves(variables["params"]))
    assert (count, out.shape) == (expected.parameters, (1, 1000))
    assert sum(row.macs for row in rows) == expected.macs
