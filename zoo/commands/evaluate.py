"""`python -m zoo evaluate`: how good models are on data, with all figures and intervals."""

import argparse
from collections.abc import Mapping, Sequence
import os
from pathlib import Path
from typing import Any

from zoo.commands.parsing import Commands, add_command
from zoo.commands.shared import begin
from zoo.errors import ConfigError

# Of zoo.analysis, which takes a while to import.
HOW = ("probabilities", "logits")
VIEWS = ("flip", "five-crops", "ten-crops")

DESCRIPTION = """\
Runs models over data, every example once, and writes evaluation.json, all figures with their
95 % intervals, and predictions.npz into a folder. MODEL is a workdir of train.py (runs/x), one of
its checkpoints (runs/x@1200), a folder of weights, or MODEL=WEIGHTS for others'
(resnet50=timm/resnet50.a1_in1k).
"""

EXAMPLE = """\
python -m zoo evaluate runs/x --split=train,validation,test --temperature-split=validation
    python -m zoo evaluate runs/x runs/y --out=both --compare --ensemble=probabilities
    python -m zoo evaluate runs/x --corruptions=all --severities=1,3,5 --out=robustness
"""


def add(commands: Commands) -> None:
    """Declares the command."""
    command = add_command(
        commands, "evaluate", run, "how good models are on data", DESCRIPTION, EXAMPLE
    )
    argument = command.add_argument
    argument("models", nargs="+", metavar="MODEL", help="see above")
    argument("--data", help="as config.data.name; default: the data of the model's run")
    argument(
        "--split",
        action="append",
        metavar="SPLIT,…",
        help="one or several, each SPLIT or NAME=SPLIT, as in train,train-dev=extra[:1000],test; "
        "train, validation and test are those of the run (default: test, or else validation)",
    )
    argument("--out", metavar="FOLDER", help="default: WORKDIR/evaluation, of one model")
    argument("--batch-size", type=int, default=64, help="over all devices (default: 64)")
    argument("--threads", type=int, default=2, help="that decode images (default: 2)")
    argument("--max-bad", type=int, default=0, help="images to pass over that cannot be decoded")
    argument("--seed", type=int, default=0, help="of resamples, folds and corruptions")
    argument("--resamples", type=int, default=1000, help="for intervals of figures (default: 1000)")
    argument(
        "--tta",
        metavar="VIEWS",
        help="average probabilities over views of each image: flip, five-crops or ten-crops",
    )
    argument("--ensemble", metavar="HOW", help="all together: mean of probabilities or logits")
    argument("--compare", action="store_true", help="two models on the same examples")
    argument(
        "--temperature-split", metavar="SPLIT", help="fit a temperature on it, and measure with it"
    )
    argument(
        "--human-error",
        type=float,
        metavar="PART",
        help="what people get wrong, 0 to 1, for the parts of the error that are printed where "
        "train is among the splits (default: 0)",
    )
    argument("--corruptions", metavar="NAME,…", help="measure on corrupted images; all: every one")
    argument("--severities", default="1,2,3,4,5", help="of corruptions (default: 1,2,3,4,5)")


def run(arguments: argparse.Namespace) -> None:
    """Evaluates models."""
    _check(arguments)
    from rich.console import Console

    from zoo.analysis import evaluation
    from zoo.analysis.evaluation_tables import print_evaluation
    from zoo.analysis.trained import open_trained

    begin()
    models = [open_trained(source) for source in arguments.models]
    out = _folder(arguments.out, models)
    data, splits = arguments.data, evaluation.resolve(models[0], arguments.data, arguments.split)
    to_fit = arguments.temperature_split
    of_fit = evaluation.resolve(models[0], data, [to_fit]) if to_fit else {}
    _check_splits(arguments, splits, of_fit)
    reading = evaluation.Reading(
        arguments.batch_size, arguments.threads, arguments.max_bad, arguments.tta
    )
    groups = evaluation.predict_splits(models, data, splits, reading)
    fitted = []
    if of_fit:
        found = evaluation.predict_splits(models, data, of_fit, reading)
        fitted = [next(iter(group.values())) for group in found]
    if arguments.ensemble:
        groups, fitted = evaluation.with_ensemble(groups, fitted, arguments.ensemble)
    results, files = evaluation.evaluate(
        groups,
        fitted=fitted,
        compared=arguments.compare,
        human_error=arguments.human_error or 0.0,
        seed=arguments.seed,
        number=arguments.resamples,
    )
    if arguments.corruptions:
        results["corruptions"] = _corruptions(arguments, models, splits)
    evaluation.write(out, results, files)
    console = Console(highlight=False, markup=False, emoji=False)
    print_evaluation(results, console)
    console.print(f"written to {out}/evaluation.json", soft_wrap=True)


def _check(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for options that cannot be, before anything takes time."""
    several = len(arguments.models)
    if (
        min(arguments.batch_size, arguments.threads) < 1
        or min(arguments.max_bad, arguments.seed) < 0
    ):
        raise ConfigError(
            "--batch-size and --threads must be 1 or more, --max-bad and --seed 0 or more"
        )
    if arguments.compare and several != 2:
        raise ConfigError(f"--compare: {several} model(s) given; give two")
    if arguments.ensemble and several < 2:
        raise ConfigError("--ensemble: give two models or more")
    if arguments.ensemble not in (None, *HOW):
        raise ConfigError(f"--ensemble={arguments.ensemble}: must be {' or '.join(HOW)}")
    if arguments.tta not in (None, *VIEWS):
        raise ConfigError(f"--tta={arguments.tta}: must be one of {', '.join(VIEWS)}")
    if arguments.human_error is not None and not 0 <= arguments.human_error <= 1:
        raise ConfigError(f"--human-error={arguments.human_error}: must be 0 to 1")
    if arguments.corruptions:
        if arguments.tta or arguments.ensemble:
            raise ConfigError("--corruptions: of single models and views; leave out the others")
        _corruptions_wanted(arguments)


def _check_splits(
    arguments: argparse.Namespace, splits: Mapping[str, str], of_fit: Mapping[str, str]
) -> None:
    if arguments.human_error is not None and not ("train" in splits and len(splits) > 1):
        raise ConfigError("--human-error: wants --split=train,… with another one, to compare with")
    if arguments.corruptions and len(splits) > 1:
        raise ConfigError("--corruptions: are measured on one split; name one with --split")
    if len(of_fit) > 1:
        raise ConfigError("--temperature-split: a temperature is fitted on one split")


def _corruptions_wanted(arguments: argparse.Namespace) -> tuple[Sequence[str], Sequence[int]]:
    """Returns which corruptions and severities are asked for."""
    from zoo.analysis.robustness import check_corruptions
    from zoo.data.corruptions import NAMES

    names = NAMES if arguments.corruptions == "all" else tuple(arguments.corruptions.split(","))
    try:
        severities = tuple(int(text) for text in arguments.severities.split(","))
    except ValueError:
        raise ConfigError(
            f"--severities={arguments.severities}: give some of 1 to 5, as in 1,3,5"
        ) from None
    check_corruptions(names, severities)
    return names, severities


def _corruptions(
    arguments: argparse.Namespace, models: Sequence[Any], splits: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Returns what each model does on corrupted images, relative to the first one."""
    from zoo.analysis.evaluation import open_splits_of
    from zoo.analysis.robustness import measure_corruptions, relative_error

    names, severities = _corruptions_wanted(arguments)
    (split,) = splits
    out: list[dict[str, Any]] = []
    for trained in models:
        source = open_splits_of(models[0], trained, arguments.data, splits)[split]
        measured = measure_corruptions(
            trained,
            source,
            names=names,
            severities=severities,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            threads=arguments.threads,
            max_bad=arguments.max_bad,
        )
        if out:
            relative = relative_error(measured["errors"], out[0]["errors"])
            measured |= {"relative_to": out[0]["model"], "relative_error": relative}
        out.append({"model": trained.label, "split": split, **measured})
    return out


def _folder(out: str | None, models: Sequence[Any]) -> Path:
    """Returns where results go, if they can."""
    if out is None and (len(models) > 1 or models[0].workdir is None):
        raise ConfigError("--out: name the folder to write to")
    folder = Path(out) if out is not None else models[0].workdir / "evaluation"
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"--out={folder}: {there} is no folder that can be written to")
    return folder
