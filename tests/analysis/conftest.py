"""A run over real digits in class folders, as a person would have it."""

from pathlib import Path

from PIL import Image
import pytest

from configs import mlp_digits
from zoo.training.loop import fit


@pytest.fixture(scope="session")
def folders(splits, tmp_path_factory) -> Path:
    """Class folders of real digits, 200 to train on, 50 to validate, 30 to test."""
    root = tmp_path_factory.mktemp("digits")
    for role, source in zip(("train", "validation", "test"), splits, strict=True):
        for i in range(len(source)):
            image, label = source[i]
            folder = root / role / f"digit{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(folder / f"{i:04}.png")
    return root


@pytest.fixture(scope="session")
def workdir(folders, tmp_path_factory) -> Path:
    """The workdir of a perceptron trained on them for 40 steps."""
    config = mlp_digits.get_config()
    config.data.name = f"folder:{folders}"
    config.batch_size = 24
    config.train_for = "40 steps"
    config.evaluate_every = "20 steps"
    config.optimizer.warmup = "2 steps"
    workdir = tmp_path_factory.mktemp("run")
    fit(config, workdir)
    return workdir
