"""The devices: one mesh with one axis, over which batches are spread."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

Device: TypeAlias = Any  # jax.Device, which jax exports as a variable


def make_mesh(devices: Sequence[Device] | None = None) -> Mesh:
    """Returns the mesh of these devices (all of all processes) with the axis `data`."""
    return Mesh(np.asarray(devices or jax.devices()), ("data",))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch lie over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())
