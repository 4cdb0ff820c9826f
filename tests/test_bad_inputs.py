"""Whatever is wrong: the right exit code, a message that helps, and nothing lost."""

from pathlib import Path
import shutil

import numpy as np
from PIL import Image
import pytest

from tests.programs import QUICK, train

RECIPE = QUICK[0]


@pytest.fixture(scope="module")
def good_run(tmp_path_factory) -> Path:
    """A finished run whose checkpoints nothing may harm."""
    workdir = tmp_path_factory.mktemp("good") / "run"
    done = train(QUICK, workdir)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture
def workdir(good_run, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(good_run, tmp_path / "run"))


def saved(workdir: Path) -> dict[str, bytes]:
    """Every file of every checkpoint, whether in its place or moved aside."""
    found = {}
    for path in workdir.rglob("*"):
        place = path.relative_to(workdir).parts
        if path.is_file() and place[0] in ("checkpoints", "damaged"):
            step = place[1].partition(".")[0]
            found["/".join((step, *place[2:]))] = path.read_bytes()
    return found


FLAGS = {
    "no flags at all": ([], "--config=FILE is missing"),
    "no such file": (["--config=configs/lenet_digit.py"], "Did you mean 'configs/lenet_digits.py'"),
    "no such variant": ([f"{RECIPE}:smok"], "no variant 'smok'; this recipe has ['smoke']"),
    "unknown flag": ([RECIPE, "--epochs=3"], "Unknown command line flag 'epochs'"),
    "stray word": ([RECIPE, "now"], "'now' is not a flag"),
    "unknown key": ([RECIPE, "--config.optimizer.lerning_rate=1"], "'optimizer.learning_rate'"),
    "key without its group": ([RECIPE, "--config.learning_rate=1"], "'optimizer.learning_rate'"),
    "group as a key": ([RECIPE, "--config.model=lenet5"], "is a group of keys"),
    "word for a number": ([RECIPE, "--config.batch_size=many"], "batch_size=many: wanted int"),
    "fraction for a whole": ([RECIPE, "--config.seed=1.5"], "seed=1.5: wanted int"),
    "empty batch": ([RECIPE, "--config.batch_size=0"], "batch_size=0: must be greater than 0"),
    "indivisible batch": (
        [RECIPE, "--config.batch_size=63"],
        "63 cannot be divided among 2 devices",
    ),
    "negative rate": ([RECIPE, "--config.optimizer.learning_rate=-1"], "greater than 0"),
    "no classes": ([RECIPE, "--config.model.num_classes=0"], "model.num_classes=0: must be"),
    "fewer classes": ([RECIPE, "--config.model.num_classes=9"], "digits has 10 classes"),
    "duration without unit": ([RECIPE, "--config.train_for=10"], "give a number and a unit"),
    "unknown model": ([RECIPE, "--config.model.name=lenet_5"], "Did you mean 'lenet5'"),
    "unknown optimiser": ([RECIPE, "--config.optimizer.name=addam"], "Did you mean 'adam'"),
    "unknown dataset": ([RECIPE, "--config.data.name=mnits"], "Did you mean 'mnist'"),
    "unknown split": ([RECIPE, "--config.data.train_split=trian"], "trian"),
    "wrong image size": ([RECIPE, "--config.data.image_size=28"], "[B, 32, 32, C]"),
    "changed experiment": ([*QUICK, "--config.seed=5"], "config.seed was 0 and is 5"),
}


# What tests/training/test_config.py shows as well, without starting a program for each.
SLOW = {"group as a key", "fraction for a whole", "negative rate", "duration without unit"}
SLOW |= {"unknown optimiser", "unknown split", "no classes", "fewer classes", "empty batch"}
SLOW |= {
    "changed experiment",
    "word for a number",
    "indivisible batch",
    "key without its group",
    "unknown model",
}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] if c in SLOW else []) for c in FLAGS]
)
def test_bad_flags(case, workdir):
    arguments, message = FLAGS[case]
    before = saved(workdir)
    flags = "--xla_force_host_platform_device_count=2" if case == "indivisible batch" else ""
    done = train(arguments, workdir, XLA_FLAGS=flags)
    assert done.returncode == 78, done.stderr
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0, "one line, no traceback"
    assert saved(workdir) == before


RECIPES = {
    "syntax error": ("def get_config(:\n", "SyntaxError"),
    "nothing in it": ("", "get_config"),
    "unknown key": ("config.batchsize = 3", "Did you mean 'batch_size'?"),
    "unknown key, lock picked": ("config.unlock(); config.lr = 3", "config.lr=3 is read by nobody"),
    "wrong type": ("config.batch_size = 'many'", "batch_size"),
    "it fails": ("1 / 0", "ZeroDivisionError"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, marks=[] if c in ("unknown key", "it fails") else pytest.mark.slow)
        for c in RECIPES
    ],
)
def test_bad_recipes(case, workdir, tmp_path):
    text, message = RECIPES[case]
    recipe = tmp_path / "recipe.py"
    if text and not text.startswith("def"):
        text = (
            "from configs import default\n\n\ndef get_config():\n"
            f"    config = default.get_config()\n    {text}\n    return config\n"
        )
    recipe.write_text(text)
    before = saved(workdir)
    done = train([f"--config={recipe}"], workdir)
    assert done.returncode == 78, done.stderr
    assert message in done.stderr
    assert saved(workdir) == before


def write_pictures(root: Path) -> None:
    for split in ("train", "validation", "test"):
        for label, name in enumerate(("light", "dark")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = np.full((12, 12), 230 - 150 * label + i, np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")


PICTURES = {
    "text for an image": (
        lambda root: (root / "train" / "dark" / "3.png").write_text("not an image"),
        (65, "train/dark/3.png: cannot be decoded"),
    ),
    "image cut short": (
        lambda root: (root / "test" / "dark" / "3.png").write_bytes(
            (root / "test" / "dark" / "3.png").read_bytes()[:45]
        ),
        (65, "test/dark/3.png: cannot be decoded"),
    ),
    "empty class": (
        lambda root: (root / "train" / "grey").mkdir(),
        (65, "class folder without an image"),
    ),
    "class only in validation": (
        lambda root: (root / "validation" / "dark").rename(root / "validation" / "dim"),
        (65, "class 'dim' is not among the 2 classes"),
    ),
    "no validation split": (
        lambda root: shutil.rmtree(root / "validation"),
        (78, "has no split 'validation'"),
    ),
    "no folder": (lambda root: shutil.rmtree(root), (78, "no such folder")),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c == "empty class" else pytest.mark.slow) for c in PICTURES],
)
def test_bad_folders_and_images(case, tmp_path):
    action, (code, message) = PICTURES[case]
    write_pictures(tmp_path / "pictures")
    action(tmp_path / "pictures")
    arguments = [*QUICK, f"--config.data.name=folder:{tmp_path}/pictures", "--config.batch_size=8"]
    done = train(arguments, tmp_path / "run")
    assert done.returncode == code, done.stderr
    assert message in done.stderr


def damage_newest(workdir: Path) -> None:
    for file in (workdir / "checkpoints" / "12").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1])


def damage_all(workdir: Path) -> None:
    for file in (workdir / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


CHECKPOINTS = {
    "newest damaged": (damage_newest, [], (0, "checkpoint 12 is damaged")),
    "all damaged": (damage_all, [], (74, "is whole; they are in")),
    "another model": (
        lambda workdir: None,
        ["--config.model.name=lenet5_1998", "--config.checkpoint.allow_changes=True"],
        (78, "is of another model or optimiser"),
    ),
    "another optimiser": (
        lambda workdir: None,
        ["--config.optimizer.name=sgd", "--config.checkpoint.allow_changes=True"],
        (78, "is of another model or optimiser"),
    ),
    "workdir is a file": (
        lambda workdir: (shutil.rmtree(workdir), workdir.write_text("a file")),
        [],
        (78, "cannot be written to"),
    ),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c == "newest damaged" else pytest.mark.slow) for c in CHECKPOINTS],
)
def test_bad_checkpoints(case, workdir):
    action, changes, (code, message) = CHECKPOINTS[case]
    (workdir / "results.json").unlink()
    action(workdir)
    before = saved(workdir) if workdir.is_dir() else {}
    done = train([*QUICK, *changes], workdir)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    after = saved(workdir) if workdir.is_dir() else {}
    lost = [name for name in before if after.get(name) != before[name]]
    if case == "newest damaged":  # step 12 was made again; the damaged one is beside it
        lost = [name for name in lost if not name.startswith("12/")]
        assert (workdir / "damaged" / "12.0").is_dir()
    assert lost == [], "moved aside, never deleted"


def test_the_tables_hold_thirty_cases():
    assert sum(map(len, (FLAGS, RECIPES, PICTURES, CHECKPOINTS))) >= 30
