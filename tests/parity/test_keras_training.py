"""The networks that benchmarks/keras_training.py trains are those of the recipes."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# A field of each, slightly wrong, which the comparison has to notice.
WRONG = {
    "resnet": "--config.model.arguments={'norm_momentum': 0.91}",
    "mobilenet": "--config.model.arguments={'norm_epsilon': 1.1e-3}",
}


def check(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.keras_training", "--check", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["lenet", "resnet", "mobilenet"])
def test_keras_has_the_same_network(recipe):
    done = check(f"--config=configs/{recipe}_mnist.py")
    assert done.returncode == 0, done.stderr
    assert "the same network" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["resnet", "mobilenet"])
def test_another_network_is_noticed(recipe):
    done = check(f"--config=configs/{recipe}_mnist.py", WRONG[recipe])
    assert done.returncode == 1 and "not the same network" in done.stderr


@pytest.mark.slow
def test_a_recipe_that_keras_would_train_otherwise_is_refused():
    done = check("--config=configs/lenet_mnist.py", "--config.optimizer.clip_norm=1.0")
    assert done.returncode == 1
    assert "config.optimizer.clip_norm=1.0: this program translates nothing but" in done.stderr
