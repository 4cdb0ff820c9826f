"""The models by name: one literal table, and the three questions one asks of it."""

from collections.abc import Mapping
import fnmatch
from typing import Any, NamedTuple

from flax import linen as nn
import jax.numpy as jnp

from zoo.errors import suggest
from zoo.models import lenet


class Entry(NamedTuple):
    """What a registered name stands for."""

    module: type[nn.Module]
    arguments: Mapping[str, Any]
    image_shape: tuple[int, int, int]  # [H, W, C] the model was published for
    aliases: tuple[str, ...] = ()


MODELS: dict[str, Entry] = {
    "lenet5": Entry(lenet.LeNet5, {}, (32, 32, 1), aliases=("lenet",)),
    "lenet5_1998": Entry(lenet.LeNet5Paper, {}, (32, 32, 1)),
}

ALIASES = {alias: name for name, entry in MODELS.items() for alias in entry.aliases}


def list_models(pattern: str = "*") -> list[str]:
    """Returns the registered names that match a shell-style pattern, in table order.

    Example:
      >>> list_models("lenet*")
      ['lenet5', 'lenet5_1998']
    """
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def find_model(name: str) -> Entry:
    """Returns the table's entry for a name or an alias.

    Raises:
      ValueError: for an unknown name, with the close ones.
    """
    entry = MODELS.get(ALIASES.get(name, name))
    if entry is None:
        hint = suggest(name, [*MODELS, *ALIASES])
        raise ValueError(f"unknown model {name!r}.{hint} zoo.list_models() has all {len(MODELS)}.")
    return entry


def create_model(
    name: str,
    *,
    num_classes: int | None = 10,
    dtype: jnp.dtype | None = None,
    param_dtype: jnp.dtype = jnp.float32,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Returns a linen module: pure `init` and `apply`, no weights inside.

    Args:
      name: a registered name or alias, see `list_models`.
      num_classes: size of the head; None for no head, the model then returns features.
      dtype: what to compute in, e.g. `jnp.bfloat16`; None follows the input. Logits are
        float32 whatever this is.
      param_dtype: what to store parameters in.
      arguments: further fields of the model's class, by name.

    Raises:
      ValueError: for an unknown name, field or an impossible number of classes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = create_model("lenet5", num_classes=10)
      >>> images = jnp.zeros((2, 32, 32, 1))
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> model.apply(variables, images, train=False).shape
      (2, 10)
      >>> sorted(model.apply(variables, images, train=False, method="endpoints"))
      ['logits', 'pre_logits', 'stride2', 'stride4']
    """
    entry = find_model(name)
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, or None for no head; got {num_classes}")
    fields = [f for f in entry.module.__dataclass_fields__ if f not in ("parent", "name")]
    for field in arguments or {}:
        if field not in fields:
            raise ValueError(
                f"model {name!r} has no field {field!r}.{suggest(field, fields)} It has {fields}."
            )
    common = {"num_classes": num_classes, "dtype": dtype, "param_dtype": param_dtype}
    return entry.module(**{**entry.arguments, **common, **(arguments or {})})
