"""What the commands' parsers have in common."""

import argparse
from collections.abc import Callable
from typing import Any

Commands = Any  # what `argparse` returns of `add_subparsers`, which has no public name


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Returns the parser of a new command, whose arguments are still to be added.

    Args:
      commands: of the program.
      name: what is typed.
      run: does it, given what was parsed.
      summary: a line for the list of commands.
      description: for its own help.
      example: of how it is called, likewise.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n    {example.strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, takes=())
    return parser
