"""Runs on a folder of images with a table of numbers, from the files to the figures."""

import csv

import numpy as np
from PIL import Image
import pytest

from zoo.data.source import ArraySource, Splits
from zoo.errors import ConfigError
from zoo.training.loop import fit
from zoo.training.setup import build, open_data


@pytest.fixture
def brightness(config, tmp_path):
    """Images of two grey halves; `write` makes tables of what it is told of their brightness."""
    config.data.name = f"folder:{tmp_path / 'data'}"
    config.model.name = "linear"
    config.data.image_size = 8
    config.batch_size = 16
    config.train_for = "100 steps"
    config.log_every = "50 steps"
    config.evaluate_every = "50 steps"
    config.checkpoint.every = "50 steps"
    config.optimizer.learning_rate = 0.05
    config.augment.images = ()

    def write(names, targets_of) -> None:
        rng = np.random.default_rng(0)
        for split, count in (("train", 160), ("val", 40), ("test", 50)):
            folder = tmp_path / "data" / split
            (folder / "images").mkdir(parents=True)
            with (folder / "metadata.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["file_name", *names])
                for i in range(count):
                    left, right = rng.integers(0, 256, 2)
                    halves = np.repeat([[left] * 4 + [right] * 4], 8, axis=0).astype(np.uint8)
                    Image.fromarray(halves).save(folder / "images" / f"{i}.png")
                    row = targets_of(left / 255, right / 255)
                    table.writerow([f"images/{i}.png", *row])

    return write


@pytest.mark.slow
def test_regression_takes_names_from_the_table(config, brightness, tmp_path):
    brightness(("left", "sum"), lambda left, right: (100 * left, 100 * (left + right)))
    config.task.name = "regression"
    config.task.arguments = {"mean": (50.0, 100.0), "std": (29.0, 41.0)}
    results = fit(config, tmp_path / "run")
    test = results["metrics"]["test"]
    assert test["r2"] > 0.98
    assert test["mae_left"] < 3
    assert test["rmse_sum"] < 5


@pytest.mark.slow
def test_several_labels_from_a_table(config, brightness, tmp_path):
    brightness(("left", "right"), lambda left, right: (int(left > 0.5), int(right > 0.5)))
    config.task.name = "multilabel"
    results = fit(config, tmp_path / "run")
    assert results["metrics"]["test"]["f1"] > 0.9
    assert results["metrics"]["test"]["exact_match"] > 0.85


@pytest.mark.slow
def test_yes_or_no_from_a_table(config, brightness, tmp_path):
    brightness(("label",), lambda left, right: ("light" if left + right > 1 else "dark",))
    config.task.name = "binary"
    results = fit(config, tmp_path / "run")
    assert results["metrics"]["test"]["accuracy"] > 0.8
    assert open_data(config).train.class_names == ("dark", "light")


def test_names_in_another_order_than_the_data_are_refused(config):
    images = np.zeros((3, 8, 8), np.uint8)
    source = ArraySource(images, np.zeros((3, 2)), ["age", "weight"])
    config.task.name = "regression"
    config.task.arguments = {"names": ("weight", "age")}
    with pytest.raises(ConfigError, match=r"in the order \('age', 'weight'\); leave names out"):
        build(config, Splits(source, None, None))
