"""Compiles one training step for a slice of a pod; a process of its own, of `benchmarks.pod`.

It writes into a folder: `facts.json`, what the compiler says of the program or why there is none,
and the program's HLO. The optimised HLO is there long before the machine code is, so that who
waits for it alone can end this process.
"""

from collections.abc import Callable
import dataclasses
import json
from pathlib import Path
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks.pod_peers import PEERS
from benchmarks.topologies import Slice
from zoo.errors import ConfigError
from zoo.training import mesh as meshes
from zoo.training.config import Config
from zoo.training.dry_run import batch_like
from zoo.training.setup import build, open_data

FACTS, HLO = "facts.json", "compiled.txt"
DUMPED = "*jit_*.after_optimizations_after_buffer_assignment.txt"
MEMORY = "*jit_*.after_optimizations-memory-usage-report.txt"


@dataclasses.dataclass(frozen=True)
class Program:
    """What is to be compiled.

    Attributes:
      name: "jit" or "pmap", ours in that mode, or a peer's, "flax" or "keras".
      batch_per_chip: images.
      dtype: to compute in.
      fsdp: chips that hold one state between them, in "jit".
    """

    name: str
    batch_per_chip: int
    dtype: str = "bfloat16"
    fsdp: int = 1


def compile_into(folder: Path, program: Program, where: Slice, config: Config) -> None:
    """Compiles and writes what there is to say.

    Args:
      folder: to write into.
      program: what to compile.
      where: for which slice.
      config: the recipe of ours.
    """
    from jax.experimental import topologies

    described = topologies.get_topology_desc(
        platform="tpu", topology_name=where.libtpu_name, **where.libtpu_options
    )
    devices = list(described.devices)
    if len(devices) != where.devices or devices[0].device_kind not in where.accelerator.kinds:
        raise ConfigError(
            f"topology {where.name}: libtpu has {len(devices)} devices {devices[0].device_kind!r} "
            f"and benchmarks/hardware.py {where.devices} of {where.accelerator.kinds}"
        )
    lower = _peer(program, where, devices) if program.name in PEERS else None
    lowered = lower() if lower else _ours(program, where, config, devices)
    dump = {"xla_dump_to": str(folder), "xla_dump_hlo_as_text": True}
    try:
        compiled = lowered.compile(compiler_options=dump)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        facts = {"does_not_fit": memory_of_error(str(error)), "message": str(error)[:2000]}
        (folder / FACTS).write_text(json.dumps(facts))
        return
    (folder / HLO).write_text(compiled.as_text())
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    facts = {
        "bytes_accessed": cost["bytes accessed"],
        "flops": cost["flops"],
        "memory": {
            "argument": memory.argument_size_in_bytes,
            "output": memory.output_size_in_bytes,
            "alias": memory.alias_size_in_bytes,
            "temp": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
    }
    (folder / FACTS).write_text(json.dumps(facts))


def memory_of_error(message: str) -> dict[str, float | None]:
    """Returns bytes that a program needs and has, of the compiler's message; None if unsaid.

    What it needs is at times that of temporaries alone.

    Example:
      >>> memory_of_error("Ran out of memory in memory space hbm. Used 18.50G of 15.75G hbm.")
      {'need': 19864223744.0, 'have': 16911433728.0}
      >>> memory_of_error("HLO temporaries (15.88G) exceeds available HBM (15.75G).")["have"]
      16911433728.0
    """
    amount = r"([\d.]+)([KMGT]?)"
    found = re.search(rf"Used {amount} of {amount}", message)
    found = found or re.search(rf"\({amount}\) exceeds available HBM \({amount}\)", message)
    if not found:
        return {"need": None, "have": None}
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    need, have = (float(found[i]) * units[found[i + 1]] for i in (1, 3))
    return {"need": need, "have": have}


def _ours(program: Program, where: Slice, config: Config, devices: list[Any]) -> Any:
    """Returns zoo's own step, lowered: model, task, augmentation and optimiser of the recipe."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(
        {
            "batch_size": program.batch_per_chip * where.chips,
            "model.dtype": program.dtype,
            "parallel.mode": program.name,
            "parallel.fsdp": program.fsdp,
        }
    )
    setup = build(config, open_data(config), devices)
    batch = batch_like(setup)
    step: Any = setup.train_step
    return step.lower(setup.state_like, batch, jax.eval_shape(setup.make_key))


def _peer(program: Program, where: Slice, devices: list[Any]) -> Callable[[], Any]:
    """Returns what lowers a peer's step, written for the whole batch."""
    peer = PEERS[program.name](jnp.dtype(program.dtype))
    mesh: Mesh = meshes.make_mesh(devices)
    rows, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    size = program.batch_per_chip * where.chips

    def place(like: Any, sharding: Any) -> Any:
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), like
        )

    batch = {
        "image": jax.ShapeDtypeStruct((size, 224, 224, 3), peer.image_dtype),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
    }
    step = jax.jit(peer.step, donate_argnums=0, out_shardings=(whole, whole))
    return lambda: step.lower(place(peer.state_like, whole), place(batch, rows))
