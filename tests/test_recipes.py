"""Every recipe and every variant of it: keys, numbers, model, and three steps of training."""

import importlib
import json
import math
import re
import shlex

from absl import flags
import jax
from ml_collections import ConfigDict, config_flags
import pytest

from configs import default, folder
from tests.conftest import ROOT
from zoo.data.mock import MockSource
from zoo.data.source import Splits, open_splits
from zoo.registry import find_model
from zoo.training.config import check_keys, check_values, make_plan, to_steps
from zoo.training.loop import fit
from zoo.training.optimizer import make_optimizer
from zoo.training.schedules import make_plateau, make_schedule
from zoo.training.setup import build

FILES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "default")
SIZES = {"imagenet2012": (1_281_167, 1000), "cifar10": (45_000, 10)}


def variants_of(recipe: str) -> list[str]:
    """Returns the names of a recipe's variants; "" is the recipe itself."""
    names = getattr(importlib.import_module(f"configs.{recipe}"), "VARIANTS", {})
    return list(dict.fromkeys(["", "smoke", *names]))


def load(recipe: str, variant: str) -> ConfigDict:
    return importlib.import_module(f"configs.{recipe}").get_config(variant)


ALL = [(recipe, variant) for recipe in FILES for variant in variants_of(recipe)]
IMAGENET = [(r, v) for r, v in ALL if r.endswith("_imagenet")]
# Those of digits and of other real data are trained elsewhere.
SMOKE = [(r, "smoke") for r in FILES if load(r, "smoke").data.name.startswith("mock:")]
SMOKE += [(r, "modern_smoke") for r, v in IMAGENET if v == "modern"]


def splits_for(config: ConfigDict) -> Splits:
    """Returns noise in the number of the recipe's examples and classes."""
    size, classes = SIZES.get(config.data.name, (1000, 10))
    has_test = bool(config.data.test_split)
    sources = [MockSource(classes, n, split="x") for n in (size, 64, 64)]
    return Splits(*sources[:2], sources[2] if has_test else None)


@pytest.mark.parametrize("recipe", FILES)
def test_every_variant_has_right_keys_and_numbers(recipe):
    for variant in variants_of(recipe):
        config = load(recipe, variant)
        assert config.is_locked
        check_keys(config, default.get_config())
        check_values(config)
        size, _ = SIZES.get(config.data.name, (1000, 10))
        shape = find_model(config.model.name).image_shape
        plan = make_plan(
            config, num_examples=size, num_outputs=10, image_shape=shape, num_devices=1
        )
        settings = config.optimizer
        schedule = make_schedule(
            settings.schedule,
            learning_rate=plan.learning_rate,
            total_steps=plan.total_steps,
            warmup_steps=plan.warmup_steps,
            arguments=plan.schedule_arguments,
            warmup_fraction=settings.warmup_fraction,
        )
        assert len(plan.groups) == len(settings.groups)
        make_optimizer(
            settings.name,
            schedule,
            arguments=settings.arguments.to_dict(),
            weight_decay=settings.weight_decay,
            decay=settings.decay,
            groups=plan.groups,
        )
        make_plateau(settings.plateau.to_dict())


@pytest.mark.parametrize("recipe", FILES)
def test_every_recipe_says_where_it_comes_from_and_what_to_expect(recipe):
    text = importlib.import_module(f"configs.{recipe}").__doc__ or ""
    assert f"    python train.py --config=configs/{recipe}.py" in text and "--workdir=" in text
    assert recipe == "folder" or "https://" in text or "http://" in text
    words = " ".join(text.split())
    assert re.search(r"For (any CPU|\w+ (to \w+ )?(GPUs?|TPU cores?))", words), "hardware"
    assert re.search(r"accuracy[^.]*(not measured|README|your images)", words, re.I)
    measured = r"(wall time|minutes?|seconds|how long)"
    assert re.search(measured, words, re.I), "wall time"


@pytest.mark.parametrize(("recipe", "variant"), IMAGENET)
def test_imagenet_is_validated_on_what_others_report(recipe, variant):
    config = load(recipe, variant)
    smoke = variant == "smoke"
    assert config.data.name == ("mock:10" if smoke else "imagenet2012")
    assert config.data.train_split == "train"
    assert config.data.validation_split == ("validation[:16]" if smoke else "validation")
    averaged = config.average.ema_decay > 0
    assert config.best.metric == ("val_ema/top1" if averaged else None)


def rates(recipe: str, variant: str, *durations: str) -> list[float]:
    """Returns the learning rate at times of the training."""
    config = load(recipe, variant)
    size, _ = SIZES[config.data.name]
    plan = make_plan(
        config, num_examples=size, num_outputs=10, image_shape=(8, 8, 3), num_devices=1
    )
    schedule = make_schedule(
        config.optimizer.schedule,
        learning_rate=plan.learning_rate,
        total_steps=plan.total_steps,
        warmup_steps=plan.warmup_steps,
        arguments=plan.schedule_arguments,
        warmup_fraction=config.optimizer.warmup_fraction,
    )
    steps = [to_steps(d, batch_size=config.batch_size, num_examples=size) for d in durations]
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize(
    ("recipe", "variant", "durations", "expected"),
    [
        ("resnet_imagenet", "", ("5 epochs", "31 epochs", "61 epochs", "81 epochs"), "step"),
        ("resnet_cifar10", "", ("0 steps", "32000 steps", "48000 steps"), (0.1, 0.01, 0.001)),
        ("resnet_cifar10", "resnet110", ("0 steps", "400 steps"), (0.01, 0.1)),
        ("resnet_imagenet", "modern", ("0 steps", "5 epochs", "600 epochs"), (0.005, 0.5, 0)),
        ("efficientnet_imagenet", "b0", ("24.1 epochs",), (0.256 * 0.97**10,)),
        ("efficientnet_imagenet", "randaugment", ("24.1 epochs",), (0.048 * 0.97**10,)),
        ("inception_imagenet", "", ("0 steps", "20.1 epochs"), (0.045, 0.045 * 0.94**10)),
        ("mobilenet_imagenet", "", ("25.1 epochs",), (0.36 * 0.98**10,)),
        ("googlenet_imagenet", "", ("8.1 epochs",), (0.08 * 0.96,)),
        ("googlenet_imagenet", "googlenet_2014", ("45 epochs",), (0.01 * math.sqrt(0.25),)),
    ],
)
def test_rates_are_those_of_the_papers(recipe, variant, durations, expected):
    expected = (0.1, 0.01, 0.001, 0.0001) if expected == "step" else expected
    assert rates(recipe, variant, *durations) == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_every_variant_can_be_tried_in_three_steps():
    config = load("efficientnet_imagenet", "modern_smoke")
    assert (config.model.name, config.data.image_size) == ("efficientnet_v2_s", 64)
    assert (config.train_for, config.data.name, config.batch_size) == ("3 steps", "mock:10", 8)
    for wrong in ("b9", "b9_smoke", "smoke_smoke_"):
        with pytest.raises(ValueError, match=r"no variant '.*'; this recipe has \['b0', 'b1'"):
            load("efficientnet_imagenet", wrong)


def test_a_variant_replaces_whole_dicts():
    config = load("mobilenet_imagenet", "v3_large")
    assert config.optimizer.arguments.to_dict() == {}
    assert load("mobilenet_imagenet", "v1").optimizer.schedule_arguments.factor == 0.94


def test_the_commands_of_the_folder_recipe_are_understood():
    lines = [li for li in (folder.__doc__ or "").splitlines() if li.startswith("    --")]
    said = []
    for line in lines:
        config = load("folder", "/a:b/c")  # as after --config=configs/folder.py:
        assert config.data.name == "folder:/a:b/c"
        argv, values = ["train", *shlex.split(line)], flags.FlagValues()
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
        said.append(values.config)
    split, whole, head = said
    assert split.data.validation_split == "train[80%:]"
    assert whole.model.weights == "timm/resnet50.a1_in1k"
    assert whole.optimizer.groups == (("head/.*", {}), (".*", {"rate": 0.1}))
    assert head.optimizer.groups == (("head/.*", {}), (".*", {"frozen": True}))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("recipe", "variant"), ALL)
def test_every_variant_can_be_built(recipe, variant):
    config = load(recipe, variant)
    config.model.weights = None  # which may have to be fetched
    setup = build(config, splits_for(config), jax.devices()[:1])
    assert setup.plan.num_outputs == len(setup.splits.train.class_names)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("recipe", "variant"), SMOKE)
def test_smoke_trains(recipe, variant, tmp_path, use_onednn):
    config = load(recipe, variant)
    if hasattr(find_model(config.model.name).module, "hidden_features"):
        # A hundred million parameters, to be saved three times, in dense layers.
        config.model.arguments = {"hidden_features": 64}
    results = fit(config, tmp_path, devices=jax.devices()[:1])
    assert results["step"] == 3
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    train = [json.loads(line)["train/loss"] for line in lines if "train/loss" in line]
    assert len(train) == 3
    assert all(math.isfinite(loss) for loss in train)
    assert all(math.isfinite(split["loss"]) for split in results["metrics"].values())
    assert not results["skipped_steps"]


def test_the_parts_of_a_transfer(tmp_path):
    folder = str(tmp_path / "a,b")
    config = load("transfer", f"model=mobilenet_v2,data={folder},train=stages")
    assert config.model.name == "mobilenet_v2"
    assert config.model.weights == "timm/mobilenetv2_100.ra_in1k"
    assert config.data.name == f"folder:{folder}"
    assert (config.data.train_split, config.data.validation_split) == ("train[:80%]", "train[80%:]")
    assert config.data.test_split == "" and config.optimizer.unfreeze[0] == "10 epochs"
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
    data = load("transfer", f"weights=w.safetensors,data=folder:{tmp_path}").data
    splits = data.train_split, data.validation_split, data.test_split
    assert splits == ("train", "validation", "test")
    assert load("transfer", "data=cifar10,weights=x").data.name == "cifar10"
    for wrong, message in (
        ("modle=x", "'modle=x': no such part. Did you mean 'model'"),
        ("/a/b", "'/a/b': no such part"),
        ("train=heads", "must be one of head, stages, all"),
        ("model=lenet5", "the hub has no weights of it; give weights=FILE"),
        ("model=rezn", "unknown model 'rezn'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            load("transfer", wrong)


def test_mock_data_suit_what_recipes_ask_for():
    config = load("folder", "smoke")
    data = config.data
    splits = open_splits(
        data.name, train=data.train_split, validation=data.validation_split, test=data.test_split
    )
    assert [len(s) for s in splits if s is not None] == [512, 16, 16]
