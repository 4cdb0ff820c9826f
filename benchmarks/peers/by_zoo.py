"""The work as zoo does it."""

import math
from typing import Any

import jax

from benchmarks import work
from benchmarks.peers.checks import check_finite
from benchmarks.peers.worker import Job, Work
from zoo.training.startup import describe_compiler, start


class Train:
    """zoo's training step, on pixels: normalising them is a part of it."""

    def __init__(self, job: Job):
        config = work.training_config(
            job.model,
            batch_size=job.batch,
            image_size=job.size,
            arguments=work.without_dropout(job.model),
        )
        self._made = work.make_training(config)
        self._state = self._made.init()
        self.parameters = self._made.parameters
        self.notes: dict[str, Any] = describe_compiler()

    def run(self, steps: int) -> None:
        metrics: Any = {}
        for _ in range(steps):
            self._state, metrics = self._made.step(self._state, self._made.batch, self._made.key)
        jax.block_until_ready(self._state)
        total, count = metrics["loss"]
        assert math.isfinite(float(total)) and float(count), "the step was undone: not finite"


class Infer:
    """The forward pass, BatchNorm folded into the convolutions or not."""

    def __init__(self, job: Job):
        self._made = work.make_inference(
            job.model,
            batch_size=job.batch,
            image_size=job.size,
            arguments=work.without_dropout(job.model),
            folded=job.options["folded"],
        )
        self.parameters = self._made.parameters
        self.notes: dict[str, Any] = {**describe_compiler(), "folded": job.options["folded"]}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            # One after the other: JAX would have several batches in work at once.
            logits = jax.block_until_ready(
                self._made.apply(self._made.variables, self._made.images)
            )
            check_finite(logits)


def load(job: Job, kind: str) -> Work:
    """Returns the work of a kind, "train" or "infer"."""
    start(None, on_cpu=True, onednn=job.options["onednn"])  # before JAX starts
    return {"train": Train, "infer": Infer}[kind](job)
