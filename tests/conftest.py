"""Eight simulated devices, real digits in memory, and a compilation cache of their own."""

import os
from pathlib import Path
import tempfile

# Made by the first process of a test run, shared by its workers, gone with it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    SCRATCH = tempfile.TemporaryDirectory(prefix="zoo_tests_")
    os.environ["ZOO_TESTS"] = SCRATCH.name
    os.environ["ZOO_TESTS_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "")  # for `-m device`
# Most of what is compiled here runs once: the compiler's last refinements cost more than they save.
# The programs that tests start (tests/programs.py) are compiled as they are for everyone.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 "
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{os.environ['ZOO_TESTS']}/compiled"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["TFDS_DATA_DIR"] = f"{os.environ['ZOO_TESTS']}/tensorflow_datasets"

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from configs import lenet_digits
from zoo.data.source import ArraySource, Splits
from zoo.ops import onednn

ROOT = Path(__file__).parent.parent

jax.devices()  # started: programs that tests call as functions set no flags any more


@pytest.fixture(scope="session")
def splits() -> Splits:
    """Real digits in memory: 200 to train on, 50 to validate, 30 to test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    names = [str(i) for i in range(10)]
    parts = [slice(0, 200), slice(200, 250), slice(250, 280)]
    return Splits(*(ArraySource(images[p], digits.target[p], names) for p in parts))


@pytest.fixture
def config() -> ConfigDict:
    """A recipe of 20 steps of 24 digits, evaluated every 10 and saved every 5."""
    config = lenet_digits.get_config()
    config.batch_size = 24
    config.train_for = "20 steps"
    config.log_every = "1 step"
    config.evaluate_every = "10 steps"
    config.checkpoint.every = "5 steps"
    config.optimizer.warmup = "2 steps"
    return config


@pytest.fixture
def use_onednn():
    """oneDNN for the length of a test: others are compared bit by bit with earlier results."""
    onednn.enable()
    yield
    onednn._state["enabled"] = False
    jax.clear_caches()


@pytest.fixture(scope="session")
def devices() -> list[jax.Device]:
    """The eight simulated devices."""
    assert jax.device_count() == 8
    return jax.devices()


def pytest_terminal_summary(terminalreporter):
    """Prints the README's model table after the parity tests."""
    results = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "parity"
    ]
    if results:
        from tests.parity.table import model_table

        terminalreporter.section("parity with other implementations")
        for line in model_table(results):
            terminalreporter.write_line(line)
