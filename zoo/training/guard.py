"""Steps that leave no trace when they go wrong."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from zoo.tasks.task import Metrics
from zoo.training.state import Skips, TrainState

Step = Callable[..., tuple[TrainState, Metrics]]


def all_finite(tree: Any) -> jax.Array:
    """Returns whether no float of the tree is NaN, infinite or from about 1e19 on; bool [].

    By the sum of an array's squares, which compilers add up faster than truths, and which overflows
    for numbers that large.
    """
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.isfinite(_sum_of_squares(x)) for x in leaves], bool))


def _sum_of_squares(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32))))


def guard(step: Step) -> Step:
    """Returns (state, …) -> (state, metrics): `step`, undone if its outcome is not finite.

    A step is undone when a metric (the loss, the gradient's norm), a parameter or a
    statistic of BatchNorm is NaN or infinite after it. Everything then stays as it was,
    but for the number of the step and `state.skips`: the batch was seen, and the next one is
    another. (The schedule's own count, in the optimiser's state, stays behind by one.) The
    metrics become sums of 0 over 0 rows, so that means are those of the good steps;
    "skipped" has the share of the others.

    All is decided on the device, equally on all of them. The norm of a gradient overflows
    from about 1e19 on; such a step is undone as well. The optimiser's state is not looked at,
    for it may begin with an infinity (the best loss so far).

    Args:
      step: (state, …) -> (state, metrics), whose metrics have "loss" and "grad_norm".
    """

    def guarded(state: TrainState, *args: Any) -> tuple[TrainState, Metrics]:
        new, metrics = step(state, *args)
        good = all_finite((metrics, new.params, new.batch_stats))
        # A choice for each of a thousand arrays would be as many kernels to compile.
        kept = lax.cond(good, lambda: new, lambda: state)
        bad = 1 - good.astype(jnp.int32)
        row = jnp.where(good, 0, state.skips.consecutive + 1)
        longest = jnp.maximum(row, state.skips.longest)
        skips = Skips(row, longest, state.skips.total + bad)
        metrics = jax.tree.map(lambda m: jnp.where(good, m, jnp.zeros_like(m)), metrics)
        metrics["skipped"] = (bad.astype(jnp.float32), jnp.ones(()))
        return dataclasses.replace(kept, step=new.step, skips=skips), metrics

    return guarded
