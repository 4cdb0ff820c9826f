"""Learning curves: what a person looks at first."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, no display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from zoo.training.report import read_metrics

COLOURS = {"train": "#4c78a8", "val": "#e45756", "val_ema": "#72b7b2", "val_swa": "#f58518"}
TITLES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "accuracy": "Accuracy",
    "exact_match": "Exact match",
    "f1": "F1",
    "macro_f1": "Macro F1",
}  # of parts of a whole
LABELS = {
    "train": "training",
    "val": "validation",
    "val_ema": "validation, moving average of weights",
    "val_swa": "validation, mean of weights",
}


def plot_learning_curves(workdir: Path, metric: str, best_step: int | None) -> Path:
    """Draws loss, another figure and the learning rate over epochs from `metrics.jsonl`.

    Args:
      workdir: of a run.
      metric: by which the best was chosen, as "val/top1"; for a loss R^2 is drawn instead.
      best_step: where it was.

    Returns:
      The path of the PNG, `plots/learning_curves.png` in the workdir.
    """
    lines = read_metrics(workdir / "metrics.jsonl")
    figure, (loss, accuracy, rate) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    _draw(loss, lines, "loss")
    loss.set(title="Loss", yscale="log")
    name = metric.partition("/")[2]
    second = "r2" if name == "loss" else name
    _draw(accuracy, lines, second)
    accuracy.set(title=TITLES.get(second, second))
    if second in TITLES:
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    _mark_best(loss if name == "loss" else accuracy, lines, metric, best_step)
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


def _draw(axes: Axes, lines: list[dict], name: str) -> None:
    for group, colour in COLOURS.items():
        points = [(li["epoch"], li[key]) for li in lines if (key := f"{group}/{name}") in li]
        if points:
            style = {"color": colour, "label": LABELS[group], "linewidth": 1.8}
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "", **style)


def _mark_best(axes: Axes, lines: list[dict], metric: str, step: int | None) -> None:
    best = next((line for line in lines if line["step"] == step and metric in line), None)
    if best is None:
        return
    group, _, name = metric.partition("/")
    value = f"{best[metric]:.2%}" if name in TITLES else f"{best[metric]:.4g}"
    text = f"best {LABELS[group].partition(',')[0]}: {value} at epoch {best['epoch']:.1f}"
    axes.axvline(best["epoch"], color=COLOURS[group], linestyle=":", linewidth=1)
    axes.text(0.98, 0.04, text, transform=axes.transAxes, ha="right", fontsize=9)
