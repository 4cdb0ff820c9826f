"""ResNet-50 as others train it, to be compiled beside ours: plain Flax, and Keras on JAX.

Both are steps of the same training, SGD with momentum and decay on 224x224 images in bfloat16
with float32 weights, written for the whole batch and left to XLA to divide among devices.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

# (state, batch) -> (state, loss); a batch is {"image": [B, H, W, 3], "label": int32 [B]}
Step = Callable[[Any, dict[str, jax.Array]], tuple[Any, jax.Array]]
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-4


@dataclasses.dataclass(frozen=True)
class Peer:
    """A network with its training step.

    Attributes:
      name: as printed.
      state_like: shapes and types of its state.
      step: pure.
      image_dtype: of the images that it is given, already normalised.
      parameters: how many of them train.
    """

    name: str
    state_like: Any
    step: Step
    image_dtype: Any
    parameters: int


class PlainBlock(nn.Module):
    """Bottleneck: 1x1, 3x3 and 1x1 convolutions."""

    features: int
    strides: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.norm()(self.conv(self.features, (1, 1))(x)))
        y = self.conv(self.features, (3, 3), (self.strides, self.strides))(y)
        y = nn.relu(self.norm()(y))
        y = self.conv(4 * self.features, (1, 1))(y)
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        if x.shape != y.shape:
            x = self.conv(4 * self.features, (1, 1), (self.strides, self.strides))(x)
            x = self.norm()(x)
        return nn.relu(x + y)


class PlainResNet(nn.Module):
    """ResNet v1.5 of Flax's own layers, as its ImageNet example builds it."""

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    num_classes: int = 1000
    dtype: Any = jnp.bfloat16

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        x = conv(64, (7, 7), (2, 2), padding=((3, 3), (3, 3)))(x)
        x = nn.max_pool(nn.relu(norm()(x)), (3, 3), (2, 2), "SAME")
        for stage, blocks in enumerate(self.stage_sizes):
            for i in range(blocks):
                strides = 2 if stage and i == 0 else 1
                x = PlainBlock(64 * 2**stage, strides, conv, norm)(x)
        x = nn.Dense(self.num_classes, dtype=self.dtype)(x.mean((1, 2)))
        return x.astype(jnp.float32)


def plain_flax(dtype: Any = jnp.bfloat16) -> Peer:
    """Returns ResNet-50 of plain `nn.Conv` and `nn.BatchNorm`, trained as Flax's example does."""
    model = PlainResNet(dtype=dtype)
    optimizer = optax.sgd(RATE, momentum=MOMENTUM, nesterov=True)

    def init(key: jax.Array) -> Any:
        variables = model.init(key, jnp.zeros((1, 224, 224, 3), dtype), train=False)
        opt_state = optimizer.init(variables["params"])
        return {"variables": variables, "opt_state": opt_state, "step": jnp.zeros((), jnp.int32)}

    def step(state: Any, batch: dict[str, jax.Array]) -> tuple[Any, jax.Array]:
        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = model.apply(
                {**state["variables"], "params": params},
                batch["image"],
                train=True,
                mutable=["batch_stats"],
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
            kernels = [p for p in jax.tree.leaves(params) if p.ndim > 1]
            decay = sum(jnp.sum(jnp.square(p)) for p in kernels)
            return loss + DECAY / 2 * decay, updated["batch_stats"]

        params = state["variables"]["params"]
        (loss, stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, state["opt_state"], params)
        params = optax.apply_updates(params, updates)
        variables = {"params": params, "batch_stats": stats}
        new = {"variables": variables, "opt_state": opt_state, "step": state["step"] + 1}
        return new, loss

    state_like = jax.eval_shape(init, jax.random.key(0))
    return Peer("flax", state_like, step, dtype, _size(state_like["variables"]["params"]))


def keras_resnet(dtype: Any = jnp.bfloat16) -> Peer:
    """Returns `keras.applications.ResNet50` on JAX, trained through `stateless_call`."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    policy = "mixed_bfloat16" if dtype == jnp.bfloat16 else "float32"
    keras.config.set_dtype_policy(policy)
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM, weight_decay=DECAY)
    optimizer.build(model.trainable_variables)
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss_of(trained: Any, others: Any, batch: dict[str, jax.Array]) -> Any:
        logits, others = model.stateless_call(trained, others, batch["image"], training=True)
        return loss_function(batch["label"], logits), others

    def step(state: Any, batch: dict[str, jax.Array]) -> tuple[Any, jax.Array]:
        trained, others, optimizing = state
        gradient_of = jax.value_and_grad(loss_of, has_aux=True)
        (loss, others), gradient = gradient_of(trained, others, batch)
        trained, optimizing = optimizer.stateless_apply(optimizing, gradient, trained)
        return (trained, others, optimizing), loss

    state = tuple(
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
    )
    state_like = jax.eval_shape(lambda: state)
    return Peer("keras", state_like, step, jnp.dtype("float32"), _size(state_like[0]))


PEERS = {"flax": plain_flax, "keras": keras_resnet}


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
