"""The work as Keras on JAX does it, with keras.applications."""

import math
from typing import Any

import jax
import keras
import numpy as np

from benchmarks.peers.checks import check_finite, xla_flags
from benchmarks.peers.models import CLASSES, MODELS
from benchmarks.peers.worker import Job, Work


def make_network(job: Job) -> keras.Model:
    """Returns a network with random weights, which puts out logits and drops nothing."""
    assert keras.backend.backend() == "jax", "Keras reads KERAS_BACKEND when it is imported"
    keras.utils.set_random_seed(0)
    name = MODELS[job.model].keras
    assert name is not None, f"keras.applications has no {job.model}"
    # Others leave the scaling of pixels to whoever calls them, as zoo does.
    extra = {"include_preprocessing": False} if name.startswith("MobileNetV3") else {}
    network = getattr(keras.applications, name)(
        input_shape=(job.size, job.size, 3),
        weights=None,
        classes=CLASSES,
        classifier_activation=None,
        **extra,
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return network


def make_images(job: Job) -> np.ndarray:
    """Returns normal noise, float32 [B, S, S, 3]."""
    shape = (job.batch, job.size, job.size, 3)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def count_parameters(network: keras.Model) -> int:
    """Returns how many parameters train."""
    return sum(math.prod(v.shape) for v in network.trainable_variables)


class Train:
    """Keras's own compiled step, on one batch in memory."""

    def __init__(self, job: Job):
        self._network, self._images = make_network(job), make_images(job)
        self._labels = np.random.default_rng(0).integers(0, CLASSES, job.batch, np.int32)
        self._network.compile(
            keras.optimizers.SGD(job.rate, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self.parameters = count_parameters(self._network)
        self.notes: dict[str, Any] = {"xla_flags": xla_flags()}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            loss = np.asarray(self._network.train_on_batch(self._images, self._labels))
            check_finite(loss)


class Infer:
    """Keras's own compiled prediction, or the network under `jax.jit`."""

    def __init__(self, job: Job):
        self._network, self._images = make_network(job), make_images(job)
        self.parameters = count_parameters(self._network)
        self.notes: dict[str, Any] = {"xla_flags": xla_flags(), **job.options}
        if not job.options["jitted"]:
            self._forward = lambda: self._network.predict_on_batch(self._images)
            return
        trained = [v.value for v in self._network.trainable_variables]
        others = [v.value for v in self._network.non_trainable_variables]
        images = jax.device_put(self._images)

        @jax.jit
        def forward(trained: Any, others: Any, images: jax.Array) -> jax.Array:
            return self._network.stateless_call(trained, others, images, training=False)[0]

        self._forward = lambda: forward(trained, others, images)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            check_finite(jax.block_until_ready(self._forward()))


def load(job: Job, kind: str) -> Work:
    """Returns the work of a kind, "train" or "infer"."""
    return {"train": Train, "infer": Infer}[kind](job)
