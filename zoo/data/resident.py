"""Small data that lie whole on every device, so that a batch costs no reading and no copying.

A split is read once, by the same `Examples` as ever (`read_all`): the same checks, the same black
images with mask 0 for what cannot be decoded. From then on a batch is gathered on the devices by
index and is, bit by bit, the batch that `assemble` would have made of the same indices.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import numpy as np

from zoo.data.loader import Batch, Examples
from zoo.errors import ConfigError

AUTOMATIC = 512 * 2**20  # bytes of images, up to which data are small without being called so
PART = 0.5  # of a device's memory that data may take; the rest is for training
CHUNK = 256  # examples that a thread reads at a time

Columns = Mapping[str, jax.Array]


def chosen(
    wanted: bool | None, size: int, *, cached: bool, cropped: bool, alone: bool, needed: bool
) -> bool:
    """Returns whether data are to be held by the devices.

    Args:
      wanted: what the configuration says; None leaves it to this function.
      size: of all splits' images, in bytes.
      cached: whether the images are to be kept in memory anyhow.
      cropped: whether pictures are cut at random while they are decoded.
      alone: whether there is one process; of several, each would have to read everything.
      needed: whether there is no other way, as several seeds at once have none.

    Raises:
      ConfigError: for data that must be held and cannot be.
    """
    if wanted is None and not needed:
        return cached and alone and not cropped and size <= AUTOMATIC
    asked = "config.seeds" if wanted is None else f"config.data.resident={wanted}"
    if wanted is False:
        if needed:
            raise ConfigError(
                f"{asked}: several seeds at once need the data on the devices; leave it out, or "
                "train the seeds one by one with config.seeds=1"
            )
        return False
    if cropped:
        raise ConfigError(
            f"{asked} keeps one image per example, but config.augment.crop makes a new one in "
            "each epoch; set crop to {} and take random_resized_crop of config.augment.images"
        )
    memory = device_memory()
    if size > PART * memory:
        raise ConfigError(
            f"{asked}: the images take {size / 2**30:,.2f} GiB, allowed are {PART:.0%} of the "
            f"{memory / 2**30:,.2f} GiB of a device; leave it out, or make the images smaller with "
            "config.data.image_size"
        )
    return True


def device_memory() -> float:
    """Returns the bytes of memory that each device of this process has."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return whole / jax.local_device_count()


def size_of(counts: Mapping[str, int], shape: tuple[int, ...]) -> int:
    """Returns the bytes of so many images in each split, uint8 of one shape."""
    return sum(counts.values()) * math.prod(shape)


def gather(columns: Columns, indices: Any, epochs: Any) -> Batch:
    """Returns the batch of these examples; to be called within a compiled function.

    Args:
      columns: of a `Resident`.
      indices: int32 [..., B]; len(columns["mask"]) - 1 stands for a row that only pads.
      epochs: int32 [..., B].
    """
    pads = indices == len(columns["mask"]) - 1
    batch = {name: column[indices] for name, column in columns.items()}
    return {**batch, "index": jnp.where(pads, 0, indices), "epoch": epochs}


class Resident:
    """A split on the devices.

    Args:
      columns: of `read_all`, or others with "mask" and a last row that is nobody's.
      everywhere: the sharding of the data, all on every device.
      rows: the sharding of a batch.

    Attributes:
      columns: the same, on the devices.
    """

    def __init__(
        self, columns: Mapping[str, np.ndarray], everywhere: NamedSharding, rows: NamedSharding
    ):
        self._size = len(columns["mask"]) - 1
        self.columns = {
            name: jax.make_array_from_callback(column.shape, everywhere, column.__getitem__)
            for name, column in columns.items()
        }
        self._gather = jax.jit(gather, out_shardings=rows)

    def batch(self, indices: np.ndarray, epochs: np.ndarray, there: Any = True) -> Batch:
        """Returns the global batch that `assemble` returns.

        Args:
          indices: int32 [..., B], the examples wanted.
          epochs: int32 [..., B], the epoch each is wanted for.
          there: bool [..., B], False for rows that only pad.
        """
        indices = np.where(there, indices, self._size).astype(np.int32)
        return self._gather(self.columns, indices, epochs.astype(np.int32))


def read_all(examples: Examples, threads: int) -> dict[str, np.ndarray]:
    """Returns all N examples, and a last row that is nobody's: black, with mask 0.

    Args:
      examples: to be read, all of them, now.
      threads: that read.

    Returns:
      image uint8 [N + 1, S, S, C], label int32 [N + 1] or float32 [N + 1, K], mask float32
      [N + 1].

    Raises:
      DataError: for what cannot be read, as `Examples`.
    """
    size = len(examples)
    images = np.zeros((size + 1, *examples.shape), np.uint8)
    labels = np.zeros((size + 1, *examples.target_shape), examples.target_dtype)
    mask = np.zeros(size + 1, np.float32)

    def read(start: int) -> None:
        for i in range(start, min(start + CHUNK, size)):
            images[i], labels[i], mask[i] = examples.read(i)

    with ThreadPoolExecutor(threads, thread_name_prefix="zoo-data") as pool:
        for done in [pool.submit(read, start) for start in range(0, size, CHUNK)]:
            try:
                done.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return {"image": images, "label": labels, "mask": mask}
