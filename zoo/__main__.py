"""`python -m zoo …`: the zoo from a terminal."""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import sys
from typing import Any

import zoo
from zoo.description import describe, dimensions
from zoo.errors import ConfigError, WeightsError, ZooError, suggest
from zoo.registry import ALIASES, find_model, registered_name
from zoo.weights.catalogue import published


def list_command(arguments: argparse.Namespace) -> None:
    """Prints the models that match, with what they cost."""
    names = zoo.list_models(arguments.pattern, arguments.pretrained)
    if not names and zoo.list_models(arguments.pattern):
        raise ValueError(
            f"no weights were published for {arguments.pattern!r}; "
            "without --pretrained it is listed"
        )
    if not names:
        hint = suggest(arguments.pattern, [*zoo.list_models(), *ALIASES])
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


def describe_command(arguments: argparse.Namespace) -> None:
    """Prints one model, layer by layer."""
    height, width, channels = find_model(arguments.model).image_shape
    if arguments.image_size is not None:
        height = width = arguments.image_size
    shape = (height, width, channels if arguments.channels is None else arguments.channels)
    fields = {} if arguments.num_classes is None else {"num_classes": arguments.num_classes}
    described = describe(arguments.model, image_shape=shape, **fields)
    print(json.dumps(described.as_dict()) if arguments.json else described)


def convert_command(arguments: argparse.Namespace) -> None:
    """Writes weights of whatever kind as ours, and prints what became of every tensor."""
    from zoo.weights.loading import load_from
    from zoo.weights.saving import save_weights
    from zoo.weights.sources import find

    fields = {} if arguments.num_classes is None else {"num_classes": arguments.num_classes}
    name = registered_name(arguments.model)
    origin = find(name, arguments.source)._replace(pickles=True, key=arguments.key)
    weights = load_from(origin, name, arguments.layout, None, 0, fields)
    try:
        save_weights(arguments.folder, weights.model, weights.variables, weights.preprocessing)
    except OSError as error:
        raise WeightsError(
            f"{arguments.folder}: cannot be written to ({error.strerror}); name another folder"
        ) from error
    print(weights.report.table() if arguments.table else weights.report)
    print(f"written to {arguments.folder}: zoo.load({name!r}, {arguments.folder!r}) takes it")


def read_config(name: str, overrides: Sequence[str]) -> Any:
    """Returns a recipe, changed and checked as `train.py` does it.

    Args:
      name: of its file, with :variant behind it if it has any.
      overrides: what the command line has besides, as in `--config.seed=1`.

    Raises:
      ConfigError: for whatever is wrong with it.
    """
    try:
        from absl import flags, logging
        from ml_collections import config_flags

        from configs import default
        from zoo.training.config import check_keys, check_values, explain_flags
    except ImportError as error:
        raise ConfigError(
            f"{error}: recipes need zoo[train], and a clone of the repository to run in"
        ) from error
    logging.set_verbosity(logging.ERROR)  # TFDS tells all it does
    argv = ["zoo", f"--config={name}", *overrides]
    reference, values = default.get_config(), flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    with explain_flags(argv, reference):
        rest = values(argv)[1:]
        config: Any = holder.value
    if rest:
        raise ConfigError(f"{rest[0]!r} is not a flag; flags begin with --")
    check_keys(config, reference)
    check_values(config)
    return config


def augment_command(arguments: argparse.Namespace) -> None:
    """Draws what a recipe's augmentation makes of examples."""
    out = Path(arguments.out)
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise ConfigError(f"--out={out}: give a file that ends with .png, in a folder that exists")
    if arguments.rows < 1 or arguments.columns < 1 or arguments.step < 0:
        raise ConfigError("--rows and --columns must be 1 or more, --step 0 or more")
    config = read_config(arguments.config, arguments.rest)
    from zoo.training.preview import preview
    from zoo.training.startup import start

    start(config.compilation_cache, onednn=config.onednn)
    grid = preview(
        config, arguments.split, step=arguments.step, rows=arguments.rows, columns=arguments.columns
    )
    try:
        grid.save(out)
    except OSError as error:
        raise ConfigError(f"--out={out}: cannot be written to ({error.strerror})") from error
    print(f"written to {out}: examples of step {arguments.step}")


AUGMENT_HELP = """\
Draws what a recipe's augmentation makes of examples, by the functions that training uses.
Each row is an example: first as evaluation sees it, then in one epoch after the other. What is
mixed is mixed with the other rows.

    python -m zoo augment --config=configs/lenet_digits.py --out=grid.png --rows=4 \\
        --config.augment.images="(('rand_augment', {'num_ops': 2}),)"
"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description=zoo.__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("list", help="the models, with parameters and FLOPs")
    command.add_argument("pattern", nargs="?", default="*", help="a wildcard, as 'eff*'")
    command.add_argument("--names", action="store_true", help="names only, which is quicker")
    command.add_argument("--pretrained", action="store_true", help="the weights published for them")
    command.set_defaults(run=list_command)

    command = commands.add_parser("describe", help="one model, layer by layer")
    command.add_argument("model", help="a name or an alias")
    command.add_argument("--image-size", type=int, help="default: as published")
    command.add_argument("--channels", type=int, help="default: as published")
    command.add_argument("--num-classes", type=int, help="default: as published")
    command.add_argument("--json", action="store_true", help="everything as JSON")
    command.set_defaults(run=describe_command)

    command = commands.add_parser(
        "convert", help="weights of torchvision, timm or Keras to a folder of ours"
    )
    command.add_argument("model", help="a name or an alias")
    command.add_argument("source", help="a file, a folder, a hub id; .pth needs zoo[torch]")
    command.add_argument("folder", help="to write model.safetensors and config.json into")
    command.add_argument("--layout", help="whose names the file has, if that is not clear")
    command.add_argument("--num-classes", type=int, help="begin a new head of another size")
    command.add_argument("--key", help="of the state dict in a .pth that holds several")
    command.add_argument("--table", action="store_true", help="print a line for every array")
    command.set_defaults(run=convert_command)

    command = commands.add_parser(
        "augment",
        help="a picture of what a recipe's augmentation makes of the data",
        description=AUGMENT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Any key of the recipe can be changed: --config.KEY=VALUE.",
        allow_abbrev=False,
    )
    command.add_argument("--config", required=True, help="FILE or FILE:VARIANT of configs/")
    command.add_argument("--out", required=True, help="the .png to write")
    command.add_argument("--rows", type=int, default=8, help="examples of the batch (default: 8)")
    command.add_argument("--columns", type=int, default=8, help="epochs and one (default: 8)")
    command.add_argument("--step", type=int, default=0, help="of training, whose batch is shown")
    command.add_argument("--split", choices=("train", "validation", "test"), default="train")
    command.set_defaults(run=augment_command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; a person's mistake gives one line and exit code 2."""
    parser = make_parser()
    arguments, arguments.rest = parser.parse_known_args(argv)
    takes = ("--config.", "--noconfig.") if arguments.run is augment_command else ()
    # A word may be the value of a key, as in `--config.seed 1`.
    foreign = [a for a in arguments.rest if not takes or (a[:1] == "-" and not a.startswith(takes))]
    if foreign:
        parser.error(f"unrecognized arguments: {' '.join(foreign)}")
    try:
        arguments.run(arguments)
    except (ValueError, ZooError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
