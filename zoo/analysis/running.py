"""A trained model over data: every example once, on all devices, padding left out."""

from collections.abc import Callable, Iterable, Iterator
import functools
import sys
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zoo.analysis.trained import Trained
from zoo.data.loader import Examples, eval_batches
from zoo.data.source import Source
from zoo.errors import ConfigError
from zoo.training.mesh import batch_sharding, make_mesh, replicated

Compute = Callable[[Any, jax.Array], Any]  # (variables, normalised images [B, …]) -> arrays [B, …]
T = TypeVar("T")


class Rows(NamedTuple):
    """What was computed of some examples.

    Attributes:
      indices: int [N], positions in the source, ascending.
      targets: [N, …].
      outputs: a tree of numpy arrays [N, …].
    """

    indices: np.ndarray
    targets: np.ndarray
    outputs: Any


def logits_of(trained: Trained) -> Compute:
    """Returns the function from images to logits [B, K]."""
    return functools.partial(trained.model.apply, train=False)


def outputs_like(trained: Trained, compute: Compute) -> Any:
    """Returns shapes and types of what a function of a model gives for one image."""
    images = jax.ShapeDtypeStruct((1, *trained.image_shape), np.float32)
    return jax.eval_shape(compute, trained.variables, images)


def endpoints_of(trained: Trained, *names: str) -> Compute:
    """Returns the function from images to a dict of some of the model's endpoints.

    Args:
      trained: the model.
      *names: of the endpoints.

    Raises:
      ConfigError: for one that the model does not have.
    """
    method = functools.partial(trained.model.apply, train=False, method="endpoints")
    known = outputs_like(trained, method)
    for name in names:
        if name not in known:
            raise ConfigError(f"endpoint {name!r}: {trained.label} has {', '.join(known)}")

    def compute(variables: Any, images: jax.Array) -> Any:
        out: Any = method(variables, images)
        return {name: out[name] for name in names}

    return compute


def examples_of(trained: Trained, source: Source, *, max_bad: int = 0) -> Examples:
    """Returns a source's images as the model wants them.

    Args:
      trained: the model.
      source: the data.
      max_bad: how many images that cannot be decoded to leave out.
    """
    return Examples(
        source, trained.preprocessing.pixels, trained.image_shape, max_bad=max_bad, set_by="max_bad"
    )


def whole_batch(batch_size: int) -> int:
    """Returns the next multiple of the number of devices."""
    return -(-batch_size // jax.device_count()) * jax.device_count()


def run_over(
    trained: Trained,
    examples: Examples,
    compute: Compute,
    *,
    batch_size: int = 64,
    threads: int = 2,
) -> Iterator[Rows]:
    """Yields what a function of the model gives for every example, in order, batch by batch.

    Examples that cannot be decoded are left out; they are in `examples.bad`.

    Args:
      trained: the model; its variables go to all devices.
      examples: of `examples_of`.
      compute: is compiled; gets the variables and normalised images.
      batch_size: over all devices, of whose number it is made a multiple.
      threads: that decode.
    """
    mesh = make_mesh()
    batch_size = whole_batch(batch_size)
    rows = batch_sharding(mesh)
    variables = jax.device_put(trained.variables, replicated(mesh))
    normalise = trained.preprocessing.normalise

    @jax.jit
    def step(variables: Any, images: jax.Array) -> Any:
        return compute(variables, normalise(images))

    def fetch(batch: Any, outputs: Any) -> Rows:
        there = np.asarray(batch["mask"]) > 0
        indices, targets = (np.asarray(batch[name])[there] for name in ("index", "label"))
        return Rows(indices, targets, jax.tree.map(lambda a: np.asarray(a)[there], outputs))

    waiting = None
    ahead = max(2, threads)  # a thread works on one batch
    for batch in eval_batches(examples, batch_size, rows, threads=threads, prefetch=ahead):
        started = batch, step(variables, batch["image"])  # while the one before is fetched
        if waiting is not None:
            yield fetch(*waiting)
        waiting = started
    if waiting is not None:
        yield fetch(*waiting)


def gather(rows: Iterable[Rows]) -> Rows:
    """Returns all rows as one."""
    parts = list(rows)
    if not parts:
        raise ConfigError("there are no examples")
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def track(rows: Iterable[T], total: int, what: str, size: Callable[[T], int]) -> Iterator[T]:
    """Yields the same, with a progress bar and the time left on stderr, on a terminal.

    Args:
      rows: of whatever kind.
      total: how much there will be.
      what: is being done, in a word.
      size: how much one of them is.
    """
    console = Console(stderr=True)
    columns = (MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn())
    with Progress(
        TextColumn(what), *columns, console=console, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("", total=total)
        for row in rows:
            yield row
            bar.advance(task, size(row))
