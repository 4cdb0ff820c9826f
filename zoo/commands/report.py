"""`python -m zoo report`: one page about a run that opens in any browser."""

import argparse
from pathlib import Path

from zoo.commands.parsing import Commands, add_command
from zoo.commands.shared import begin, check_counts
from zoo.errors import ConfigError

DESCRIPTION = """\
Writes one HTML page about a run: figures with intervals, learning curves, what is taken for what,
every class, pictures that it has wrong while sure, calibration, and whether bias or variance is
what to work on. The page holds its pictures and loads nothing: it can be mailed.
"""

EXAMPLE = """\
python -m zoo report runs/digits --human-error=0.01
"""


def add(commands: Commands) -> None:
    """Declares the command."""
    command = add_command(
        commands,
        "report",
        run,
        "one page about a run: figures, curves, errors, pictures",
        DESCRIPTION,
        EXAMPLE,
    )
    command.add_argument(
        "source", metavar="WORKDIR", help="of train.py; or WORKDIR@STEP, or WORKDIR/weights_ema"
    )
    command.add_argument("--out", help="the .html to write (default: WORKDIR/report.html)")
    command.add_argument(
        "--human-error", type=float, help="of a person at this task, as 0.01 (default: not known)"
    )
    command.add_argument(
        "--images", type=int, default=24, help="pictures of each gallery (default: 24)"
    )
    command.add_argument(
        "--split",
        choices=("test", "validation", "train"),
        help="whose errors are shown (default: test, or else validation)",
    )
    command.add_argument(
        "--train-dev",
        default="",
        metavar="SPLIT",
        help="images like the training ones that were not trained on: 'train[95%%:]'",
    )
    command.add_argument(
        "--train-examples",
        type=int,
        default=2000,
        help="how many training images to look at (default: 2000)",
    )
    command.add_argument("--batch-size", type=int, default=64, help="(default: 64)")


def run(arguments: argparse.Namespace) -> None:
    """Writes the page."""
    check_counts(arguments, "images", "train_examples", "batch_size")
    begin()
    from zoo.analysis.report.evidence import gather
    from zoo.analysis.report.gaps import check_human
    from zoo.analysis.report.page import contents, render, write
    from zoo.analysis.trained import open_trained

    trained = open_trained(arguments.source)
    check_human(trained.task, arguments.human_error)
    out = _checked(arguments.out or f"{trained.workdir}/report.html")
    evidence = gather(
        trained,
        focus=arguments.split,
        train_dev=arguments.train_dev,
        train_examples=arguments.train_examples,
        batch_size=arguments.batch_size,
    )
    found = contents(evidence, human_error=arguments.human_error, images=arguments.images)
    page = render(found)
    try:
        write(out, page)
    except OSError as error:
        raise ConfigError(f"--out={out}: cannot be written to ({error.strerror})") from error
    pictures = len(found["pictures"]["pictures"])
    print(f"written to {out}: {len(page.encode()) / 1e6:.1f} MB, {pictures} pictures")


def _checked(name: str) -> Path:
    """Returns where to write, before anything is computed."""
    out = Path(name)
    if out.suffix.lower() not in (".html", ".htm") or not out.parent.is_dir():
        raise ConfigError(f"--out={out}: give a file that ends with .html, in a folder that exists")
    return out
