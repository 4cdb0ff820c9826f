"""What is asked before a run: what would train, what it costs, whether gradients are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mlp_digits, resnet_digits
from zoo.errors import GradientError
from zoo.training import gradients
from zoo.training.loop import fit


def test_a_dry_run_says_what_would_train_and_writes_nothing(splits, tmp_path, capsys):
    config = mlp_digits.get_config("smoke")
    config.model.arguments = {"widths": (8, 8)}
    config.batch_size = 16
    config.optimizer.learning_rate = 0.5
    config.optimizer.weight_decay = 0.01
    config.optimizer.groups = (
        ("hidden1/.*", {"frozen": True}),
        (".*/bias", {"rate": 0.1, "weight_decay": 0.0}),
        (".*", {}),
    )
    config.dry_run = True
    found = fit(config, tmp_path / "run", splits=splits, devices=jax.devices()[:1])
    columns = ("pattern", "parameters", "rate", "decay", "parameters that decay")
    assert [tuple(row[name] for name in columns) for row in found["groups"]] == [
        ("hidden1/.*", 64 * 8 + 8, "frozen", "0", 0),
        (".*/bias", 8 + 10, "0.05", "0", 0),
        (".*", 8 * 8 + 8 * 10, "0.5", "0.01", 8 * 8 + 8 * 10),
    ]
    assert found["cost"]["parameters"] == "0.0 MiB"
    assert float(found["cost"]["operations"].split()[0]) > 0
    assert not (tmp_path / "run").exists()
    out = capsys.readouterr().out
    assert "What trains" in out and "hidden1/.*" in out and "GFLOP" in out


def test_a_dry_run_says_what_decays_and_what_each_device_does(splits, devices, tmp_path, capsys):
    config = mlp_digits.get_config("smoke")
    config.model.arguments = {"widths": (512,)}
    config.batch_size = 16
    config.optimizer.weight_decay = 0.01
    config.optimizer.decay = "head/.*"
    config.dry_run = True
    found = []
    for count, fsdp in ((1, 1), (8, 1), (8, 8)):
        config.parallel.fsdp = fsdp
        found.append(fit(config, tmp_path / "run", splits=splits, devices=devices[:count]))
        [row] = found[-1]["groups"]
        assert row["parameters that decay"] == 512 * 10 + 10  # biases too, as they are named
        each = f", on each of {count} devices:"
        assert (each in capsys.readouterr().out) == (count > 1)
    one, eight, spread = (
        {name: float(value.split()[0]) for name, value in f["cost"].items()} for f in found
    )
    assert eight["operations"] < one["operations"] / 2  # the update is made by each
    assert eight["optimiser's state"] == one["optimiser's state"] == 0.3
    assert spread["optimiser's state"] < 0.1


@jax.custom_vjp
def wrong(x):
    return x**2


wrong.defvjp(lambda x: (x**2, x), lambda x, g: (2.02 * x * g,))


@pytest.mark.parametrize(("square", "error"), [(jnp.square, 0.0), (wrong, 0.01)])
def test_slopes_are_compared_in_float64(square, error):
    with jax.enable_x64(True):
        params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))}
        (row,) = gradients.compare_slopes(lambda p: square(p["w"]).sum(), params, 0)
    assert row["path"] == "w"
    assert row["error"] == pytest.approx(error, abs=1e-3)
    assert (row["error"] < 1e-6) == (error == 0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_checked_with_batch_norm_dropout_and_frozen_groups(splits, tmp_path, dtype):
    config = resnet_digits.get_config("smoke")
    config.model.arguments = {"stage_sizes": (1, 1)}
    config.model.dtype = dtype
    config.optimizer.groups = (("stem.*", {"frozen": True}), (".*", {}))
    config.check_gradients = True
    found = fit(config, tmp_path / "run", splits=splits)
    assert found["largest_error"] < 1e-4
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_wrong_gradient_ends_the_check(splits, tmp_path):
    config = mlp_digits.get_config("smoke")
    config.check_gradients = True

    @jax.custom_vjp
    def relu(x):
        return jnp.maximum(x, 0)

    relu.defvjp(lambda x: (jnp.maximum(x, 0), x), lambda x, g: (1.1 * g * (x > 0),))
    config.model.arguments = {"widths": (8,), "activation": relu}
    with pytest.raises(GradientError, match=r"the gradient of hidden1/.* is off by 0\.0?9"):
        fit(config, tmp_path / "run", splits=splits)
