"""Where batches come from: read by the host as they are needed, or held by the devices."""

from collections.abc import Generator, Iterable
import time
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from zoo.data.loader import Batch, Order, Waiting, eval_batches, train_batches
from zoo.data.resident import Resident, read_all
from zoo.training import mesh as meshes
from zoo.training.report import say
from zoo.training.setup import Setup


class Feed(Protocol):
    """The batches of a run; with several seeds those of training are [seeds, B, …]."""

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the example indices and their epochs, int32 [..., B] each, of a step from 0."""
        ...

    def train(
        self, steps: Iterable[int], waiting: Waiting | None = None
    ) -> Generator[Batch, None, None]:
        """Yields the training batches of the given steps; `waiting` is `map_ahead`'s."""
        ...

    def evaluate(self, name: str) -> Generator[Batch, None, None]:
        """Yields every example of a split exactly once; the last batch is padded and masked."""
        ...


def make_feed(setup: Setup, variables: Any = None) -> Feed:
    """Returns where this run's batches come from.

    Args:
      setup: of the run.
      variables: of the model, of which what is frozen makes the features of images; needed only
        if `setup.features` says that they take the images' place.
    """
    if setup.features is not None:
        return Featured(setup, variables)
    return Held(setup) if setup.resident else Streamed(setup)


class Streamed:
    """Batches that threads of the host read ahead."""

    def __init__(self, setup: Setup):
        data, self._batch_size = setup.config.data, setup.config.batch_size
        self._examples = setup.examples
        self._order = Order(len(setup.splits.train), self._batch_size, setup.config.seed)
        rows = meshes.batch_sharding(setup.mesh)
        self._loading = {"sharding": rows, "threads": data.threads, "prefetch": data.prefetch}
        self.at = self._order.at

    def train(
        self, steps: Iterable[int], waiting: Waiting | None = None
    ) -> Generator[Batch, None, None]:
        examples = self._examples["train"]
        return train_batches(examples, self._order, steps, waiting=waiting, **self._loading)

    def evaluate(self, name: str) -> Generator[Batch, None, None]:
        return eval_batches(self._examples[name], self._batch_size, **self._loading)


class Held:
    """Batches gathered on the devices, which hold each split from its first use on."""

    def __init__(self, setup: Setup):
        self._setup, self._splits = setup, {}
        size, batch_size = len(setup.splits.train), setup.config.batch_size
        self._orders = [Order(size, batch_size, seed) for seed in setup.seeds]

    def split(self, name: str) -> Resident:
        """Returns a split on the devices; the first time it is read."""
        if name not in self._splits:
            mesh = self._setup.mesh
            rows = meshes.batch_sharding(mesh)
            self._splits[name] = Resident(
                self._columns(name),
                meshes.replicated(mesh),
                meshes.stacked(rows) if name == "train" and len(self._orders) > 1 else rows,
            )
        return self._splits[name]

    def _columns(self, name: str) -> dict[str, np.ndarray]:
        """Returns a split and a last row that is nobody's, as `Resident` takes them."""
        return read_all(self._setup.examples[name], self._setup.config.data.threads)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        places = [order.at(step) for order in self._orders]
        if len(places) == 1:
            return places[0]
        indices, epochs = map(np.stack, zip(*places, strict=True))
        return indices, epochs

    def train(
        self, steps: Iterable[int], waiting: Waiting | None = None
    ) -> Generator[Batch, None, None]:
        del waiting  # there is nothing to wait for
        split = self.split("train")
        for step in steps:
            yield split.batch(*self.at(step))

    def evaluate(self, name: str) -> Generator[Batch, None, None]:
        split, size = self.split(name), self._setup.config.batch_size
        count = len(self._setup.examples[name])
        for start in range(0, count, size):
            positions = start + np.arange(size)
            yield split.batch(positions, np.zeros(size), positions < count)


class Featured(Held):
    """As `Held`, but instead of images the devices hold what the frozen network makes of them."""

    def __init__(self, setup: Setup, variables: Any):
        super().__init__(setup)
        self._streamed = Streamed(setup)
        self._variables = jax.tree.map(jnp.copy, variables)  # steps use the memory of the state

    def _columns(self, name: str) -> dict[str, np.ndarray]:
        began, parts = time.perf_counter(), []
        assert self._setup.feature_step is not None
        for batch in self._streamed.evaluate(name):
            features = self._setup.feature_step(self._variables, batch["image"])
            parts.append(jax.device_get({**batch, "image": features}))
        count = len(self._setup.examples[name])
        say(f"features of {name}: {count:,} images in {time.perf_counter() - began:.1f} s")

        def column(key: str) -> np.ndarray:
            rows = np.concatenate([part[key] for part in parts])[:count]
            return np.concatenate([rows, np.zeros_like(rows[:1])])

        return {key: column(key) for key in ("image", "label", "mask")}
