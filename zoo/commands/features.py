"""`python -m zoo features`: what a network makes of examples before its last layer, in files."""

import argparse
from pathlib import Path

from zoo.commands.parsing import Commands, add_command
from zoo.commands.shared import begin
from zoo.errors import ConfigError

DESCRIPTION = """\
Writes an endpoint of a model, such as the vector before its last layer, of every example of a
dataset or of any images. The new folder has ENDPOINT.npy [N, ...], labels.npy [N], index.csv with
a line for each row, and features.json, which says what they are of. MODEL is a workdir of train.py,
WORKDIR@STEP, a folder of weights, or MODEL=WEIGHTS; the data's classes need not be the model's.
"""

EXAMPLE = """\
python -m zoo features runs/digits --out=features --endpoint=pre_logits,stride4 --pool
    python -m zoo features resnet50=timm/resnet50.a1_in1k --images 'holiday/*.jpg' --out=features
"""


def add(commands: Commands) -> None:
    """Declares the command."""
    command = add_command(
        commands,
        "features",
        run,
        "endpoints of a model for every example, as arrays",
        DESCRIPTION,
        EXAMPLE,
    )
    argument = command.add_argument
    argument("model", metavar="MODEL", help="see above")
    argument("--out", required=True, metavar="FOLDER", help="to make")
    argument("--data", help="as config.data.name (default: that of the model's run)")
    argument("--split", help="as 'train[:10%%]' (default: the run's test split)")
    argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="instead of --data: files, folders and patterns of images without labels",
    )
    argument("--endpoint", default="pre_logits", help="or several, with commas (pre_logits)")
    argument("--pool", action="store_true", help="average maps over all positions")
    argument("--dtype", choices=("float32", "float16"), default="float32")
    argument("--file-size", type=float, default=4.0, help="of an array at most, in GB (4)")
    argument("--batch-size", type=int, default=64, help="over all devices (64)")
    argument("--threads", type=int, default=2, help="that decode (2)")
    argument("--max-bad", type=int, default=0, help="images to leave out if damaged (0)")


def run(arguments: argparse.Namespace) -> None:
    """Writes features."""
    if arguments.images and (arguments.data or arguments.split):
        raise ConfigError("--images takes the place of --data and --split; give one or the other")
    if arguments.batch_size < 1 or arguments.threads < 1 or arguments.max_bad < 0:
        raise ConfigError("--batch-size and --threads must be 1 or more, --max-bad 0 or more")
    if not arguments.file_size > 0:
        raise ConfigError(f"--file-size={arguments.file_size}: must be more than 0")
    endpoints = [name for name in arguments.endpoint.split(",") if name]
    from zoo.analysis.feature_files import write_features
    from zoo.analysis.opening import name_data, open_data
    from zoo.analysis.trained import open_trained
    from zoo.data.files import FilesSource, list_images

    begin()
    trained = open_trained(arguments.model)
    if arguments.images:
        source = FilesSource(list_images(arguments.images))
        data = {"name": " ".join(arguments.images), "split": ""}
    else:
        source = open_data(trained, arguments.data, arguments.split)
        name, split = name_data(trained, arguments.data, arguments.split)
        data = {"name": name, "split": split}
    about = write_features(
        Path(arguments.out),
        trained,
        source,
        data,
        endpoints,
        pool=arguments.pool,
        dtype=arguments.dtype,
        file_size=arguments.file_size,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
        max_bad=arguments.max_bad,
    )
    for name, array in about["endpoints"].items():
        shape = " x ".join(map(str, array["shape"]))
        print(f"{name}: {array['dtype']} {shape}, {', '.join(array['files'])}")
    left_out = f", {len(about['left_out'])} left out" * bool(about["left_out"])
    print(f"written to {arguments.out}: {about['examples']} examples{left_out}")
