"""Several seeds at once: replicas of a run that share data, program and everything but chance.

Replica i has seed + i, and with it its own initial weights, order of examples, augmentation
and dropout: those of a single run of that seed. All arrays of the state have one more axis in
front, and a checkpoint holds all replicas.

On GPUs and TPUs a step of all is one program, made by `vmap`, and the figures of a replica are
those of the single run up to rounding. On a CPU, where XLA computes convolutions with kernels
of their own for each replica at half the speed (measured with LeNet-5), the one compiled step
is called for each replica in turn, without waiting; a replica is then the single run, bit by
bit. What is saved there is start and compilation, not arithmetic.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.tasks.task import Best, Sums
from zoo.training import mesh as meshes
from zoo.training.mesh import loops_are_fast
from zoo.training.setup import Setup


def replicate(setup: Setup) -> Setup:
    """Returns the setup of all of `setup.seeds`: the same functions, of states [seeds, …]."""
    count = len(setup.seeds)
    if count == 1:
        return setup
    one = jax.tree.map(lambda s: s.sharding, setup.state_like)
    everywhere, rows = meshes.replicated(setup.mesh), meshes.batch_sharding(setup.mesh)
    weights = one.variables  # also those of averages
    each = functools.partial(for_each, count=count, at_once=loops_are_fast(setup.mesh))

    tell = each(setup.observe, given=((one, 0), (everywhere, 0)), out=one, donate=True)

    def observe(state: Any, losses: Sequence[float]) -> Any:
        if setup.optimization.plateau is None:
            return state
        return tell(state, np.asarray(losses, np.float32))

    return dataclasses.replace(
        setup,
        alone=setup,
        later=tuple(map(replicate, setup.later)),
        init=lambda: joiner(one)(*map(setup.init, setup.seeds)),
        make_key=lambda: joiner(everywhere)(*map(setup.make_key, setup.seeds)),
        train_step=each(
            setup.train_step,
            given=((one, 0), (rows, 0), (everywhere, 0)),
            out=(one, everywhere),
            donate=True,
        ),
        observe=observe,
        eval_step=each(setup.eval_step, given=((weights, 0), (rows, None)), out=everywhere),
        statistics_step=each(
            setup.statistics_step,
            given=((weights, 0), (rows, 0), (everywhere, 0)),
            out=everywhere,
        ),
        state_like=jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(
                (count, *s.shape), s.dtype, sharding=meshes.stacked(s.sharding)
            ),
            setup.state_like,
        ),
    )


def for_each(
    function: Callable[..., Any],
    *,
    count: int,
    given: Sequence[tuple[Any, int | None]],
    out: Any,
    at_once: bool,
    donate: bool = False,
) -> Callable[..., Any]:
    """Returns the jitted function of one replica as one of all.

    Args:
      function: of one replica.
      count: of replicas.
      given: of each argument its sharding in one replica, and 0 if there is one for each
        replica, in front; None if all get the same.
      out: shardings of what it returns, in one replica.
      at_once: as one program; else one call after the other.
      donate: the memory of the first argument, as `function` does.
    """
    if at_once:
        axes = tuple(axis for _, axis in given)
        donated = 0 if donate else ()
        return jax.jit(
            jax.vmap(function, axes), out_shardings=_stacked(out), donate_argnums=donated
        )
    splits = [None if axis is None else splitter(sharding, count) for sharding, axis in given]
    join = joiner(out)

    def one_by_one(*arguments: Any) -> Any:
        parts = [
            [argument] * count if split is None else split(argument)
            for argument, split in zip(arguments, splits, strict=True)
        ]
        return join(*(function(*part) for part in zip(*parts, strict=True)))

    return one_by_one


def splitter(sharding: Any, count: int) -> Callable[[Any], list[Any]]:
    """Returns what makes replicas, each of this sharding, of a tree of arrays [count, …]."""

    def split(tree: Any) -> list[Any]:
        return [replica(tree, i) for i in range(count)]

    return jax.jit(split, out_shardings=[sharding] * count)


def joiner(sharding: Any) -> Callable[..., Any]:
    """Returns what makes of replicas, each of this sharding, one tree of arrays [count, …]."""

    def join(*trees: Any) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    return jax.jit(join, out_shardings=_stacked(sharding))


def _stacked(shardings: Any) -> Any:
    return jax.tree.map(meshes.stacked, shardings)


def replica(tree: Any, index: int) -> Any:
    """Returns one replica of a tree of arrays [replicas, …]."""
    return jax.tree.map(lambda x: x[index], tree)


def replicas_of(sums: Sums, count: int) -> list[Sums]:
    """Returns the sums of each replica; with one replica there is no axis for them."""
    return [sums] if count == 1 else [replica(sums, i) for i in range(count)]


def mean_and_deviation(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the means of figures over replicas and, as `NAME_std`, their deviations.

    The deviation is that of a sample, with n - 1 below; of one replica there is none.

    Example:
      >>> mean_and_deviation([{"loss": 0.25}, {"loss": 0.75}])
      {'loss': 0.5, 'loss_std': 0.3535533905932738}
    """
    if len(figures) == 1:
        return dict(figures[0])
    result = {}
    for name in figures[0]:
        values = np.array([f[name] for f in figures])
        result[name] = float(values.mean())
        result[f"{name}_std"] = float(values.std(ddof=1))
    return result


def leader(values: Sequence[float], best: Best) -> int:
    """Returns which replica is the best; of equals the first, and the first if none is a number."""
    found, best_value = 0, None
    for i, value in enumerate(values):
        if best.improves(value, best_value):
            found, best_value = i, value
    return found
