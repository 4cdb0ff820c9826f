"""`python -m zoo describe`: one model, layer by layer."""

import argparse
import json

from zoo.commands.parsing import Commands, add_command
from zoo.description import describe
from zoo.registry import find_model


def add(commands: Commands) -> None:
    """Declares the command."""
    command = add_command(
        commands,
        "describe",
        run,
        "one model, layer by layer",
        "Prints every layer and endpoint of a model with shapes, parameters and FLOPs.",
        "python -m zoo describe resnet50 --image-size=176 --num-classes=10",
    )
    command.add_argument("model", help="a name or an alias")
    command.add_argument("--image-size", type=int, help="default: as published")
    command.add_argument("--channels", type=int, help="default: as published")
    command.add_argument("--num-classes", type=int, help="default: as published")
    command.add_argument("--json", action="store_true", help="everything as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Prints one model, layer by layer."""
    height, width, channels = find_model(arguments.model).image_shape
    if arguments.image_size is not None:
        height = width = arguments.image_size
    shape = (height, width, channels if arguments.channels is None else arguments.channels)
    fields = {} if arguments.num_classes is None else {"num_classes": arguments.num_classes}
    described = describe(arguments.model, image_shape=shape, **fields)
    print(json.dumps(described.as_dict()) if arguments.json else described)
