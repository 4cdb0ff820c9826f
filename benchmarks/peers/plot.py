"""The plot: how many times as fast zoo is, by model and peer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.peers.models import MODELS
from benchmarks.peers.summary import COMPARISONS, Ratio, Result, compare, geometric_mean

TITLES = {"train": "Training step", "infer": "Inference"}
COLOURS = {
    "Keras on JAX": "#d95f02",
    "plain flax": "#e7b416",
    "torch eager channels_last": "#7aa6c2",
    "best of torch": "#1f4e79",
    "best of torch and onnxruntime": "#2e7d5b",
}


def draw(results: Iterable[Result], file: Path) -> Path:
    """Draws zoo's ratios as bars, one panel for each work, and returns the file.

    Bars begin at 1, equally fast; thin lines go from the smallest to the largest ratio of a
    round. Below the models of a group stands its geometric mean.

    Args:
      results: of all models and works.
      file: to write, a PNG.
    """
    results = list(results)
    works = [work for work in TITLES if any(r["work"] == work for r in results)]
    rows = max(len(_rows(_of(results, work), work)) for work in works)
    size = (5.2 * len(works) + 1.2, 1.8 + 0.6 * rows)
    figure, axes = plt.subplots(1, len(works), figsize=size, squeeze=False)
    for axis, work in zip(axes[0], works, strict=True):
        _panel(axis, _of(results, work), work)
    some = results[0]
    figure.suptitle(
        f"Images per second, zoo by peer (float32, batch {some['batch']}, the same cores)",
        fontsize=11,
    )
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file


def _panel(axis: Any, results: list[Result], work: str) -> None:
    rows = _rows(results, work)
    titles = [t for t in COMPARISONS[work] if any(t in ratios for _, ratios in rows)]
    height = 0.8 / max(1, len(titles))
    for place, (label, ratios) in enumerate(rows):
        bold = label not in MODELS
        for i, title in enumerate(titles):
            if title not in ratios:
                continue
            middle, low, high = ratios[title]
            y = place - 0.4 + (i + 0.5) * height
            axis.barh(y, middle - 1, height, left=1, color=COLOURS[title], alpha=1.0)
            axis.plot([low, high], [y, y], color="black", linewidth=0.7)
            axis.annotate(
                f"{middle:.2f}" if middle < 10 else f"{middle:.0f}",
                (max(middle, high, 1), y),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=6.5,
                weight="bold" if bold else "normal",
            )
    axis.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    for tick, (label, _) in zip(axis.get_yticklabels(), rows, strict=True):
        tick.set_weight("normal" if label in MODELS else "bold")
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: ""))
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, 0.8), max(high * 1.25, 1.25))  # room for the numbers
    axis.axvline(1, color="black", linewidth=0.9)
    axis.grid(axis="x", alpha=0.3)
    axis.set_title(f"{TITLES[work]}: right of 1x zoo is faster", fontsize=9)
    handles = [Rectangle((0, 0), 1, 1, color=COLOURS[title]) for title in titles]
    axis.legend(
        handles, titles, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=2
    )


def _of(results: list[Result], work: str) -> list[Result]:
    return [result for result in results if result["work"] == work]


def _rows(results: list[Result], work: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns labels with their ratios: models, and behind each group its geometric mean."""
    rows: list[tuple[str, dict[str, Any]]] = []
    for group in dict.fromkeys(r["group"] for r in results):
        columns: dict[str, list[Ratio]] = {}
        for result in results:
            if result["group"] != group:
                continue
            found = {t: compare(result, peers) for t, peers in COMPARISONS[work].items()}
            known = {title: ratio for title, ratio in found.items() if ratio is not None}
            for title, ratio in known.items():
                columns.setdefault(title, []).append(ratio)
            rows.append((result["model"], {t: ratio.spread for t, ratio in known.items()}))
        # Of one model it would be the same bar again.
        means = {t: geometric_mean(r) for t, r in columns.items() if len(r) > 1}
        if means:
            rows.append((f"{group}, mean", means))
    return rows
