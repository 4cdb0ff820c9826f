"""`python -m zoo list`: the models, and the weights published for them."""

import argparse
from collections.abc import Sequence

from zoo.commands.parsing import Commands, add_command
from zoo.description import describe, dimensions
from zoo.errors import suggest
from zoo.registry import ALIASES, list_models
from zoo.weights.catalogue import published


def add(commands: Commands) -> None:
    """Declares the command."""
    command = add_command(
        commands,
        "list",
        run,
        "the models, with parameters and FLOPs",
        "Lists models with what they cost, or the weights published for them.",
        "python -m zoo list 'eff*' --pretrained",
    )
    command.add_argument("pattern", nargs="?", default="*", help="a wildcard, as 'eff*'")
    command.add_argument("--names", action="store_true", help="names only, which is quicker")
    command.add_argument("--pretrained", action="store_true", help="the weights published for them")


def run(arguments: argparse.Namespace) -> None:
    """Prints the models that match, with what they cost."""
    names = list_models(arguments.pattern, arguments.pretrained)
    if not names and list_models(arguments.pattern):
        raise ValueError(
            f"no weights were published for {arguments.pattern!r}; "
            "without --pretrained it is listed"
        )
    if not names:
        hint = suggest(arguments.pattern, [*list_models(), *ALIASES])
        raise ValueError(
            f"no model matches {arguments.pattern!r}.{hint} Wildcards are those of a shell, as in "
            f"'*{arguments.pattern.strip('*')}*'; without a pattern all are listed"
        )
    if arguments.names:
        print("\n".join(names))
        return
    if arguments.pretrained:
        list_weights(names)
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


def list_weights(names: Sequence[str]) -> None:
    """Prints the weights that were published for some models."""
    rows = [row for name in names for row in published(name)]
    width = max(len(row.weights) for row in rows)
    print(f"{'model':20} {'weights':{width}} {'image':>5} {'top-1':>6}  {'licence':12} checked")
    for row in rows:
        size = row.test_image_size or row.image_size
        top1 = "-" if row.top1 is None else f"{row.top1:.1f}"
        licence = row.licence or "-"
        print(
            f"{row.model:20} {row.weights:{width}} {size:5} {top1:>6}  {licence:12} "
            f"{row.checked or '-'}"
        )
    print(
        "image: side at which top-1, percent of ImageNet's validation images, was published. "
        "checked: file = a copy was loaded here and computes what the original does; layout = "
        "names and shapes of the arrays are those of the original library; - = neither. Only "
        "'file' has seen the bytes: the others could not be verified without a network."
    )
