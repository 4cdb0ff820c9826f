"""Slices of TPU pods by name, "v5e:4x4", and the environment in which they can be compiled for.

libtpu compiles for TPUs that are not there; it wants to be told which.
"""

from collections.abc import Iterator
import dataclasses
import math
import os
import re

from benchmarks.hardware import ACCELERATORS, Accelerator
from zoo.errors import ConfigError, suggest

# Shapes that can be had; the last is the whole pod, or the largest job in one.
_FLAT = "2x2 2x4 4x4 4x8 8x8 8x16 16x16"
_CUBES = "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16"
SLICES = {
    "v2": "2x2 4x4 4x8 8x8 8x16 16x16",
    "v3": "2x2 4x4 4x8 8x8 8x16 16x16 16x32 32x32",
    "v4": f"{_CUBES} 12x16x16",
    "v5e": _FLAT,
    "v5p": f"{_CUBES} 16x16x16 16x16x24",
    "v6e": _FLAT,
    "7x": f"{_CUBES} 16x16x16 16x16x32",
}
HOP = 1e-6  # seconds for a message to reach the next chip (scaling-book, "sharding")


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a pod.

    Attributes:
      accelerator: of what chips.
      shape: how many along each axis of the torus.
    """

    accelerator: Accelerator
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Such as "v5e:4x4"."""
        return f"{self.accelerator.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """How many JAX shows."""
        return self.chips * self.accelerator.devices

    def wraps(self, size: int) -> bool:
        """Returns whether an axis of that size is a ring; where it is not, it is a line.

        On v2, v3, v5e and v6e only a whole pod's axis is one, 16 chips (32 on v3); on the others
        an axis of 4 chips or a multiple.
        """
        if self.accelerator.axes == 3:
            return size % 4 == 0
        return size == (32 if self.accelerator.name == "v3" else 16)

    @property
    def all_reduce_bandwidth(self) -> float:
        """Bytes/s at which a chip can take part in an all-reduce over the whole slice.

        Each axis adds its links: both directions of a ring, one of a line, in which data have
        to go forth and come back.
        """
        links = sum(2 if self.wraps(n) else 1 for n in self.shape if n > 1)
        return links * self.accelerator.link

    def all_reduce_seconds(self, size: float, number: int) -> float:
        """Returns how long all-reduces take that nothing overlaps with: 2 V / W, and the hops.

        Args:
          size: V, bytes of all of them.
          number: how many there are; each goes around once and back.
        """
        if self.chips == 1:
            return 0.0
        hops = sum(n // 2 if self.wraps(n) else n - 1 for n in self.shape)
        return 2 * size / self.all_reduce_bandwidth + 2 * HOP * hops * number

    @property
    def others(self) -> "Iterator[Slice]":
        """Yields all slices of these chips that can be had."""
        for shape in SLICES[self.accelerator.name].split():
            yield parse_slice(f"{self.accelerator.name}:{shape}")

    @property
    def libtpu_name(self) -> str:
        """The name of the topology as libtpu has it."""
        return f"tpu{self.name}" if self.accelerator.name == "7x" else self.name

    @property
    def libtpu_options(self) -> dict[str, str]:
        """Further arguments of `get_topology_desc`: v4 shows its two cores as one device."""
        return {"chip_config_name": "megacore"} if self.accelerator.name == "v4" else {}

    def prepare(self) -> None:
        """Sets what libtpu reads of the environment; before anything else asks JAX for devices."""
        generation = self.accelerator.name
        kind = {"v5e": "v5litepod", "7x": "tpu7x"}.get(generation, generation)
        # Some types count cores, of which these chips have two.
        count = self.chips * (1 if generation in ("v5e", "v6e") else 2)
        os.environ.update(
            TPU_ACCELERATOR_TYPE=f"{kind}-{count}",
            TPU_WORKER_HOSTNAMES="localhost",
            TPU_SKIP_MDS_QUERY="1",  # there is no metadata server
            ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # no TPU is held, so others may compile as well
            JAX_PLATFORMS="cpu",
        )
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def parse_slice(name: str) -> Slice:
    """Returns the slice of that name, "v5e:4x4"; "tpu7x" and "v7x" are "7x".

    Raises:
      ConfigError: for a name that is not there, with those that are.
    """
    generation, _, shape = name.strip().lower().partition(":")
    generation = re.sub(r"^(tpu)?v?7x$", "7x", generation)
    if generation not in SLICES:
        raise ConfigError(
            f"topology {name!r}: give GENERATION:SHAPE, as in 'v5e:4x4'; there are "
            f"{', '.join(SLICES)}.{suggest(generation, SLICES)}"
        )
    if shape not in SLICES[generation].split():
        known = ", ".join(f"{generation}:{s}" for s in SLICES[generation].split())
        raise ConfigError(f"topology {name!r}: there are {known}")
    return Slice(ACCELERATORS[generation], tuple(map(int, shape.split("x"))))
