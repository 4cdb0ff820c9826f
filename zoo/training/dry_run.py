"""What a run would train, and what a step of it would cost, without a step."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from zoo.training import mesh as meshes
from zoo.training.groups import GroupRow, describe_groups
from zoo.training.optimizer import decay_mask
from zoo.training.report import Reporter
from zoo.training.setup import Setup


def dry_run(setup: Setup, origin: str) -> dict[str, Any]:
    """Prints the header, a row per group of parameters and the cost of a step; trains nothing.

    Args:
      setup: of the run.
      origin: where the configuration came from.

    Returns:
      {"groups": [...], "cost": {...}, "later": [...]}, as printed; the last are the costs of a
      step from the moments on at which more trains.
    """
    Reporter(Path("(dry run: nothing is written)"), setup.plan.total_steps).header(
        origin, setup.describe()
    )
    groups, costs = group_rows(setup), [step_cost(s) for s in (setup, *setup.later)]
    console = Console(highlight=False)
    table = Table(title="What trains", title_justify="left")
    for i, name in enumerate(groups[0]):
        table.add_column(name, justify="right" if i else "left")
    for row in groups:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()))
    console.print(table)
    where = f", on each of {setup.mesh.size} devices" if setup.mesh.size > 1 else ""
    for each, cost in zip((setup, *setup.later), costs, strict=True):
        when = f" from step {each.start} on" if each.start else ""
        size = setup.config.batch_size
        print(f"A step of {size} images{when}, as the compiler sees it{where}:")
        for name, value in cost.items():
            print(f"  {name:<40} {value}")
    return {"groups": groups, "cost": costs[0], "later": costs[1:]}


def group_rows(setup: Setup) -> list[dict[str, Any]]:
    """Returns what trains at which peak rate and decay, a row per rule, in their order."""
    plan, optimization = setup.plan, setup.optimization
    decay = setup.config.optimizer.weight_decay
    decay = setup.config.optimizer.arguments.to_dict().get("weight_decay", decay)
    rows = describe_groups(
        setup.state_like.params,
        optimization.groups,
        decay_mask(setup.config.optimizer.decay),
        weight_decay=decay,
    )
    return [
        {
            "pattern": row.pattern,
            "arrays": row.arrays,
            "parameters": row.parameters,
            "rate": _rate(row, plan.learning_rate),
            "decay": f"{row.weight_decay:.4g}",
            "parameters that decay": row.decaying,
            "BatchNorm's averages": "kept" if row.statistics else "move",
        }
        for row in rows
    ]


def _rate(row: GroupRow, peak: float) -> str:
    if row.frozen and row.thaws is None:
        return "frozen"
    later = f" from step {row.thaws} on" if row.frozen else ""
    return f"{row.rate * peak:.4g}{later}"


def batch_like(setup: Setup) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes, types and shardings of a training batch."""
    rows = meshes.batch_sharding(setup.mesh)
    train, size = setup.examples["train"], setup.config.batch_size

    def like(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype, sharding=rows)

    image = like(np.uint8, *train.shape)
    if setup.feature_step is not None:
        variables = setup.state_like.variables
        image = jax.eval_shape(setup.feature_step, variables, image)
    return {
        "image": image,
        "label": like(train.target_dtype, *train.target_shape),
        "mask": like(np.float32),
        "index": like(np.int32),
        "epoch": like(np.int32),
    }


def step_cost(setup: Setup) -> dict[str, str]:
    """Returns what a training step costs on each device, by the compiler's own analysis.

    Counts of operations are of the program after optimisation, which may compute things
    twice or in other ways; `zoo.describe` has the network's own.
    """
    state = setup.state_like
    batch = batch_like(setup)
    key = jax.eval_shape(setup.make_key)
    compiled: Any = setup.train_step
    compiled = compiled.lower(state, batch, key).compile()
    work, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    cost = {
        "parameters": f"{_bytes(state.params) / 2**20:,.1f} MiB",
        "optimiser's state": f"{_bytes(state.opt_state) / 2**20:,.1f} MiB",
        "averages of the weights": f"{_bytes((state.ema, state.swa)) / 2**20:,.1f} MiB",
        "operations": f"{work.get('flops', 0) / 1e9:,.4g} GFLOP",
        "memory read and written": f"{work.get('bytes accessed', 0) / 2**20:,.1f} MiB",
    }
    if memory is not None:
        cost["memory for what lies between"] = f"{memory.temp_size_in_bytes / 2**20:,.1f} MiB"
    return cost


def _bytes(tree: Any) -> int:
    """Returns what one device holds of a tree, which may be spread over several."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
