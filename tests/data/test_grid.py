"""The picture of an augmentation, and the command that draws it."""

import jax
import numpy as np
from PIL import Image
import pytest

from zoo.__main__ import main
from zoo.data.augment import make_augment
from zoo.data.grid import draw_grid
from zoo.data.loader import Examples
from zoo.data.source import ArraySource

# ml_collections reads recipes by a method that Python 3.12 will not have.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

CONFIG = "--config=configs/lenet_mnist.py"


def test_the_grid_shows_fitted_images_first():
    images = np.stack([np.full((4, 4, 3), 60 * i, np.uint8) for i in range(4)])
    source = ArraySource(images, np.arange(4), ["a", "b", "c", "a long name " * 9])
    plain = Examples(source, lambda image: image, (4, 4, 3))
    inverted = Examples(source, lambda i: i, (4, 4, 3), crop=lambda i, e, n: i * 0 + np.uint8(e))
    grid = draw_grid(
        plain, inverted, make_augment(), jax.random.key(0), np.array([3, 1]), columns=3, epoch=7
    )
    pixels = np.asarray(grid)
    assert grid.mode == "RGB" and grid.size == (4 + 3 * 100, 18 + 2 * 118)
    assert pixels[30, 10].tolist() == [180] * 3 and pixels[148, 10].tolist() == [60] * 3
    assert pixels[30, 110].tolist() == [7] * 3 and pixels[148, 210].tolist() == [8] * 3


@pytest.fixture
def flags(tmp_path) -> list[str]:
    """What the command needs to draw from a folder of pictures: white ones and grey ones."""
    for split in ("train", "validation", "test"):
        for name, level in (("grey", 128), ("white", 255)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("L", (40, 30), level).save(folder / f"{number}.png")
    flags = [CONFIG, f"--out={tmp_path / 'grid.png'}", f"--config.data.name=folder:{tmp_path}"]
    splits = ["--config.data.train_split=train", "--config.data.validation_split=validation"]
    return [*flags, *splits, "--config.batch_size=4", "--config.data.cache=False"]


def test_the_command_draws_what_the_flags_say(flags, tmp_path, capsys):
    changes = ["--rows=5", "--columns=3", "--config.augment.crop={'scale': (0.3, 1)}"]
    changes += ["--config.data.fit=crop", "--config.augment.images=(('random_invert', {}),)"]
    changes += ["--config.seed", "8", "--config.data.image_size=8"]
    assert main(["augment", *flags, *changes]) == 0, capsys.readouterr().err
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))[18:]
    cells = [[pixels[50 + 118 * row, 50 + 100 * c, 0] for c in range(3)] for row in range(4)]
    assert {row[0] for row in cells} == {128, 255}
    for first, *others in cells:
        assert {*others} <= {first, 255 - first}
    assert any(first not in others for first, *others in cells)
    assert "examples of step 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "text"),
    (
        (["--out=grid.jpg"], "--out=grid.jpg: give a file that ends with .png"),
        (["--rows=0"], "must be 1 or more"),
        (["--config.augment.imags=()"], "'augment.images'"),
        (["--config=configs/lenet_mnst.py"], "Did you mean 'configs/lenet_mnist.py'"),
        (["--config.augment.images=(('random_flip', {}),)"], "'random_flip' does not exist"),
        (["--config.augment.mix={'alpha': 1}"], "config.augment.mix has no argument 'alpha'"),
        (["--config.augment.crop={'scale': (0, 1)}"], "config.augment.crop: scale=(0, 1)"),
        (
            ["--config.augment.crop={'scale': (0.1, 1)}", "--config.data.cache=True"],
            "set cache to False",
        ),
        (["now"], "'now' is not a flag"),
    ),
)
def test_mistakes_give_one_line_and_code_2(flags, changes, text, capsys):
    assert main(["augment", *flags, *changes]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_unknown_options_are_refused(flags, capsys):
    for arguments in (["augment", *flags, "--rowz=3"], ["list", "--rowz=3"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "--rowz=3" in capsys.readouterr().err
