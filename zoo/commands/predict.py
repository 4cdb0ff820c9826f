"""`python -m zoo predict`: what a trained model says of files."""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import sys
from typing import Any

from zoo.commands.parsing import Commands, add_command
from zoo.commands.shared import begin, check_counts
from zoo.errors import ConfigError, DataError

DESCRIPTION = """\
Says what a trained model sees in image files: a line for each, or a table.

A table is made in the order of the files' names. Stopped at any moment, even by SIGKILL, and
started again by the same command, it goes on and ends with the same bytes. Files that cannot be
read are reported, have an error in the table, and are passed over.
"""

EXAMPLE = """\
python -m zoo predict runs/flowers photos 'more/**/*.jpg' --out=flowers.csv
    find / -name '*.jpg' -print0 | python -m zoo predict runs/flowers - -0 --out=all.parquet
    python -m zoo predict runs/flowers photos --folder-by-class=sorted --min-probability=0.9
"""


def add(commands: Commands) -> None:
    """Declares the command."""
    command = add_command(
        commands, "predict", run, "what a trained model says of files", DESCRIPTION, EXAMPLE
    )
    command.add_argument(
        "model", help="a workdir, WORKDIR@STEP, a folder of weights, or MODEL=WEIGHTS"
    )
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="input",
        help="files; folders, with all that is in them; quoted patterns; - for a list on stdin",
    )
    command.add_argument("-0", "--null", action="store_true", help="the list is separated by NUL")
    command.add_argument("--top", type=int, default=5, help="classes to name (default: 5)")
    command.add_argument("--out", help="the .csv, .jsonl or .parquet to write")
    command.add_argument(
        "--folder-by-class",
        metavar="FOLDER",
        help="copy each image to FOLDER/CLASS; the table is FOLDER/predictions.csv",
    )
    command.add_argument("--link", action="store_true", help="link instead of copying")
    command.add_argument(
        "--min-probability", type=float, help="what is less probable goes to FOLDER/_unsure"
    )
    command.add_argument("--batch-size", type=int, default=64, help="over all devices (64)")
    command.add_argument("--threads", type=int, help="that decode (default: one for each core)")
    command.add_argument(
        "--strict", action="store_true", help="exit with an error if any file cannot be read"
    )


def run(arguments: argparse.Namespace) -> None:
    """Says what a trained model sees in files."""
    check(arguments)
    out, folder = arguments.out, arguments.folder_by_class
    if folder and not out:
        out = os.path.join(folder, "predictions.csv")

    from zoo.analysis import batch_prediction as batches
    from zoo.analysis.running import whole_batch
    from zoo.analysis.sorting import outside
    from zoo.analysis.tables import check_format
    from zoo.analysis.trained import open_trained
    from zoo.analysis.wording import wording_of

    paths = find_files(arguments.inputs, b"\0" if arguments.null else b"\n")
    if folder:
        paths = outside(paths, Path(folder))
        make_folder(Path(folder))
    if not paths:
        raise DataError("there are no files to look at")
    if out:
        check_format(Path(out))
    begin()
    trained = open_trained(arguments.model)
    wording = wording_of(trained, arguments.top)
    if folder and wording.columns.get("class") is not str:
        raise ConfigError(
            f"--folder-by-class: {arguments.model} does not tell one class from others"
        )
    options: dict[str, Any] = {
        "batch_size": whole_batch(arguments.batch_size),
        "threads": arguments.threads or os.cpu_count() or 1,
    }
    if out:
        least = arguments.min_probability or 0.0
        sorting = batches.Sorting(Path(folder), least, arguments.link) if folder else None
        summary = batches.write(trained, wording, paths, Path(out), sorting=sorting, **options)
    else:
        summary = batches.show(trained, wording, paths, **options)
    conclude(summary, out, strict=arguments.strict)


def check(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for options that cannot work."""
    check_counts(arguments, "top", "batch_size", "threads")
    least = arguments.min_probability
    if least is not None and not 0 <= least <= 1:
        raise ConfigError(f"--min-probability={least}: must be from 0 to 1")
    if not arguments.folder_by_class and (arguments.link or least is not None):
        raise ConfigError("--link and --min-probability belong to --folder-by-class=FOLDER")
    if arguments.null and "-" not in arguments.inputs:
        raise ConfigError("-0 is about the list on stdin; give - as an input")


def find_files(inputs: Sequence[str], separator: bytes) -> list[str]:
    """Returns the files that are meant, each once, sorted; - is a list on stdin."""
    from zoo.data.files import list_images, read_list, without_repeats

    found = list_images(given for given in inputs if given != "-")
    listed = read_list(sys.stdin.buffer.read(), separator) if "-" in inputs else []
    return without_repeats([*found, *listed]) if listed else found


def make_folder(folder: Path) -> None:
    """Makes a folder if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--folder-by-class={folder}: {error.strerror}") from error


def conclude(summary: Any, out: str | None, *, strict: bool) -> None:
    """Prints what a job came to, to stderr as the answers may be on stdout.

    Raises:
      DataError: if all files are bad, or with `strict` any.
    """
    files, bad, done, seconds = summary
    bads = f", {bad:,} of them bad" if bad else ""
    if not done:
        print(f"{out} is finished: {files:,} files{bads}; nothing to do", file=sys.stderr)
    else:
        where = f"{out}: " if out else ""
        earlier = f" ({files - done:,} by an earlier start)" if done < files else ""
        rate = done / max(seconds, 1e-3)
        speed = f"{rate:,.0f} images/s" if rate > 10 else f"{rate:.1f} images/s"
        print(f"{where}{files:,} files{bads}{earlier}; {speed} with start-up", file=sys.stderr)
    if bad == files or (strict and bad):
        raise DataError(f"{bad:,} of {files:,} files could not be read")
