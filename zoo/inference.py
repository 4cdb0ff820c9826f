"""A trained network prepared to be used: images in, logits out, as fast as the machine does it.

Everywhere BatchNorm goes into the convolutions (`zoo.folding`) and the whole is compiled. On a CPU
with oneDNN most of the traced network becomes a few calls of it (`zoo.ops.onednn_network`), and
kernels are laid out once for all of theirs, not in each.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
import jax.numpy as jnp

from zoo.folding import fold_batchnorm
from zoo.layers import Classifier
from zoo.ops import onednn, onednn_network


def for_inference(model: Classifier, variables: Any) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from images to logits, compiled for each shape of images.

    On a CPU with oneDNN it keeps the last four shapes, each with kernels of its own.

    Its results are those of `model.apply(variables, images, train=False)` up to rounding, as long
    as all is finite: on such a CPU ReLU and the largest value of a window pass over NaN.

    Args:
      model: of the zoo.
      variables: of that model.

    Returns:
      normalised images [B, H, W, C] -> logits [B, K], or features [B, D] without a head.

    Raises:
      WeightsError: (a ValueError) if the variables are not the model's.

    Example:
      >>> import zoo
      >>> model = zoo.create_model("mlp")
      >>> images = jnp.ones((2, 28, 28, 1))
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> for_inference(model, variables)(images).shape
      (2, 10)
    """
    folded, weights = fold_batchnorm(model, variables)
    weights = jax.tree.map(jnp.asarray, weights)
    apply: Any = functools.partial(folded.apply, train=False)
    compiled = jax.jit(apply)

    @functools.lru_cache(maxsize=4)  # each keeps the kernels as it wants them
    def prepared(shape: tuple[int, ...], dtype: Any) -> Callable[[jax.Array], jax.Array]:
        images = jax.ShapeDtypeStruct(shape, dtype)
        traced = jax.make_jaxpr(apply)(weights, images)
        program = onednn_network.rewrite(traced, jax.tree.leaves(weights))

        @jax.jit
        def compute(constants: Any, images: jax.Array) -> jax.Array:
            return jaxpr_as_fun(ClosedJaxpr(program.jaxpr, constants))(images)[0]

        return functools.partial(compute, program.consts)

    def run(images: jax.Array) -> jax.Array:
        if not _is_for_onednn(images):
            return compiled(weights, images)
        return prepared(images.shape, images.dtype)(images)

    return run


def _is_for_onednn(images: Any) -> bool:
    """Returns whether images are computed on by one CPU, with oneDNN, and not within a program."""
    if not onednn.enabled() or isinstance(images, Tracer) or len(images) == 0:
        return False
    devices = images.devices() if isinstance(images, jax.Array) else jax.devices()[:1]
    return [device.platform for device in devices] == ["cpu"]
