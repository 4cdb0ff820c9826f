"""`python -m zoo …`: the zoo from a terminal."""

import argparse
from collections.abc import Sequence
import sys

import zoo
from zoo.commands import augment, convert, describe, evaluate, features, inspect, predict, report
from zoo.commands import list as listing
from zoo.errors import Interrupted, TemporaryError, ZooError

COMMANDS = (listing, describe, convert, augment, evaluate, report, predict, features, inspect)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description=zoo.__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; a person's mistake gives one line and exit code 2.

    What a second start may mend, such as a full disk or a signal, has exit codes of its own.
    """
    parser = make_parser()
    arguments, arguments.rest = parser.parse_known_args(argv)
    takes = arguments.takes  # beginnings of flags that the command itself looks at
    # A word may be the value of a key, as in `--config.seed 1`.
    foreign = [a for a in arguments.rest if not takes or (a[:1] == "-" and not a.startswith(takes))]
    if foreign:
        parser.error(f"unrecognized arguments: {' '.join(foreign)}")
    try:
        arguments.run(arguments)
    except (ValueError, ZooError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, Interrupted | TemporaryError) else 2
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
