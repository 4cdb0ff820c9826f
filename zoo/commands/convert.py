"""`python -m zoo convert`: weights of whatever kind into a folder of ours."""

import argparse

from zoo.commands.parsing import Commands, add_command
from zoo.errors import WeightsError
from zoo.registry import registered_name


def add(commands: Commands) -> None:
    """Declares the command."""
    command = add_command(
        commands,
        "convert",
        run,
        "weights of torchvision, timm or Keras to a folder of ours",
        "Writes weights of torchvision, timm or Keras as a folder that zoo.load takes.",
        "python -m zoo convert mobilenet_v2 mobilenet_v2-b0353104.pth weights/mobilenet_v2",
    )
    command.add_argument("model", help="a name or an alias")
    command.add_argument("source", help="a file, a folder, a hub id; .pth needs zoo[torch]")
    command.add_argument("folder", help="to write model.safetensors and config.json into")
    command.add_argument("--layout", help="whose names the file has, if that is not clear")
    command.add_argument("--num-classes", type=int, help="begin a new head of another size")
    command.add_argument("--key", help="of the state dict in a .pth that holds several")
    command.add_argument("--table", action="store_true", help="print a line for every array")


def run(arguments: argparse.Namespace) -> None:
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
