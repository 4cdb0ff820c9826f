"""What any layer of a trained model puts out, and the slope of its answer there."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

from flax import traverse_util
import jax
from jax.extend.core import ClosedJaxpr, Var, jaxpr_as_fun
import jax.numpy as jnp

from zoo.analysis.running import Compute, outputs_like
from zoo.analysis.trained import Trained
from zoo.errors import ConfigError, suggest
from zoo.layers import Classifier

Score = Callable[[jax.Array, jax.Array], jax.Array]  # (logits [B, K], classes [B]) -> [B]


def layers_of(trained: Trained, *names: str) -> Compute:
    """Returns the function from images to a dict of what some layers put out, [B, …] each.

    Args:
      trained: the model.
      *names: of endpoints, or paths of modules such as "stage1_block1/conv2", as
        `python -m zoo describe` prints them; blocks, such as "stage1_block1", are modules too.

    Raises:
      ConfigError: for one that the model does not have.
    """
    layer_shapes(trained.model, trained.variables, trained.image_shape, names)
    return functools.partial(run_layers, trained.model, tuple(names))


def run_layers(
    model: Classifier, names: Sequence[str], variables: Any, images: jax.Array
) -> dict[str, jax.Array]:
    """Returns what layers put out in evaluation, [B, …] by name; see `layers_of`.

    Args:
      model: the module.
      names: of the layers.
      variables: of the model.
      images: float [B, H, W, C], normalised.
    """
    found = _run(model, variables, images, frozenset(names))
    return {name: found[name] for name in names}


def _run(
    model: Classifier, variables: Any, images: Any, names: frozenset[str] | None
) -> dict[str, Any]:
    """Returns endpoints and the modules of these names, or all, by name."""
    if getattr(model, "remat", ()):
        model = model.clone(remat=())  # the same numbers, and no maps hidden in what is repeated

    def wanted(module: Any, method: str) -> bool:
        return method == "__call__" and (names is None or "/".join(module.path) in names)

    out, state = model.apply(
        variables,
        images,
        train=False,
        method="endpoints",
        capture_intermediates=wanted,
        mutable=["intermediates"],
    )
    calls: dict[Any, Any] = traverse_util.flatten_dict(state.get("intermediates", {}))
    modules = {"/".join(path[:-1]): values[-1] for path, values in calls.items()}
    return modules | {name: value for name, value in out.items() if name != "aux_logits"}  # pyright: ignore


def layer_shapes(
    model: Classifier, variables: Any, image_shape: Sequence[int], names: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of what layers put out by name, without the batch.

    Args:
      model: the module.
      variables: of the model, or their shapes.
      image_shape: [H, W, C].
      names: of the layers.

    Raises:
      ConfigError: for one that the model does not have, or none at all.
    """
    if not names:
        raise ConfigError("no layer is named")
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    run = functools.partial(_run, model, names=None)
    known = jax.eval_shape(run, variables, images)
    for name in names:
        if name not in known:
            endpoints = ", ".join(n for n in known if n.startswith(("stride", "pre_", "logits")))
            raise ConfigError(
                f"layer {name!r}: {type(model).__name__} has no such.{suggest(name, known)} It has "
                f"the endpoints {endpoints}, and the layers that `python -m zoo describe` lists"
            )
    return {name: known[name].shape[1:] for name in names}


def endpoint_maps(trained: Trained) -> list[str]:
    """Returns the names of a model's feature maps among its endpoints, the largest first.

    Raises:
      ConfigError: if it has none.
    """
    method = functools.partial(trained.model.apply, train=False, method="endpoints")
    found = outputs_like(trained, method)
    strides = sorted(int(name[6:]) for name in found if name.startswith("stride"))
    if not strides:
        raise ConfigError(f"{trained.label}: a network without feature maps")
    return [f"stride{stride}" for stride in strides]


def score(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns how much speaks for a class each, [B]: its logit.

    Args:
      logits: [B, K]; with a single one, that of the second of two classes, the first has it
        with the other sign.
      classes: int [B].
    """
    if logits.shape[1] == 1:
        return jnp.where(classes > 0, 1, -1) * logits[:, 0]
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]


def with_slope(
    trained: Trained, layer: str, scored: Score = score
) -> Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the function from images and classes to a layer's map and the score's slope in it.

    The slope is that of the whole rest of the network, whatever ways lead on from the layer.
    To get it, what JAX traces of the model is cut in two at the map.

    Args:
      trained: the model.
      layer: see `layers_of`.
      scored: what is differentiated; of one example each.

    Returns:
      (variables, images float [B, H, W, C], classes int [B]) -> (map [B, …], its gradient
      [B, …]); to be compiled.

    Raises:
      ConfigError: for a layer that the model does not have.
    """
    outputs = layers_of(trained, layer, "logits")

    def both(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = outputs(variables, images)
        return found["logits"], found[layer]

    def compute(
        variables: Any, images: jax.Array, classes: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        traced = jax.make_jaxpr(both)(variables, images)
        inputs = jax.tree.leaves((variables, images))
        _, reached = jaxpr_as_fun(traced)(*inputs)
        onwards = jaxpr_as_fun(_from_last_output(traced))

        def total(x: jax.Array) -> jax.Array:
            (logits,) = onwards(*inputs, x)
            return scored(logits, classes).sum()

        return reached, jax.grad(total)(reached)

    return compute


def _from_last_output(traced: ClosedJaxpr) -> ClosedJaxpr:
    """Returns the program that takes its last output as another input instead of computing it."""
    jaxpr = traced.jaxpr
    *outputs, cut = jaxpr.outvars
    equations = []
    for equation in jaxpr.eqns:
        if cut in equation.outvars:
            unused = [Var(v.aval) if v is cut else v for v in equation.outvars]
            equation = equation.replace(outvars=unused)
        equations.append(equation)
    rest = jaxpr.replace(invars=[*jaxpr.invars, cut], outvars=outputs, eqns=equations)
    return traced.replace(jaxpr=rest)
