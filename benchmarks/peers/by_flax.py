"""The work as a plain flax program does it: ResNet-50 in the manner of flax's ImageNet example.

Layers are flax's own, nothing is chosen for the processor, and the step does not donate its
state. https://github.com/google/flax/tree/main/examples/imagenet is the model of style; sizes
are those of He et al. 2015, https://arxiv.org/abs/1512.03385, table 1, with the stride in the
3x3 convolution.
"""

import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.peers.checks import check_finite, xla_flags
from benchmarks.peers.models import CLASSES
from benchmarks.peers.worker import Job, Work


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, and a shortcut."""

    features: int
    strides: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.norm()(self.conv(self.features, (1, 1))(x)))
        y = nn.relu(self.norm()(self.conv(self.features, (3, 3), self.strides, padding=1)(y)))
        y = self.norm(scale_init=nn.initializers.zeros)(self.conv(4 * self.features, (1, 1))(y))
        if x.shape != y.shape:
            x = self.norm()(self.conv(4 * self.features, (1, 1), self.strides)(x))
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """Images [B, H, W, 3] in, logits [B, 1000] out."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5
        )
        x = nn.relu(norm()(conv(64, (7, 7), 2, padding=3)(images)))
        sides: Any = ((1, 1), (1, 1))  # annotated as str in flax
        x = nn.max_pool(x, (3, 3), (2, 2), sides)
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                strides = 2 if stage and not block else 1
                x = Bottleneck(64 * 2**stage, strides, conv, norm)(x)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


def make_variables(job: Job) -> tuple[Any, int]:
    """Returns initial variables, and how many parameters train."""
    images = jnp.zeros((1, job.size, job.size, 3))
    init = jax.jit(functools.partial(ResNet50().init, train=False))
    variables = init(jax.random.key(0), images)
    return variables, sum(p.size for p in jax.tree.leaves(variables["params"]))


def make_images(job: Job) -> jax.Array:
    """Returns normal noise, float32 [B, S, S, 3]."""
    return jax.random.normal(jax.random.key(1), (job.batch, job.size, job.size, 3))


class Train:
    """Forward with batch statistics, cross-entropy, backward, SGD with momentum."""

    def __init__(self, job: Job):
        variables, self.parameters = make_variables(job)
        self.notes: dict[str, Any] = {"xla_flags": xla_flags()}
        self._images = make_images(job)
        self._labels = jax.random.randint(jax.random.key(2), (job.batch,), 0, CLASSES)
        optimizer = optax.sgd(job.rate, momentum=0.9)
        self._state = (variables, optimizer.init(variables["params"]))

        @jax.jit
        def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
            variables, opt_state = state

            def loss_of(params: Any) -> tuple[jax.Array, Any]:
                logits, updated = ResNet50().apply(
                    {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
                )
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
                return losses.mean(), updated

            (loss, updated), gradient = jax.value_and_grad(loss_of, has_aux=True)(
                variables["params"]
            )
            updates, opt_state = optimizer.update(gradient, opt_state)
            params = optax.apply_updates(variables["params"], updates)
            return ({"params": params, **updated}, opt_state), loss

        self._step = step

    def run(self, steps: int) -> None:
        loss: Any = None
        for _ in range(steps):
            self._state, loss = self._step(self._state, self._images, self._labels)
        jax.block_until_ready(self._state)
        check_finite(loss)


class Infer:
    """The forward pass under `jax.jit`."""

    def __init__(self, job: Job):
        self._variables, self.parameters = make_variables(job)
        self.notes: dict[str, Any] = {"xla_flags": xla_flags()}
        self._images = make_images(job)
        self._forward = jax.jit(functools.partial(ResNet50().apply, train=False))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            check_finite(jax.block_until_ready(self._forward(self._variables, self._images)))


def load(job: Job, kind: str) -> Work:
    """Returns the work of a kind, "train" or "infer", for ResNet-50."""
    assert job.model == "resnet50", f"{job.model} is not written plainly here"
    return {"train": Train, "infer": Infer}[kind](job)
