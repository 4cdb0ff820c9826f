"""Learning curves: what a person looks at first."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, no display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from zoo.training.report import read_metrics

COLOURS = {"train": "#4c78a8", "val": "#e45756", "val_ema": "#72b7b2"}
LABELS = {"train": "training", "val": "validation", "val_ema": "validation, averaged weights"}


def plot_learning_curves(workdir: Path) -> Path:
    """Draws loss, accuracy and learning rate over epochs from `metrics.jsonl`.

    Args:
      workdir: of a run.

    Returns:
      The path of the PNG, `plots/learning_curves.png` in the workdir.
    """
    lines = read_metrics(workdir / "metrics.jsonl")
    figure, (loss, accuracy, rate) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    _draw(loss, lines, "loss")
    loss.set(title="Loss", yscale="log")
    _draw(accuracy, lines, "top1", scale=100)
    accuracy.set(title="Top-1 accuracy (%)")
    _mark_best(accuracy, lines)
    _draw(rate, lines, "learning_rate")
    rate.set(title="Learning rate", ylim=(0, None))
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    loss.legend(frameon=False)
    path = workdir / "plots" / "learning_curves.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _draw(axes: Axes, lines: list[dict], name: str, scale: float = 1.0) -> None:
    for group, colour in COLOURS.items():
        points = [
            (li["epoch"], scale * li[key]) for li in lines if (key := f"{group}/{name}") in li
        ]
        if points:
            style = {"color": colour, "label": LABELS[group], "linewidth": 1.8}
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "", **style)


def _mark_best(axes: Axes, lines: list[dict]) -> None:
    points = [(line["val/top1"], line["epoch"]) for line in lines if "val/top1" in line]
    if not points:
        return
    best, epoch = max(points)
    text = f"best validation: {100 * best:.2f} % at epoch {epoch:.1f}"
    axes.axvline(epoch, color=COLOURS["val"], linestyle=":", linewidth=1)
    axes.text(0.98, 0.04, text, transform=axes.transAxes, ha="right", fontsize=9)
