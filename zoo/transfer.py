"""From a trained network to one for other classes: a new head, and which arrays stay as they are.

For a training loop of one's own; in the trainer `config.model.weights`, `config.optimizer.groups`
and `config.optimizer.unfreeze` do the same, and more.
"""

from collections.abc import Mapping
import re
from typing import Any, TypeVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import Classifier
from zoo.paths import path_of, paths_of, why_nothing
from zoo.weights.importing import is_head

AnyClassifier = TypeVar("AnyClassifier", bound=Classifier)


def swap_head(
    model: AnyClassifier, variables: Mapping[str, Any], num_classes: int, key: jax.Array
) -> tuple[AnyClassifier, dict[str, Any]]:
    """Returns a model of other classes, and its variables: the same but for a head begun anew.

    Auxiliary heads are begun anew as well. Nothing of what is given is changed.

    Args:
      model: with a head.
      variables: of the model, {"params": …} and, with BatchNorm, {"batch_stats": …}.
      num_classes: K of the new head.
      key: for its initial weights [D, K], drawn as those of every dense layer here (LeCun's
        normal); the bias is 0.

    Raises:
      ValueError: for a number of classes that is not at least 1, and for variables without a
        head: load those with `zoo.load(…, num_classes=K)`, which begins one.

    Example:
      >>> import zoo
      >>> model = zoo.create_model("lenet5", num_classes=10)
      >>> images = jnp.zeros((1, 32, 32, 1))
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> model, variables = swap_head(model, variables, 3, jax.random.key(1))
      >>> model.apply(variables, images, train=False).shape
      (1, 3)
    """
    params = dict(variables["params"])
    heads = [name for name in params if is_head(("params", name))]
    if not heads:
        raise ValueError(
            f"{type(model).__name__} has no head to swap, only {', '.join(params)}; "
            "zoo.load(…, num_classes=K) and model.init begin one"
        )
    swapped = model.clone(num_classes=num_classes)
    for name, own in zip(heads, jax.random.split(key, len(heads)), strict=True):
        features, _ = params[name]["kernel"].shape
        dense = nn.Dense(num_classes, dtype=model.dtype, param_dtype=model.param_dtype)
        params[name] = dense.init(own, jnp.zeros((1, features), model.param_dtype))["params"]
    return swapped, {**variables, "params": params}


def freeze(variables: Any, pattern: str) -> Any:
    """Returns which arrays are to stay as they are: a tree of bool like the one given.

    True is frozen. That is what `optax.freeze` and `optax.masked` take, and labels for
    `optax.multi_transform`. Given all variables, the averages of BatchNorm are marked as well,
    by the path of their module; they are no matter of the optimiser: keep them with
    `jax.tree.map(lambda f, old, new: old if f else new, mask["batch_stats"], …)`.

    Args:
      variables: parameters, or {"params": …, "batch_stats": …}; arrays or their shapes.
      pattern: regular expression of whole paths, "stem.*|stage[12].*" or "(?!head/).*".

    Raises:
      ValueError: for a pattern that is none, or that matches no parameter; names close ones.

    Example:
      >>> import optax
      >>> params = {"stem": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
      >>> mask = freeze(params, "stem.*")
      >>> mask
      {'head': {'kernel': False}, 'stem': {'kernel': True}}
      >>> optimizer = optax.multi_transform({True: optax.set_to_zero(), False: optax.sgd(1)}, mask)
      >>> updates, _ = optimizer.update(params, optimizer.init(params))
      >>> [float(updates[name]["kernel"][0]) for name in ("stem", "head")]
      [0.0, -1.0]
    """
    try:
        matches = re.compile(pattern).fullmatch
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if isinstance(variables, Mapping) and "params" in variables:
        paths = paths_of(variables["params"])
        marked = {name: _marked(tree, matches) for name, tree in variables.items()}
    else:
        paths, marked = paths_of(variables), _marked(variables, matches)
    if not any(map(matches, paths)):
        raise ValueError(why_nothing(pattern, paths))
    return marked


def _marked(tree: Any, matches: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda p, _: matches(path_of(p)) is not None, tree)
