"""`python -m zoo inspect`: pictures of what a trained model sees, and where it looks."""

import argparse
from collections.abc import Callable
from pathlib import Path

from zoo.commands import pictures
from zoo.commands.parsing import Commands, add_command

MODEL = (
    "a workdir of train.py, WORKDIR@STEP, a folder of weights, or MODEL=WEIGHTS of others "
    "(mobilenet_v2=file.safetensors)"
)
LAYERS = "endpoints (stride16) or paths of modules (stage1_block1/conv2), see `zoo describe`"


def add(commands: Commands) -> None:
    """Declares the command and what it can draw."""
    summary = "pictures of what a trained model sees, and where it looks"
    parser = commands.add_parser(
        "inspect",
        help=summary,
        description=f"Draws {summary}.",
        epilog="example:\n    python -m zoo inspect gradcam runs/x cat.jpg --out=cat.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(required=True, metavar="picture")
    for declare in (_patches, _filters, _maps, _gradcam, _gradients, _maximise, _neighbours):
        declare(kinds)


def _declare(
    kinds: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    example = f"python -m zoo inspect {name} runs/x {example} --out={name}.png"
    parser = add_command(kinds, name, run, summary, description, example)
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--out", type=Path, required=True, help="the .png to write")
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", help="files, folders or patterns")
    parser.add_argument("--class", dest="name", help="or its number (default: as predicted)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="as config.data.name (default: that of the run)")
    parser.add_argument("--split", help="default: the run's test split")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")


def _add_channels(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--channels",
        type=int,
        default=default,
        help=f"of each layer, evenly spread over all (default: {default})",
    )
    parser.add_argument("--only", help="these channels instead, as in 3,17,40")


def _patches(kinds: Commands) -> None:
    parser = _declare(
        kinds,
        "patches",
        pictures.draw_patches,
        "the parts of a dataset's images that excite channels most",
        "Looks in all images of a split for those that excite each channel most, and draws the\n"
        "receptive fields of where they do (Zeiler and Fergus 2014).",
        "--layers=stride8,stride16 --channels=9",
    )
    parser.add_argument("--layers", required=True, help=LAYERS)
    _add_channels(parser, 9)
    parser.add_argument("--count", type=int, default=9, help="patches of each (default: 9)")
    _add_data(parser)


def _neighbours(kinds: Commands) -> None:
    parser = _declare(
        kinds,
        "neighbours",
        pictures.draw_neighbours,
        "images and what the network takes to be most like them",
        "Draws each image beside those of a dataset that are nearest to it in the space of a\n"
        "layer, by the cosine of their angle; maps are averaged over positions.",
        "cat.jpg --count=8",
    )
    parser.add_argument("images", nargs="+", help="files, folders or patterns")
    parser.add_argument("--layer", default="pre_logits", help="endpoint (default: pre_logits)")
    parser.add_argument("--count", type=int, default=8, help="neighbours of each (default: 8)")
    _add_data(parser)


def _filters(kinds: Commands) -> None:
    parser = _declare(
        kinds,
        "filters",
        pictures.draw_filters,
        "the kernels of the first layer",
        "Draws the kernels of a layer that sees the image, each scaled by its largest weight.",
        "",
    )
    parser.add_argument("--layer", help="default: the first with a kernel")


def _maps(kinds: Commands) -> None:
    parser = _declare(
        kinds,
        "maps",
        pictures.draw_maps,
        "one image on its way through the network",
        "Draws channels of what layers put out for one image, each from dark to bright.",
        "cat.jpg --layers=stride4,stride16",
    )
    parser.add_argument("image", help="its file")
    parser.add_argument("--layers", help=f"{LAYERS} (default: all maps among the endpoints)")
    _add_channels(parser, 8)


def _gradcam(kinds: Commands) -> None:
    parser = _declare(
        kinds,
        "gradcam",
        pictures.draw_gradcam,
        "where in images the model saw a class",
        "Grad-CAM (Selvaraju et al. 2017): lays over each image where a layer speaks for a class.",
        "cat.jpg --class='Egyptian cat'",
    )
    _add_images(parser)
    parser.add_argument("--layer", help="default: the last map")


def _gradients(kinds: Commands) -> None:
    parser = _declare(
        kinds,
        "gradients",
        pictures.draw_gradients,
        "how much each pixel has to do with a class",
        "Integrated gradients (Sundararajan et al. 2017) or SmoothGrad (Smilkov et al. 2017).",
        "cat.jpg --steps=100",
    )
    _add_images(parser)
    parser.add_argument("--method", choices=("integrated", "smooth"), default="integrated")
    parser.add_argument(
        "--baseline", choices=("black", "grey", "white"), default="black", help="to begin from"
    )
    parser.add_argument("--steps", type=int, default=50, help="from there (default: 50)")
    parser.add_argument("--noise", type=float, default=0.15, help="of smooth (default: 0.15)")
    parser.add_argument("--samples", type=int, default=25, help="of smooth (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="of smooth")


def _maximise(kinds: Commands) -> None:
    parser = _declare(
        kinds,
        "maximise",
        pictures.draw_maximise,
        "images made to excite channels or classes most",
        "Climbs from noise to images that excite channels or classes (Olah et al. 2017).",
        "--class='goldfish,coffee mug'",
    )
    parser.add_argument("--layer", default="logits", help=f"{LAYERS} (default: logits)")
    parser.add_argument("--class", dest="names", help="names or numbers, with commas; of logits")
    _add_channels(parser, 9)
    parser.add_argument("--steps", type=int, default=256, help="default: 256")
    parser.add_argument("--rate", type=float, default=0.05, help="default: 0.05")
    parser.add_argument("--jitter", type=float, default=0.06, help="part of the side, default 0.06")
    parser.add_argument("--zoom", type=float, default=0.1, help="up or down by, default: 0.1")
    parser.add_argument("--total-variation", type=float, default=0.0, help="default: 0")
    parser.add_argument("--centre", action="store_true", help="the middle of the map alone")
    parser.add_argument("--seed", type=int, default=0)
