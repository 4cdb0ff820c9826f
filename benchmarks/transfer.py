"""What published weights are worth where pictures are few.

    python -m zoo convert mobilenet_v2 mobilenet_v2-b0353104.pth /tmp/mobilenet_v2
    python -m benchmarks.transfer --weights=/tmp/mobilenet_v2

trains MobileNetV2 on `benchmarks.stamps` in three ways that share data, size of the pictures,
steps, batch, optimiser and schedule: a new head on frozen weights (configs/transfer.py), all of
them at falling rates (`train=all`), and all from random ones. Each way has three runs, with seeds
0, 1 and 2, and each of them holds other stamps out: together every stamp once. They are looked at
after the last epoch only, so nothing was chosen by them. benchmarks/results/transfer_stamps.json
has the accuracy of each run and of all stamps, with the 95 % interval (Wilson), and the wall time
of the whole training, with reading, compiling and saving.
"""

from pathlib import Path
import tempfile
import time
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict

from benchmarks import stamps
from benchmarks.record import surroundings, write
from configs import transfer
from zoo.tasks.task import wilson_interval
from zoo.training.loop import fit
from zoo.training.startup import start

WEIGHTS = flags.DEFINE_string("weights", None, "Folder of ImageNet's weights.", required=True)
MODEL = flags.DEFINE_string("model", "mobilenet_v2", "The network.")
SIZE = flags.DEFINE_integer("image_size", 128, "Height and width of the pictures.")
# In steps, and not in epochs, so that all folds share compiled programs.
STEPS = flags.DEFINE_integer("steps", 155, "Of each run; 155 are 30 epochs.", lower_bound=1)
WAYS = flags.DEFINE_list("ways", ["head", "all", "scratch"], "What to train, and from what.")


def recipe(way: str, folder: Path, seed: int) -> ConfigDict:
    """Returns the configuration of a run."""
    train = "all" if way == "scratch" else way
    parts = f"data={folder},model={MODEL.value},weights={WEIGHTS.value},train={train}"
    config = transfer.get_config(parts)
    config.seed = seed
    config.train_for = config.evaluate_every = config.checkpoint.every = f"{STEPS.value} steps"
    config.data.image_size = SIZE.value
    config.data.crop_fraction = 1.0
    config.optimizer.learning_rate = 1e-3
    if way == "scratch":
        config.data.mean, config.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        config.model.weights = None
        config.optimizer.layer_decay = 1.0
    return config


def measure(way: str, folder: Path, seed: int) -> dict[str, Any]:
    """Trains once, and returns what came out for the stamps that were held out."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as workdir:
        figures = fit(recipe(way, folder, seed), workdir)["metrics"]["val"]
    return {
        "seed": seed,
        "top1": figures["top1"],
        "examples": figures["examples"],
        "loss": round(figures["loss"], 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the accuracy over the stamps of all runs."""
    examples = sum(run["examples"] for run in runs)
    right = sum(run["top1"] * run["examples"] for run in runs)
    return {
        "top1": round(right / examples, 4),
        "interval": [round(end, 4) for end in wilson_interval(right, examples)],
        "examples": examples,
        "seconds": round(sum(run["seconds"] for run in runs), 1),
        "runs": runs,
    }


def main(_: list[str]) -> None:
    """Trains in each way, and writes the result after each."""
    start(None)
    result: dict[str, Any] = surroundings("benchmarks.transfer")
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(fold) for fold in range(stamps.FOLDS)]
        result["images"] = [stamps.write(folder, fold) for fold, folder in enumerate(folders)]
        for way in WAYS.value:
            runs = [measure(way, folder, seed) for seed, folder in enumerate(folders)]
            result[way] = summary(runs)
            print(way, result[way], flush=True)
            write("transfer_stamps", result)


if __name__ == "__main__":
    app.run(main)
