"""The devices: one mesh with one axis, over which batches are spread."""

from collections.abc import Sequence
import os
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from zoo.errors import ConfigError

Device: TypeAlias = Any  # jax.Device, which jax exports as a variable


def initialize_distributed() -> None:
    """Joins the other processes of a multi-host run, if there are any.

    Three variables say so, the same names JAX uses for its first: JAX_COORDINATOR_ADDRESS
    (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Must run before
    anything touches a device.

    Raises:
      ConfigError: if only some of them are set, or one is not a number.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    values = {name: os.environ.get(name) for name in names}
    if not any(values.values()):
        return
    absent = [name for name, value in values.items() if not value]
    if absent:
        raise ConfigError(f"a run of several processes needs {', '.join(absent)} set as well")
    try:
        count, index = int(values[names[1]] or ""), int(values[names[2]] or "")
    except ValueError:
        raise ConfigError(
            f"{names[1]}={values[names[1]]!r} and {names[2]}={values[names[2]]!r} must be numbers"
        ) from None
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(values[names[0]], count, index)


def make_mesh(devices: Sequence[Device] | None = None) -> Mesh:
    """Returns the mesh of these devices (all of all processes) with the axis `data`."""
    return Mesh(np.asarray(devices or jax.devices()), ("data",))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch lie over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


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
