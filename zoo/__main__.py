"""`python -m zoo …`: the zoo from a terminal."""

import argparse
from collections.abc import Sequence
import json
import sys

import zoo
from zoo.description import describe, dimensions
from zoo.errors import suggest
from zoo.registry import ALIASES, find_model


def list_command(arguments: argparse.Namespace) -> None:
    """Prints the models that match, with what they cost."""
    names = zoo.list_models(arguments.pattern)
    if not names:
        hint = suggest(arguments.pattern, [*zoo.list_models(), *ALIASES])
        raise ValueError(
            f"no model matches {arguments.pattern!r}.{hint} Wildcards are those of a shell, as in "
            f"'*{arguments.pattern.strip('*')}*'; without a pattern all are listed"
        )
    if arguments.names:
        print("\n".join(names))
        return
    aliases = {name: [a for a in ALIASES if ALIASES[a] == name] for name in names}
    print(
        f"{'model':20} {'parameters':>12} {'GFLOPs':>8} {'activations':>12} {'image':>10}  aliases"
    )
    for name in names:
        d = describe(name)
        print(
            f"{name:20} {d.parameters:12,} {d.flops / 1e9:8.3f} {d.activations:12,} "
            f"{dimensions(d.image_shape):>10}  {' '.join(aliases[name])}".rstrip(),
            flush=True,
        )
    print("GFLOPs are 10^9 x MACs x 2 of convolutions and dense layers, for one image.")


def describe_command(arguments: argparse.Namespace) -> None:
    """Prints one model, layer by layer."""
    height, width, channels = find_model(arguments.model).image_shape
    if arguments.image_size is not None:
        height = width = arguments.image_size
    shape = (height, width, channels if arguments.channels is None else arguments.channels)
    fields = {} if arguments.num_classes is None else {"num_classes": arguments.num_classes}
    described = describe(arguments.model, image_shape=shape, **fields)
    print(json.dumps(described.as_dict()) if arguments.json else described)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description=zoo.__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("list", help="the models, with parameters and FLOPs")
    command.add_argument("pattern", nargs="?", default="*", help="a wildcard, as 'eff*'")
    command.add_argument("--names", action="store_true", help="names only, which is quicker")
    command.set_defaults(run=list_command)

    command = commands.add_parser("describe", help="one model, layer by layer")
    command.add_argument("model", help="a name or an alias")
    command.add_argument("--image-size", type=int, help="default: as published")
    command.add_argument("--channels", type=int, help="default: as published")
    command.add_argument("--num-classes", type=int, help="default: as published")
    command.add_argument("--json", action="store_true", help="everything as JSON")
    command.set_defaults(run=describe_command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; a person's mistake gives one line and exit code 2."""
    arguments = make_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
