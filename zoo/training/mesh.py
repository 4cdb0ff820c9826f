"""The devices: one mesh, over which batches are spread."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

Device: TypeAlias = Any  # jax.Device, which jax exports as a variable


def make_mesh(devices: Sequence[Device] | None = None, *, group: int = 1) -> Mesh:
    """Returns the mesh of these devices (all of all processes), axes `data` and `group`.

    Args:
      devices: all there are by default.
      group: how many neighbours make one group; a divisor of their number.
    """
    return Mesh(np.asarray(devices or jax.devices()).reshape(-1, group), ("data", "group"))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch lie over all devices, in their order."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def loops_are_fast(mesh: Mesh) -> bool:
    """Returns whether these devices compute in a loop as fast as outside of one.

    CPUs do not: XLA computes most convolutions within a loop one element at a time there.
    """
    return mesh.devices.flat[0].platform != "cpu"


def stacked(sharding: NamedSharding) -> NamedSharding:
    """Returns the sharding of arrays with one more axis in front, which is not divided."""
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
