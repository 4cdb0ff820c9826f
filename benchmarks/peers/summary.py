"""From turns to figures: images per second, ratios within rounds, and geometric means."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
import statistics
from typing import Any, NamedTuple

Result = Mapping[str, Any]  # of one model and work, as `run.measure` makes it

DISTURBED = 0.05  # of the processors in other programs' hands: figures are worth little
# The first that has figures is compared with the others.
OURS = ("zoo", "zoo_unfolded", "zoo_without_onednn")

# By title, whose best row zoo is compared with.
COMPARISONS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "Keras on JAX": ("keras", "keras_tuned"),
        "torch eager channels_last": ("torch_channels_last",),
        "best of torch": ("torch", "torch_channels_last", "torch_compile"),
        "plain flax": ("flax",),
    },
    "infer": {
        "Keras on JAX": ("keras", "keras_tuned"),
        "torch eager channels_last": ("torch_channels_last",),
        "best of torch": ("torch", "torch_channels_last", "torch_compile"),
        "best of torch and onnxruntime": (
            *("torch", "torch_channels_last", "torch_compile"),
            "onnxruntime",
        ),
        "plain flax": ("flax",),
    },
}


class Spread(NamedTuple):
    """A median over rounds, with the smallest and the largest value."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Returns that of some values, one at least."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as fast zoo is as the best of some rows.

    Attributes:
      ours: the row of zoo.
      peer: the row it is compared with, the one with the largest median.
      by_round: ratios of images per second, by the number of the round.
    """

    ours: str
    peer: str
    by_round: Mapping[int, float]

    @property
    def spread(self) -> Spread:
        """Median, smallest and largest over the rounds."""
        return Spread.of(self.by_round.values())


def rates(result: Result, name: str) -> dict[int, float]:
    """Returns images per second of a contender by round; {} if it has none."""
    turns = result["contenders"].get(name, {}).get("turns", [])
    return {turn["round"]: result["batch"] / turn["seconds"] for turn in turns}


def rate(result: Result, name: str) -> Spread | None:
    """Returns images per second of a contender; None if it has none."""
    by_round = rates(result, name)
    return Spread.of(by_round.values()) if by_round else None


def fastest(result: Result, names: Sequence[str]) -> str | None:
    """Returns the name with the largest median; None if none has figures."""
    medians = {name: found.median for name in names if (found := rate(result, name))}
    return max(medians, key=lambda name: medians[name]) if medians else None


def compare(result: Result, peers: Sequence[str]) -> Ratio | None:
    """Returns zoo's ratio to the best of some peers; None if a side has no figures.

    The peer is the same one in all rounds, and a round counts in which both worked.
    """
    ours = next((name for name in OURS if rates(result, name)), None)
    peer = fastest(result, peers)
    if ours is None or peer is None:
        return None
    mine, theirs = rates(result, ours), rates(result, peer)
    common = sorted(mine.keys() & theirs.keys())
    return Ratio(ours, peer, {n: mine[n] / theirs[n] for n in common}) if common else None


def geometric_mean(ratios: Sequence[Ratio]) -> Spread:
    """Returns that of the medians, and the smallest and largest of a round.

    A round counts in which every one of the ratios was taken, and there are such: all
    contenders have the first ones.

    Args:
      ratios: of several models, one at least.
    """
    common = set.intersection(*(set(ratio.by_round) for ratio in ratios))
    rounds = [_mean(ratio.by_round[n] for ratio in ratios) for n in sorted(common)]
    middle = _mean(ratio.spread.median for ratio in ratios)
    return Spread(middle, min([middle, *rounds]), max([middle, *rounds]))


def _mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def rates_table(result: Result) -> list[str]:
    """Returns lines with the images per second of every contender, and why some have none."""
    title = f"{result['model']}, {result['work']}, batch {result['batch']}"
    lines = [f"{title}, {result['image_size']}x{result['image_size']}"]
    for name, entry in result["contenders"].items():
        found = rate(result, name)
        text = f"  {name:20}"
        if found:
            text += f" {found.median:8.2f} images/s ({found.low:.2f} to {found.high:.2f})"
            text += f", {len(entry['turns'])} x {entry['steps_per_turn']} steps"
            others = statistics.median(turn.get("others", 0.0) for turn in entry["turns"])
            text += f", OTHER PROGRAMS TOOK {others:.0%}" if others > DISTURBED else ""
        notes = [entry.get("differs"), entry.get("absent")]
        notes += [f"FAILED: {entry['error']}"] if "error" in entry else []
        lines.append("; ".join([text, *filter(None, notes)]))
    return lines


def ratios_table(results: Iterable[Result], work: str) -> list[str]:
    """Returns Markdown lines: zoo's ratios by model, and their geometric means by group."""
    results = [result for result in results if result["work"] == work]
    titles = list(COMPARISONS[work])
    lines = [f"| {work} | zoo, images/s | " + " | ".join(titles) + " |"]
    lines.append("|---|---:|" + "---:|" * len(titles))
    groups = list(dict.fromkeys(result["group"] for result in results))
    for group in groups:
        members = [result for result in results if result["group"] == group]
        columns: dict[str, list[Ratio]] = {title: [] for title in titles}
        for result in members:
            ours = next((found for name in OURS if (found := rate(result, name))), None)
            cells = [f"{ours.median:.1f}" if ours else "failed"]
            for title in titles:
                ratio = compare(result, COMPARISONS[work][title])
                if ratio is not None:
                    columns[title].append(ratio)
                peers = COMPARISONS[work][title]
                best = f" {ratio.peer}" if ratio and len(peers) > 1 else ""
                cells.append(f"{_text(ratio.spread)}{best}" if ratio else "")
            lines.append(f"| {result['model']} | " + " | ".join(cells) + " |")
        means = [_mean_text(ratios, len(members)) for ratios in columns.values()]
        lines.append(f"| **{group}**, geometric mean | | " + " | ".join(means) + " |")
    return lines


def _mean_text(ratios: Sequence[Ratio], models: int) -> str:
    if not ratios:
        return ""
    count = "" if len(ratios) == models else f", of {len(ratios)} of {models}"
    return _text(geometric_mean(ratios)) + count


def _text(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"
