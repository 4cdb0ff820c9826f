"""What is timed: a training step or a forward pass, and where its batches come from."""

from collections.abc import Iterator, Sequence
import contextlib
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.throughput.job import Job
from benchmarks.work import make_batch
import zoo
from zoo.data.loader import Batch, map_ahead
from zoo.errors import ConfigError
from zoo.training import mesh as meshes
from zoo.training.feeds import Streamed
from zoo.training.setup import Setup

_BATCHES = 4  # different ones that lie on the host, for input "host"


def choose_devices(all_devices: Sequence[Any], count: int | None) -> list[Any]:
    """Returns so many devices, as many of each process.

    Args:
      all_devices: of all processes, `jax.devices()`.
      count: None for all.

    Raises:
      ConfigError: if there are not so many, or if they cannot be shared out.
    """
    count = count or len(all_devices)
    processes = sorted({device.process_index for device in all_devices})
    if not 0 < count <= len(all_devices) or count % len(processes):
        by = f" in {len(processes)} processes, which take as many each" if processes[1:] else ""
        raise ConfigError(f"--devices={count}: there are {len(all_devices)}{by}")
    each = count // len(processes)
    own = [[d for d in all_devices if d.process_index == p][:each] for p in processes]
    if min(map(len, own)) < each:
        raise ConfigError(f"--devices={count}: a process has fewer than {each}")
    return [device for devices in own for device in devices]


class Training:
    """The step that train.py makes."""

    def __init__(self, setup: Setup, job: Job):
        del job
        self.function: Any = setup.train_step
        self._state, self._key = setup.init(), setup.make_key()

    def arguments(self, batch: Batch) -> tuple[Any, ...]:
        """Returns what the function takes."""
        return self._state, batch, self._key

    def step(self, batch: Batch) -> Any:
        """Makes a step, and returns what is there when it is done."""
        self._state, metrics = self.function(*self.arguments(batch))
        return metrics


class Inference:
    """Logits of pixels: uint8 in, normalised on the device."""

    def __init__(self, setup: Setup, job: Job):
        model: Any = setup.model
        everywhere = meshes.replicated(setup.mesh)
        images = jnp.zeros((1, *setup.plan.image_shape))
        init = jax.jit(
            lambda: model.init(jax.random.key(0), images, train=False), out_shardings=everywhere
        )
        self._variables = init()
        if job.folded:
            model, variables = zoo.fold_batchnorm(model, self._variables)
            self._variables = jax.device_put(variables, everywhere)
        normalise = setup.preprocessing.normalise
        rows = meshes.batch_sharding(setup.mesh)
        self.function: Any = jax.jit(
            lambda variables, images: model.apply(variables, normalise(images), train=False),
            in_shardings=(everywhere, rows),
            out_shardings=rows,
        )

    def arguments(self, batch: Batch) -> tuple[Any, ...]:
        """Returns what the function takes."""
        return self._variables, batch["image"]

    def step(self, batch: Batch) -> Any:
        """Computes logits and returns them."""
        return self.function(*self.arguments(batch))


WORK = {"train": Training, "infer": Inference}


@contextlib.contextmanager
def batches(setup: Setup, job: Job) -> Iterator[Iterator[Batch]]:
    """Yields batches without end, global arrays: one again and again, or sent, or read."""
    if job.feeds == "real":
        with contextlib.closing(Streamed(setup).train(itertools.count())) as feed:
            yield feed
        return
    rows = meshes.batch_sharding(setup.mesh)
    own = setup.config.batch_size // jax.process_count()

    def noise(number: int) -> dict[str, np.ndarray]:
        seed = number * jax.process_count() + jax.process_index()
        return make_batch(own, setup.plan.image_shape, setup.plan.num_outputs, seed)

    def send(batch: dict[str, np.ndarray]) -> Batch:
        return {k: jax.make_array_from_process_local_data(rows, v) for k, v in batch.items()}

    if job.feeds == "device":
        yield itertools.repeat(send(noise(0)))
        return
    on_host = itertools.cycle([noise(i) for i in range(_BATCHES)])
    with contextlib.closing(map_ahead(send, on_host, 1, job.prefetch)) as feed:
        yield feed
