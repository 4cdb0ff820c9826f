"""How a model does on images that are noisy, blurred, in bad weather or badly compressed.

Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
perturbations", https://arxiv.org/abs/1903.12261.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.analysis.outcomes import RIGHT
from zoo.analysis.running import Rows, logits_of, run_over, track
from zoo.analysis.trained import Trained
from zoo.data.corruptions import NAMES, SEVERITIES, corrupt
from zoo.data.loader import Examples
from zoo.data.source import Source, Target
from zoo.errors import ConfigError, suggest
from zoo.tasks.make import name_of
from zoo.tasks.task import Sums, Task, add, intervals

KEPT = 256  # fitted images; each is wanted by as many corruptions as there are, one after another

Kind = tuple[str, int]  # name and severity


class Corrupted(Examples):
    """Every image of a source in each of V kinds of corruption: example i V + v.

    What chance decides depends on seed, image and kind alone. An image is decoded and fitted
    once for all kinds.

    Args:
      trained: the model, whose preprocessing fits the images.
      source: the data.
      kinds: names and severities.
      seed: of the corruptions.
      max_bad: how many images that cannot be decoded to leave out.
    """

    def __init__(
        self,
        trained: Trained,
        source: Source,
        kinds: Sequence[Kind],
        *,
        seed: int = 0,
        max_bad: int = 0,
    ):
        prepared = trained.preprocessing.pixels
        super().__init__(source, prepared, trained.image_shape, max_bad=max_bad, set_by="max_bad")
        self._kinds, self._seed = kinds, seed
        self._fitted = functools.lru_cache(KEPT)(super().read)

    def __len__(self) -> int:
        return len(self.source) * len(self._kinds)

    def read(self, index: int, epoch: int = 0) -> tuple[np.ndarray, Target, float]:
        """Returns image, target and mask of example i V + v."""
        i, v = divmod(index, len(self._kinds))
        image, target, there = self._fitted(i)
        if not there:
            return image, target, there
        name, severity = self._kinds[v]
        return corrupt(image, name, severity, _seed(self._seed, i, name, severity)), target, there


def _seed(seed: int, index: int, name: str, severity: int) -> int:
    entropy = np.random.SeedSequence([seed, index, NAMES.index(name), severity])
    return int(entropy.generate_state(1)[0])


def check_corruptions(names: Sequence[str], severities: Sequence[int]) -> None:
    """Raises ConfigError for a name or a severity that there is not, or none at all."""
    for name in names:
        if name not in NAMES:
            raise ConfigError(
                f"{name!r} is not a corruption.{suggest(name, NAMES)} There are {', '.join(NAMES)}"
            )
    for severity in severities:
        if severity not in SEVERITIES:
            raise ConfigError(f"severity {severity}: must be one of 1, 2, 3, 4 and 5")
    if not names or not severities:
        raise ConfigError("give at least one corruption and one severity")


def measure_corruptions(
    trained: Trained,
    source: Source,
    *,
    names: Sequence[str] = NAMES,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    batch_size: int = 64,
    threads: int = 2,
    max_bad: int = 0,
) -> dict[str, Any]:
    """Returns a model's figures on corrupted images.

    Args:
      trained: the model.
      source: the data.
      names: of corruptions, some of `zoo.data.corruptions.NAMES`.
      severities: some of 1 to 5.
      seed: of the corruptions.
      batch_size: over all devices.
      threads: that decode and corrupt.
      max_bad: how many images that cannot be decoded to leave out.

    Returns:
      "figure", the trainer's that tells how many are right, or its "loss"; "each", by name and
      severity (as text) all of the trainer's figures, and "NAME_interval" of proportions;
      "errors", by name the mean error over severities, and "mean_error", their mean: mCE of
      section 4.1, but not divided by another network's.

    Raises:
      ConfigError: see `check_corruptions`.
    """
    check_corruptions(names, severities)
    kinds = [(name, severity) for name in names for severity in severities]
    examples = Corrupted(trained, source, kinds, seed=seed, max_bad=max_bad)
    rows = run_over(trained, examples, logits_of(trained), batch_size=batch_size, threads=threads)
    tracked = track(rows, len(examples), "corrupting", lambda row: len(row.indices))
    totals = _totals(trained.task, tracked, len(kinds))
    each: dict[str, dict[str, Any]] = {name: {} for name in names}
    for (name, severity), sums in zip(kinds, totals, strict=True):
        between = {f"{key}_interval": value for key, value in intervals(sums).items()}
        each[name][str(severity)] = trained.task.summary(sums) | between
    errors = {
        name: float(np.mean([error_of(trained.task, figures) for figures in found.values()]))
        for name, found in each.items()
    }
    return {
        "figure": RIGHT.get(name_of(trained.task), "loss"),
        "examples": len(source) - len(examples.bad),
        "seed": seed,
        "severities": list(severities),
        "each": each,
        "errors": errors,
        "mean_error": float(np.mean(list(errors.values()))),
    }


def error_of(task: Task, figures: Mapping[str, float]) -> float:
    """Returns 1 less the figure of `RIGHT`, or the loss where a task has none."""
    name = name_of(task)
    return 1 - figures[RIGHT[name]] if name in RIGHT else figures["loss"]


def relative_error(errors: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Returns mCE of section 4.1: the mean over corruptions of an error by the baseline's.

    The paper's baseline is AlexNet; NaN where one makes no error.

    Args:
      errors: of the model, by corruption.
      baseline: of another, of the same corruptions.
    """
    ratios = [errors[n] / baseline[n] if baseline[n] else math.nan for n in errors]
    return float(np.mean(ratios))


def _totals(task: Task, rows: Iterator[Rows], count: int) -> Sequence[Sums]:
    """Returns the task's sums of each of the kinds."""

    @jax.jit
    @jax.vmap
    def of_one(logits: jax.Array, target: jax.Array) -> Any:
        return task.metrics(logits[None], target[None], jnp.ones(1), train=False)

    totals: list[Sums] = [{} for _ in range(count)]
    for row in rows:
        found = jax.tree.map(lambda x: np.asarray(x, np.float64), of_one(row.outputs, row.targets))
        for v in range(count):
            mine = row.indices % count == v
            own = {name: (s[mine].sum(0), c[mine].sum(0)) for name, (s, c) in found.items()}
            totals[v] = add(totals[v], own)
    return totals
