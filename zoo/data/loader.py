"""Batches as pure functions of the step, loaded ahead by threads, placed by sharding.

Which examples form a step depends on (seed, step) alone: not on workers, hosts, devices
or restarts. Training runs over one endless sequence, epoch after epoch, each epoch a
permutation keyed by (seed, epoch); a batch may straddle two epochs, so every example
counts exactly once in each. Evaluation is finite, padded and masked.

A batch is a dict of global arrays, sharded along the first axis:

    image  uint8 [B, S, S, C]    mask  float32 [B], 0 = not there    epoch  int32 [B]
    label  int32 [B], or float32 [B, K] where the source has K numbers for each image
    index  int32 [B], the example's position in its source
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
import functools
from typing import Any, TypeVar

import jax
import numpy as np

from zoo.data.crop import Crop
from zoo.data.jpeg import load
from zoo.data.source import Source, Target, check_labels
from zoo.errors import ConfigError, DataError
from zoo.images import Encoded

Batch = dict[str, jax.Array]
Waiting = Callable[[Future], None]
T = TypeVar("T")
R = TypeVar("R")


class Order:
    """The endless training sequence: which example stands at which position.

    Args:
      num_examples: N, the size of the source.
      batch_size: B, the global batch.
      seed: what the permutations are keyed by.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int):
        self._num_examples, self._batch_size, self._seed = num_examples, batch_size, seed
        self._permutation = functools.lru_cache(maxsize=4)(self._permute)

    def _permute(self, epoch: int) -> np.ndarray:
        # Philox's raw stream is fixed for all numpy versions; Generator's methods are not.
        keys = np.random.Philox(key=[self._seed, epoch]).random_raw(self._num_examples)
        return np.argsort(keys, kind="stable")

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the example indices and their epochs, int32 [B] each, of a step from 0."""
        position = step * self._batch_size + np.arange(self._batch_size)
        epochs, offsets = np.divmod(position, self._num_examples)
        indices = np.empty(self._batch_size, np.int32)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            indices[rows] = self._permutation(int(epoch))[offsets[rows]]
        return indices, epochs.astype(np.int32)


class Examples:
    """A source seen as fixed-size images: decoded, fitted, checked, optionally kept.

    An image that cannot be decoded becomes a black one with mask 0, so it costs nothing
    but its place; past `max_bad` of them the data are at fault, not the image.

    Args:
      source: where the examples are.
      fit: makes an image, an array or Pillow's, uint8 [S, S, C] of one fixed shape.
      shape: that shape.
      cache: keep every fitted image in memory, N * S * S * C bytes.
      max_bad: how many different undecodable images to pass over.
      set_by: what a person sets that with, for the message.
      check: raises DataError for targets [1, …] that cannot be trained on; by default labels
        that are none of the classes.
    """

    def __init__(
        self,
        source: Source,
        fit: Callable[[Any], np.ndarray],
        shape: tuple[int, int, int],
        *,
        cache: bool = False,
        max_bad: int = 0,
        set_by: str = "config.data.max_bad_examples",
        check: Callable[[np.ndarray, str], None] | None = None,
        crop: Crop | None = None,
    ):
        if cache and crop is not None:
            raise ConfigError(
                "config.data.cache=True keeps one image per example, but config.augment.crop "
                "makes a new one in each epoch; set cache to False, or crop to {} and take "
                "random_resized_crop of config.augment.images"
            )
        self.source, self.shape = source, shape
        self.target_shape: tuple[int, ...] = getattr(source, "target_shape", ())
        self.target_dtype = np.float32 if self.target_shape else np.int32
        self.bad: dict[int, str] = {}  # index -> what was wrong
        self._encoded = getattr(source, "encoded", None)
        self._fit, self._crop = fit, crop
        self._max_bad, self._set_by = max_bad, set_by
        num_classes = None if self.target_shape else len(source.class_names)
        self._check = check or functools.partial(_check_label, num_classes)
        self._cache = cache
        count = len(source) if cache else 0
        self._kept = np.zeros(count, bool)  # which of these are there
        self._images = np.empty((count, *shape), np.uint8)
        self._targets = np.empty((count, *self.target_shape), self.target_dtype)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, epoch: int = 0) -> tuple[np.ndarray, Target, float]:
        """Returns image, target and mask (0 where the image could not be decoded).

        Only a crop depends on the epoch.

        Raises:
          DataError: for a target that is none, or one bad image too many.
        """
        if self._cache and self._kept[index]:
            return self._images[index], self._targets[index], 1.0
        if index not in self.bad:
            try:
                image, target = (self._encoded or self.source.__getitem__)(index)
                self._check(np.asarray(target)[None], self.source.describe(index))
                if self._crop is not None:
                    image = self._crop(image, epoch, index)
                else:
                    image = self._fit(load(image) if isinstance(image, Encoded) else image)
                if self._cache:
                    self._images[index], self._targets[index] = image, target
                    self._kept[index] = True  # last, for other threads look at it
                return image, target, 1.0
            except DataError as error:
                self._give_up_or_remember(index, error)
        return np.zeros(self.shape, np.uint8), 0, 0.0

    def kept(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns which of some examples were read before and kept, their images and targets."""
        kept = self._kept[indices] if self._cache else np.zeros(len(indices), bool)
        found = indices[kept]
        return kept, self._images[found], self._targets[found]

    def _give_up_or_remember(self, index: int, error: DataError) -> None:
        self.bad[index] = str(error)
        if len(self.bad) > self._max_bad:
            raise DataError(
                f"{error}. That makes {len(self.bad)} bad examples; "
                f"{self._set_by}={self._max_bad} allows that many"
            ) from error


def _check_label(num_classes: int | None, targets: np.ndarray, name: str) -> None:
    if num_classes is not None:
        check_labels(targets, num_classes, name)


def assemble(
    examples: Examples,
    indices: np.ndarray,
    epochs: np.ndarray,
    mask: np.ndarray,
    sharding: jax.sharding.Sharding,
) -> Batch:
    """Returns one global batch, of which this process reads only its own rows.

    Args:
      examples: where to read from.
      indices: int32 [B], the examples wanted.
      epochs: int32 [B], the epoch each is wanted for.
      mask: [B], 0 for rows that only pad.
      sharding: how the first axis lies over the devices.
    """
    size = len(indices)
    columns = {
        "image": np.zeros((size, *examples.shape), np.uint8),
        "label": np.zeros((size, *examples.target_shape), examples.target_dtype),
        "mask": mask.astype(np.float32),
        "index": indices.astype(np.int32),
        "epoch": epochs.astype(np.int32),
    }
    mine = np.zeros(size, bool)
    for place in sharding.addressable_devices_indices_map((size,)).values():
        mine[place] = True
    rows = np.flatnonzero(mine & (mask > 0))
    kept, images, targets = examples.kept(indices[rows])
    columns["image"][rows[kept]], columns["label"][rows[kept]] = images, targets
    for row in rows[~kept]:
        image, target, there = examples.read(int(indices[row]), int(epochs[row]))
        columns["image"][row], columns["label"][row] = image, target
        columns["mask"][row] *= there
    return {
        name: jax.make_array_from_callback(column.shape, sharding, column.__getitem__)
        for name, column in columns.items()
    }


def train_batches(
    examples: Examples,
    order: Order,
    steps: Iterable[int],
    sharding: jax.sharding.Sharding,
    *,
    threads: int = 2,
    prefetch: int = 2,
    waiting: Waiting | None = None,
) -> Generator[Batch, None, None]:
    """Yields the training batches of the given steps."""

    def load(step: int) -> Batch:
        indices, epochs = order.at(step)
        return assemble(examples, indices, epochs, np.ones(len(indices)), sharding)

    return map_ahead(load, steps, threads, prefetch, waiting)


def eval_batches(
    examples: Examples,
    batch_size: int,
    sharding: jax.sharding.Sharding,
    *,
    threads: int = 2,
    prefetch: int = 2,
) -> Generator[Batch, None, None]:
    """Yields every example exactly once, in order; the last batch is padded and masked."""

    def load(start: int) -> Batch:
        positions = start + np.arange(batch_size)
        there = positions < len(examples)
        indices = np.where(there, positions, 0)
        return assemble(examples, indices, np.zeros(batch_size), there, sharding)

    return map_ahead(load, range(0, len(examples), batch_size), threads, prefetch)


def map_ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    prefetch: int,
    waiting: Waiting | None = None,
) -> Generator[R, None, None]:
    """Like `map`, in order, but `threads` work on up to `prefetch` items to come.

    `waiting` is told of a result that is wanted and not there yet; it may return when it is.
    """

    def wanted(result: Future) -> R:
        if waiting is not None and not result.done():
            waiting(result)
        return result.result()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="zoo-data")
    pending: deque = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > prefetch:
                yield wanted(pending.popleft())
        while pending:
            yield wanted(pending.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
