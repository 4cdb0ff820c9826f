"""The throughput program: its flags, its arithmetic, and whole runs of it."""

import csv
import doctest
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks.hardware import named_accelerator
from benchmarks.throughput import figures, measuring, reporting, running
from benchmarks.throughput.job import OUT_OF_MEMORY, Job, make_jobs, match_models
from benchmarks.throughput.running import Runner, ports
from benchmarks.throughput.timing import Clock, compile_by_stages
from benchmarks.throughput.working import choose_devices
from tests.conftest import ROOT
from tests.programs import environment
from tests.test_hosts import free_address
from zoo.errors import ConfigError

FLAGS = {
    "models": ["lenet5", "mlp"],
    "mode": "both",
    "input": "device",
    "data": None,
    "devices": [],
    "batch": 8,
    "fold": False,
    "dtype": "bfloat16",
    "steps": 40,
    "help": None,
}
GOOD = {
    "model": "lenet5",
    "mode": "train",
    "input": "device",
    "data": "noise",
    "dtype": "float32",
    "folded": False,
    "image_shape": [32, 32, 1],
    "batch_per_device": 8,
    "batch": 8,
    "devices": 1,
    "device_kind": "cpu",
    "simulated": False,
    "processes": 1,
    "process": 0,
    "trace_seconds": 0.1,
    "lower_seconds": 0.2,
    "compile_seconds": 0.3,
    "first_step_seconds": 0.4,
    "step_compiled": False,
    "peak_memory_bytes": 3 * 2**20,
    "peak_memory_by": "compiler",
    "steps": 40,
    "ms_per_step": {"median": 2.0, "p10": 1.5, "p90": 1234.5, "drift": -0.01},
    "images_per_second": 4000.0,
    "images_per_second_per_chip": 4000.0,
    "flops_per_image": 1e9,
    "mfu": 0.25,
    "memory_roof": None,
    "input_wait": 0.001,
}


def test_jobs_are_models_by_modes_by_devices():
    jobs = make_jobs(FLAGS | {"devices": ["1", "2"]})
    assert [(j.model, j.mode, j.devices) for j in jobs] == [
        (model, mode, count)
        for model in ("lenet5", "mlp")
        for mode in ("infer", "train")
        for count in (1, 2)
    ]
    assert {(j.batch_per_device, j.dtype, j.steps, j.data) for j in jobs} == {
        (8, "bfloat16", 40, "mock:1000")
    }
    assert [j.devices for j in make_jobs(FLAGS | {"mode": "train"})] == [None, None]
    folded = make_jobs(FLAGS | {"fold": True, "models": ["lenet5"]})
    assert [(j.mode, j.folded) for j in folded] == [("infer", True), ("train", False)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"models": None}, "--models is missing"),
        ({"models": ["resnet5"]}, "'resnet5' matches no model. Did you mean"),
        ({"devices": ["1", "two"]}, "--devices: 'two' must be a number"),
        ({"devices": ["0"]}, "--devices: '0' must be a number"),
        ({"input": "real"}, "real input is named by --data"),
        ({"data": "digits"}, "other input has none"),
        ({"mode": "train", "fold": True}, "--fold is for inference"),
    ],
)
def test_flags_that_cannot_work_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        make_jobs(FLAGS | changes)


def test_patterns_and_aliases_name_each_model_once():
    names = match_models(["vgg1?", "vgg16", "mobilenetv2_100"])
    assert names == ["vgg11", "vgg13", "vgg16", "vgg19", "mobilenet_v2"]


def test_devices_are_as_many_of_each_process():
    devices = [SimpleNamespace(id=i, process_index=i // 4) for i in range(8)]
    assert [d.id for d in choose_devices(devices, 4)] == [0, 1, 4, 5]
    assert choose_devices(devices, None) == devices
    for count, text in ((3, "2 processes, which take as many each"), (16, "there are 8")):
        with pytest.raises(ConfigError, match=text):
            choose_devices(devices, count)


def test_times_become_medians_and_drift():
    ms = figures.steady([0.010] * 15 + [0.020] * 14 + [0.100])
    assert (ms["median"], ms["p10"], ms["drift"]) == (15.0, 10.0, 1.0)
    assert ms["mean"] == pytest.approx(1e3 * (0.15 + 0.28 + 0.1) / 30, abs=1e-4)
    assert ms["p90"] == 20.0
    rate = figures.rates(ms, batch=30, chips=2, feeds="device")
    assert rate == {
        "images_per_second": 2000.0,
        "images_per_second_per_chip": 1000.0,
        "images_per_second_by": "median",
    }
    whole = figures.rates(ms, batch=30, chips=2, feeds="host")
    assert whole["images_per_second"] == pytest.approx(30 * 30 / 0.53, abs=0.1)


def test_shares_are_of_the_chip():
    known = {"flops_per_image": 8e9, "images_per_second_per_chip": 1000.0, "bytes_per_image": 4e8}
    card = named_accelerator("H200")
    share = figures.shares(card, mode="train", dtype="bfloat16", **known)
    assert share == {"mfu": round(24e12 / 989.4e12, 4), "memory_roof": round(4e11 / 4.8e12, 4)}
    half = figures.shares(card, mode="infer", dtype="float32", **known)
    assert half["mfu"] == round(8e12 / 494.7e12, 4)
    assert figures.shares(None, mode="infer", dtype="float32", **known) == {
        "mfu": None,
        "memory_roof": None,
    }


def test_scaling_is_against_the_fewest_devices():
    rates = {1: 100.0, 2: 90.0, 4: 75.0}
    rows = [GOOD | {"devices": n, "images_per_second_per_chip": r} for n, r in rates.items()]
    other = GOOD | {"mode": "infer"}
    halved = GOOD | {"devices": 8, "batch_per_device": 4}
    failed = {"model": "lenet5", "mode": "train", "error": "no"}
    figures.scaling([*rows, other, halved, failed])
    assert [row["scaling_efficiency"] for row in rows] == [1.0, 0.9, 0.75]
    assert not any("scaling_efficiency" in row for row in (other, halved, failed))


def test_the_table_shows_what_was_measured_and_what_failed():
    text = figures.table([GOOD, {"model": "vgg16", "mode": "infer", "error": "no room"}])
    header, row, failed = text.splitlines()
    cells = dict(zip(header.split("  "), row.split("  "), strict=False))
    assert cells["model"].strip() == "lenet5"
    for part in ("4,000", "1.5 to 1,234", "-1.0%", "0.30 kept", "3", "25.0%", "0.1%"):
        assert part in row
    assert failed == "FAILED vgg16 infer: no room"


def test_examples_in_docstrings_hold():
    for module in (figures, reporting):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed, module


@pytest.mark.parametrize("ahead", [False, True])
def test_the_clock_times_each_step_and_the_wait_for_batches(ahead):
    made = []

    def feed():
        while True:
            time.sleep(0.004)
            yield np.zeros(1)

    def step(batch):
        made.append(time.perf_counter())
        time.sleep(0.002)
        return batch

    clock = Clock(ahead)
    clock.run(step, feed(), 10)
    assert len(clock.seconds) == 10
    assert len(made) == 11 + ahead
    assert min(clock.seconds) >= 0.006
    assert 0.04 <= clock.waited <= sum(clock.seconds) - 0.02


def test_stages_compile_what_the_function_then_uses():
    function = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jax.numpy.zeros(3)
    with measuring.count_compilations() as programs:
        stages, compiled = compile_by_stages(function, (x,))
        assert programs.needed == 1
        function(x)
        assert programs.needed == 1
    assert list(stages) == ["trace_seconds", "lower_seconds", "compile_seconds"]
    assert compiled.memory_analysis().output_size_in_bytes == 12


def test_no_room_is_known_from_other_errors(capsys):
    full = measuring.explain(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes."))
    assert full.exit_code == OUT_OF_MEMORY
    assert measuring.explain(ConfigError("x")).exit_code == 78
    assert measuring.explain(ValueError("odd")).exit_code == 1
    assert "ValueError: odd" in capsys.readouterr().err


class Fake(Runner):
    """Has room for so many images."""

    def __init__(self, room, code=OUT_OF_MEMORY, alone=True):
        super().__init__(1, alone=alone)
        self._room, self._code, self.tried = room, code, []

    def _once(self, job):
        self.tried.append(job.batch_per_device)
        if job.batch_per_device > self._room:
            return self._code, None, "no room"
        return 0, {"batch_per_device": job.batch_per_device}, ""


def test_a_batch_without_room_is_halved_until_it_fits(capsys):
    asked = Job("lenet5", "train", batch_per_device=24)
    fake = Fake(room=6)
    assert fake.run(asked) == {"batch_per_device": 6, "batch_per_device_asked": 24}
    assert fake.tried == [24, 12, 6]
    fake = Fake(room=0)
    assert fake.run(asked)["error"] == "no room with a batch of 1"
    assert fake.tried == [24, 12, 6, 3, 1]
    assert "no room for 24 images, trying 12" in capsys.readouterr().out


def test_only_a_lone_process_takes_a_kill_for_no_room():
    for alone, tried in ((True, [2, 1]), (False, [2])):
        fake = Fake(room=1, code=-signal.SIGKILL, alone=alone)
        fake.run(Job("lenet5", "train", batch_per_device=2))
        assert fake.tried == tried
    fake = Fake(room=1, code=78)
    assert fake.run(Job("lenet5", "train", batch_per_device=2))["error"] == "no room"


def test_each_measurement_has_a_port_of_its_own():
    given = ports({"JAX_COORDINATOR_ADDRESS": "host0:1234"})
    assert [next(given)["JAX_COORDINATOR_ADDRESS"] for _ in range(2)] == [
        "host0:1234",
        "host0:1235",
    ]
    found = ports({})
    assert [next(found)["JAX_COORDINATOR_PORT"] for _ in range(2)] == ["8482", "8483"]


def test_what_takes_too_long_is_ended(monkeypatch):
    def run(command, **kwargs):
        raise subprocess.TimeoutExpired(command, kwargs["timeout"])

    monkeypatch.setattr(running.subprocess, "run", run)
    row = Runner(7, alone=True).run(Job("lenet5", "train"))
    assert row["error"] == "not done in 7 s (--timeout)"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.throughput", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(), capture_output=True, text=True
    )


@pytest.mark.slow
def test_it_measures_and_writes_what_it_printed(tmp_path):
    out = tmp_path / "both"
    done = run("--models=lenet5", "--batch=8", "--dtype=bfloat16", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "xla_flags: --xla_cpu" in done.stdout.splitlines()[0]
    result = json.loads(out.with_suffix(".json").read_text())
    assert str(out.with_suffix(".json")) in done.stdout
    assert [row["mode"] for row in result["rows"]] == ["infer", "train"]
    assert {"command", "date", "commit", "versions", "load_average", "xla_flags"} <= {*result}
    for row in result["rows"]:
        assert row["steps"] == 30
        assert row["images_per_second"] == pytest.approx(8e3 / row["ms_per_step"]["median"], 0.01)
        assert min(row[f"{s}_seconds"] for s in ("trace", "lower", "compile", "first_step")) > 0
        assert row["peak_memory_bytes"] > 4 * 61_706  # LeNet-5's weights, with 10 classes
        assert not row["simulated"]
    with out.with_suffix(".csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["mode"] for line in lines] == ["infer", "train"]
    assert float(lines[0]["ms_per_step.median"]) == result["rows"][0]["ms_per_step"]["median"]


@pytest.mark.slow
def test_simulated_devices_say_so_and_a_model_that_fails_stops_no_other(tmp_path):
    """LeNet-5 takes images of 32x32 only."""
    out = tmp_path / "eight"
    flags = ["--models=lenet5,mlp", "--mode=infer", "--image_size=28", "--batch=4"]
    done = run(*flags, "--simulate_devices=8", "--devices=2,8", f"--out={out}")
    assert done.returncode == 1, done.stderr
    assert "SIMULATED" in done.stdout
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [(row["model"], "error" in row) for row in rows] == [
        ("lenet5", True),
        ("lenet5", True),
        ("mlp", False),
        ("mlp", False),
    ]
    assert "32" in rows[0]["error"]
    good = rows[2:]
    assert [(row["devices"], row["batch"], row["simulated"]) for row in good] == [
        (2, 8, True),
        (8, 32, True),
    ]
    assert good[0]["scaling_efficiency"] == 1
    ratio = good[1]["images_per_second_per_chip"] / good[0]["images_per_second_per_chip"]
    assert good[1]["scaling_efficiency"] == pytest.approx(ratio, abs=1e-3)


@pytest.mark.slow
def test_two_processes_measure_together_and_one_reports(tmp_path):
    address = free_address()
    flags = ["--models=mlp", "--mode=train", "--batch=4", "--input=host"]
    processes = [
        subprocess.Popen(
            command(*flags, f"--out={tmp_path / str(i)}"),
            cwd=ROOT,
            env=environment(
                JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(i)
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    texts = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    assert sorted(os.listdir(tmp_path)) == ["0.csv", "0.json"]
    (row,) = json.loads((tmp_path / "0.json").read_text())["rows"]
    assert (row["processes"], row["devices"], row["batch"], row["simulated"]) == (2, 2, 8, True)
    assert "process 0 has the results" in texts[1][0]
    assert "SIMULATED" in texts[0][0]
