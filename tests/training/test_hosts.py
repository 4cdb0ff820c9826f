"""One process of one: simulated devices, and errors that are not another process's."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.programs import environment
from zoo.errors import ConfigError, TemporaryError
from zoo.training import hosts
from zoo.training.hosts import lost_process, simulate_devices


def test_an_accelerator_cannot_be_simulated(monkeypatch):
    monkeypatch.setattr(hosts, "_platforms", lambda: "cuda")
    with pytest.raises(ConfigError, match=r"simulate_devices=3 is for the CPU, .*=cuda"):
        simulate_devices(3)


def test_devices_are_simulated_before_jax_starts_or_not_at_all(devices):
    simulate_devices(len(devices))
    simulate_devices(0)
    with pytest.raises(ConfigError, match=r"simulate_devices=3: JAX has started with 8 device"):
        simulate_devices(3)


def test_devices_can_be_simulated_in_a_new_process():
    program = (
        "import jax; from zoo.training.hosts import simulate_devices; simulate_devices(3); "
        "print(jax.device_count(), jax.devices()[0].platform)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(JAX_PLATFORMS=""),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.split() == ["3", "cpu"], done.stderr


def test_an_error_of_the_network_is_told_from_others(monkeypatch):
    lost = RuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    assert lost_process(lost) is None  # there is no other process
    monkeypatch.setattr(hosts, "several", lambda: True)
    assert isinstance(lost_process(lost), TemporaryError)
    assert lost_process(RuntimeError("RESOURCE_EXHAUSTED: out of memory")) is None
    assert lost_process(ConfigError("gloo is no optimizer")) is None
    failed = TemporaryError("a checkpoint could not be saved")
    failed.__cause__ = RuntimeError("UNAVAILABLE: Socket closed")
    assert "another process is gone (UNAVAILABLE" in str(lost_process(failed))
