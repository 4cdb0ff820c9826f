"""What a person sees of a run, and what it leaves behind to be read.

In the workdir: `config.json`, `env.json`, `metrics.jsonl` (one object per line: step,
epoch, time and values; fractions, not percent), `tensorboard/` and, at the end,
`results.json` and `plots/`. Only process 0 writes or prints.
"""

from collections.abc import Iterable, Mapping
import contextlib
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import subprocess
import sys
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from zoo.tasks.task import PROPORTIONS

# How figures are written; those of several targets have the target's name behind theirs.
_FIGURES = {
    "loss": "{:.4f}",
    "top1": "{:.2%}",
    "top5": "{:.2%}",
    "accuracy": "{:.2%}",
    "exact_match": "{:.2%}",
    "f1": "{:.2%}",
    "macro_f1": "{:.2%}",
    "mae": "{:.4g}",
    "rmse": "{:.4g}",
    "r2": "{:.4f}",
    "learning_rate": "{:.3g}",
    "skipped": "{:.2%}",
}

PACKAGES = (
    *("zoo", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    "onednn-cpu-tbb",
)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file so that a reader sees the old one or the new one, never a part."""
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(value, indent=2) + "\n")
    scratch.replace(path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics.jsonl; a last line cut short by a kill is left out."""
    lines = []
    if path.exists():
        for text in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def environment() -> dict[str, Any]:
    """Returns the versions, devices and place of this process, for `env.json`."""
    devices = jax.devices()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "versions": versions(),
        "commit": _commit(),
        "devices": {"count": len(devices), "kind": devices[0].device_kind},
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def versions() -> dict[str, str]:
    """Returns the installed versions of what a run's numbers depend on."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


class Reporter:
    """Prints and records the course of one run. Opened once the place to go on is known.

    Args:
      workdir: where the files go.
      total_steps: of the whole run.
    """

    def __init__(self, workdir: Path, total_steps: int):
        self._workdir, self._total_steps = workdir, total_steps
        self._console = Console(highlight=False, soft_wrap=True, quiet=not _is_first())
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None
        self._lines: list[dict[str, Any]] = []  # of metrics.jsonl, as found

    def open(self, step: int) -> None:
        """Opens the files to go on after `step`.

        Lines of later steps, left by a killed run, are taken back: the files then read
        like those of a run that was never interrupted.
        """
        path = self._workdir / "metrics.jsonl"
        self._lines = [line for line in read_metrics(path) if line["step"] <= step]
        if not _is_first():
            return
        scratch = path.with_name(".metrics.jsonl.tmp")
        scratch.write_text("".join(json.dumps(line) + "\n" for line in self._lines))
        scratch.replace(path)
        write_json(self._workdir / "env.json", environment())
        from tensorboardX import SummaryWriter

        self._file = self._stack.enter_context(path.open("a"))
        directory = str(self._workdir / "tensorboard")
        self._events = self._stack.enter_context(SummaryWriter(directory, purge_step=step + 1))
        if step:
            self.say(f"going on after step {step} of {self._total_steps}")

    def header(self, origin: str, sections: dict[str, dict[str, Any]]) -> None:
        """Prints where this run comes from and what it is, a line a section."""
        width = max(map(len, sections))
        if origin:
            self.say(f"{'recipe':<{width}}  {origin}")
        self.say(f"{'workdir':<{width}}  {self._workdir}")
        for title, items in sections.items():
            text = "  ".join(f"{name}={value}" for name, value in items.items())
            self.say(f"{title:<{width}}  {text}")
        self.say()

    def start_bar(self, step: int) -> None:
        """Shows the progress bar, on a terminal."""
        if not self._console.is_terminal or not _is_first():
            return
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn())
        self._progress = self._stack.enter_context(
            Progress(*columns, TextColumn("{task.fields[status]}"), console=self._console)
        )
        self._bar = self._progress.add_task("", total=self._total_steps, completed=step, status="")

    def advance(self, step: int) -> None:
        """Moves the bar on."""
        if self._progress is not None:
            self._progress.update(self._bar, completed=step)

    def log(self, step: int, epoch: float, values: dict[str, Any], text: str) -> None:
        """Records the values of a step, and says so in words."""
        if not _is_first():
            return
        line = {"step": step, "epoch": round(epoch, 4), "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, float):
                self._events.add_scalar(name, value, step)
        if self._progress is not None and text.startswith("train"):
            self._progress.update(self._bar, status=text.removeprefix("train  "))
        self.say(f"step {step:>{len(str(self._total_steps))}}/{self._total_steps}  {text}")

    def finish(self, results: dict[str, Any]) -> None:
        """Writes and prints the results; results.json comes last, it says that all is done."""
        self.close()
        if not _is_first():
            return
        from zoo.training.plots import plot_learning_curves

        plot_learning_curves(self._workdir, results["best_metric"], results["best_step"])
        write_json(self._workdir / "results.json", results)
        print_results(results, self._workdir)

    def close(self) -> None:
        """Takes the bar away and closes the files."""
        self._stack.close()
        self._progress = None

    def logged(self, step: int, name: str) -> float | None:
        """Returns a value that an earlier run logged for a step: process 0's, on all."""
        values = [line[name] for line in self._lines if line["step"] == step and name in line]
        found = np.array([bool(values), values[-1] if values else 0.0], np.float64)
        if jax.process_count() > 1:
            halves = multihost_utils.broadcast_one_to_all(found.view(np.uint32))  # JAX has no f64
            found = np.asarray(halves).astype(np.uint32).view(np.float64)
        return float(found[1]) if found[0] else None

    def say(self, text: str = "") -> None:
        """Prints a line, above the bar if there is one."""
        self._console.print(text, markup=False)


def _is_first() -> bool:
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line, on process 0."""
    if _is_first():
        print(text, flush=True)


def warn(text: str) -> None:
    """Prints a line to stderr, on process 0."""
    if _is_first():
        print(f"zoo: {text}", file=sys.stderr, flush=True)


def print_results(results: dict[str, Any], workdir: Path) -> None:
    """Prints a table of the final metrics, and where things are."""
    if not _is_first():
        return
    step = results["best_step"] or results["step"]
    table = Table(title=f"Weights of step {step}", title_justify="left")
    figures = [f for f in next(iter(results["metrics"].values()), {}) if f in _forms([f])]
    deviations = {f: f"{f}_std" for f in figures if "seeds" in results}
    figures = [f for f in figures if f not in deviations.values()]
    columns = ["split", "examples", *figures]
    intervals = [f"{f}_interval" for f in PROPORTIONS]
    groups = list(results["metrics"].values())
    interval = next((i for i in intervals if groups and i in groups[0]), None)
    if interval is not None:
        columns.insert(columns.index(interval.removesuffix("_interval")) + 1, "95 % interval")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for group, values in results["metrics"].items():
        shown = {name: _forms([name])[name].format(values[name]) for name in figures}
        for name in figures if deviations else ():
            shown[name] += f" ± {_forms([name])[name].format(values[deviations[name]])}"
        shown |= {
            "split": group.replace("val", "validation"),
            "examples": f"{values['examples']:,}",
        }
        if interval is not None:
            shown["95 % interval"] = "{:.2%} to {:.2%}".format(*values[interval])
        table.add_row(*(shown[name].replace("%", " %") for name in columns))
    console = Console(highlight=False)
    console.print(table)
    for split, count in results.get("bad_examples", {}).items():
        console.print(f"{count} undecodable {split} images were passed over")
    console.print(f"curves       {workdir}/plots/learning_curves.png", soft_wrap=True)
    console.print(f"checkpoints  {workdir}/checkpoints", soft_wrap=True)
    console.print(f"metrics      {workdir}/metrics.jsonl, {workdir}/tensorboard", soft_wrap=True)


def words(values: Mapping[str, float | None], *, with_deviations: bool = False) -> str:
    """Returns metrics as a person reads them: `loss 0.3117  top1 91.23 %`.

    Args:
      values: by name; what stands before a slash is left out.
      with_deviations: that of NAME is there as NAME_std.

    Example:
      >>> words({"train/loss": 0.3117, "train/top1": 0.91234})
      'loss 0.3117  top1 91.23 %'
      >>> words({"val/loss": 0.3117, "val/loss_std": 0.012}, with_deviations=True)
      'loss 0.3117 ± 0.0120'
    """
    named = {key.split("/")[-1]: value for key, value in values.items()}
    if not named.get("skipped"):
        named.pop("skipped", None)
        named.pop("skipped_std", None)
    deviations = {f"{name}_std": name for name in named if with_deviations}
    forms = {name: form for name, form in _forms(named).items() if name not in deviations}
    texts = []
    for name, form in forms.items():
        text = f"{name} {form.format(named[name])}"
        if with_deviations and f"{name}_std" in named:
            text += f" ± {form.format(named[f'{name}_std'])}"
        texts.append(text)
    return "  ".join(texts).replace("%", " %")


def _forms(names: Iterable[str]) -> dict[str, str]:
    """Returns how figures are written, in the order in which they are read; others are left."""
    forms = {}
    for shown, form in _FIGURES.items():
        forms |= {name: form for name in names if name == shown or name.startswith(f"{shown}_")}
    return {name: form for name, form in forms.items() if not name.endswith("_interval")}
