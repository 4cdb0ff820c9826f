"""How steps become calls of compiled functions: one by one, or many in one loop on the device.

With the data on the devices nothing of a step needs the host, and up to an epoch of steps is
one call: a loop whose number of rounds is an argument, so that one compilation serves stretches
of every length. A stretch ends wherever something is due: a line of the log, a checkpoint, an
evaluation, the end of an epoch or of the training, or that more begins to train. A signal is seen
at the end of a stretch.

On a CPU it is one step per call. XLA computes most convolutions within a loop one element at a
time there (LeNet-5's step on 64 digits takes 3.5 times as long in a loop, on two cores), and a
call costs little. The step is then the very function that other data go through, and so the
results are the same bits. Of several seeds each makes its steps in turn, a few calls at a time.
"""

from collections.abc import Callable, Iterable
import functools
from typing import Any, Protocol

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from zoo.data.loader import Batch
from zoo.data.resident import Columns, gather
from zoo.tasks.task import Metrics
from zoo.training import mesh as meshes
from zoo.training.feeds import Feed, Held
from zoo.training.mesh import loops_are_fast
from zoo.training.progress import DataWait
from zoo.training.replicas import joiner, replica, splitter
from zoo.training.setup import Setup
from zoo.training.state import TrainState

TOGETHER = 10  # steps between two moments at which the state of all replicas is one tree


class Trainer(Protocol):
    """What makes the next steps."""

    def advance(self, state: TrainState, step: int) -> tuple[TrainState, Any, int | None]:
        """Returns the state after some steps and their metrics.

        Args:
          state: after `step` steps; its memory is used for the new one.
          step: how many were made so far.

        Returns:
          The new state, the metrics, and of how many steps they are, as `Totals.add` takes
          them; None means one.
        """
        ...

    def waited(self) -> float:
        """Returns for how many seconds the devices waited for data since this was last asked."""
        ...

    def close(self) -> None:
        """Lets go of what reads ahead."""
        ...


def make_trainer(setup: Setup, feed: Feed, step: int) -> Trainer:
    """Returns what makes this run's steps, from `step` up to `setup.stop`."""
    if isinstance(feed, Held) and loops_are_fast(setup.mesh):
        return Loop(setup, feed)
    if isinstance(feed, Held) and setup.alone is not None:
        return InTurns(setup, setup.alone, feed)
    return StepByStep(setup, feed, range(step, setup.stop))


class StepByStep:
    """One call for each step."""

    def __init__(self, setup: Setup, feed: Feed, steps: Iterable[int]):
        self._step, self._key, self._wait = setup.train_step, setup.make_key(), DataWait()
        self._batches = feed.train(steps, self._wait)

    def advance(self, state: TrainState, step: int) -> tuple[TrainState, Metrics, None]:
        del step  # the batches are in order
        state, metrics = self._step(state, next(self._batches), self._key)
        self._wait.working_on(metrics)
        return state, metrics, None

    def waited(self) -> float:
        return self._wait.lap()

    def close(self) -> None:
        self._batches.close()


class Loop:
    """One call for all steps until something is due."""

    def __init__(self, setup: Setup, feed: Held):
        self._feed, self._key = feed, setup.make_key()
        self._columns = feed.split("train").columns
        self._until, self._length = stretches(setup)
        rows = meshes.batch_sharding(setup.mesh)
        self._loop = make_loop(
            setup.train_step,
            setup.state_like,
            rows if len(setup.seeds) == 1 else meshes.stacked(rows),
            meshes.replicated(setup.mesh),
        )

    def advance(self, state: TrainState, step: int) -> tuple[TrainState, Metrics, int]:
        stop = self._until(step)
        places = [self._feed.at(s) for s in range(step, stop)]
        places += places[-1:] * (self._length - len(places))  # which no round reaches
        indices, epochs = map(np.stack, zip(*places, strict=True))
        count = stop - step
        state, metrics = self._loop(state, self._columns, indices, epochs, count, self._key)
        return state, metrics, count

    def waited(self) -> float:
        return 0.0  # the data are where they are wanted

    def close(self) -> None:
        """There is nothing to let go of."""


class InTurns:
    """A call for each step of each replica; the state is taken apart for a few steps at a time."""

    def __init__(self, setup: Setup, alone: Setup, feed: Held):
        self._feed, self._columns = feed, feed.split("train").columns
        self._until, _ = stretches(setup)
        self._step, self._keys = alone.train_step, [alone.make_key(seed) for seed in setup.seeds]
        everywhere, rows = meshes.replicated(setup.mesh), meshes.batch_sharding(setup.mesh)
        one = jax.tree.map(lambda s: s.sharding, alone.state_like)
        self._split, self._join = splitter(one, len(setup.seeds)), joiner(one)
        self._join_metrics = joiner(everywhere)

        def gather_each(columns: Columns, *places: Any) -> list[Batch]:
            return [gather(columns, *replica(places, i)) for i in range(len(setup.seeds))]

        self._gather = jax.jit(gather_each, out_shardings=rows)

    def advance(self, state: TrainState, step: int) -> tuple[TrainState, list[Metrics], int]:
        stop = min(self._until(step), step + TOGETHER)
        parts, metrics = self._split(state), []
        for each in range(step, stop):
            batches = self._gather(self._columns, *self._feed.at(each))
            made = map(self._step, parts, batches, self._keys)
            parts, own = zip(*made, strict=True)
            metrics.append(self._join_metrics(*own))
        return self._join(*parts), metrics, stop - step

    def waited(self) -> float:
        return 0.0  # the data are where they are wanted

    def close(self) -> None:
        """There is nothing to let go of."""


def stretches(setup: Setup) -> tuple[Callable[[int], int], int]:
    """Returns a step -> where its stretch ends, and how long the longest can be."""
    plan = setup.plan
    every = plan.log_every, plan.checkpoint_every, plan.evaluate_every
    epoch = len(setup.splits.train), setup.config.batch_size
    until = functools.partial(next_stop, every=every, epoch=epoch, total=setup.stop)
    return until, min(*every, -(-epoch[0] // epoch[1]), setup.stop)


def next_stop(step: int, *, every: Iterable[int], epoch: tuple[int, int], total: int) -> int:
    """Returns the first step after `step` at which something is due.

    Args:
      step: from where.
      every: how many steps lie between two of whatever is done regularly.
      epoch: its number of examples, and the number of those in a batch.
      total: the last step of the training, or before more trains.

    Example:
      >>> next_stop(7, every=(5, 20), epoch=(34, 4), total=100)
      9
    """
    size, batch = epoch
    end_of_epoch = -(-(step * batch // size + 1) * size // batch)
    return min(*((step // n + 1) * n for n in every), end_of_epoch, total)


def make_loop(
    train_step: Callable[..., tuple[TrainState, Metrics]],
    state_like: Any,
    rows: jax.sharding.NamedSharding,
    everywhere: jax.sharding.NamedSharding,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns the compiled `(state, columns, indices, epochs, count, key) -> (state, metrics)`.

    It makes `count` steps, at most the K there are indices for, [K, …, B]; metrics have an
    axis K in front, of which the first `count` count.

    Args:
      train_step: (state, batch, key) -> (state, metrics).
      state_like: shapes, types and shardings of the state.
      rows: the sharding of a batch.
      everywhere: that of metrics, all on every device.
    """

    def loop(
        state: TrainState, columns: Columns, indices: Any, epochs: Any, count: Any, key: Any
    ) -> tuple[TrainState, Metrics]:
        def step(state: TrainState, i: Any) -> tuple[TrainState, Metrics]:
            batch = gather(columns, indices[i], epochs[i])
            batch = jax.tree.map(lambda x: lax.with_sharding_constraint(x, rows), batch)
            return train_step(state, batch, key)

        def body(i: Any, carry: Any) -> Any:
            state, kept = carry
            state, metrics = step(state, i)
            return state, jax.tree.map(lambda k, m: k.at[i].set(m), kept, metrics)

        like = jax.eval_shape(step, state, 0)[1]
        kept = jax.tree.map(lambda m: jnp.zeros((len(indices), *m.shape), m.dtype), like)
        return lax.fori_loop(0, count, body, (state, kept))

    shardings = jax.tree.map(lambda s: s.sharding, state_like)
    return jax.jit(loop, out_shardings=(shardings, everywhere), donate_argnums=0)
