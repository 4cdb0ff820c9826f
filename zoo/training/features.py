"""What a frozen network hands to its head, instead of images: computed once for each of them.

Where nothing but the head trains, and an image is the same in every epoch, all below the head
is computed over and over with one result. From that result on, a step costs what the head does.

The network itself says where that is: its calls are traced, and what stands for the images is
put in the place of the head's input, or of the input of the dropout right in front of it. What
is below has no use then, and the compiler leaves it out. So masks of dropout, loss, metrics,
gradients and the whole state are those of the ordinary step; features are those of the
ordinary forward pass, up to rounding where a batch of another size is computed otherwise.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from zoo.data.resident import AUTOMATIC
from zoo.errors import ConfigError
from zoo.layers import Classifier
from zoo.paths import paths_of
from zoo.training.step import Frozen

HEAD = "head"


@dataclasses.dataclass(frozen=True)
class FromFeatures:
    """A model that takes features for images; of the same variables, with the same `apply`.

    Attributes:
      model: of the zoo.
      place: name of the module whose input features are.
      image_shape: [H, W, C] of the images that they were made of.
    """

    model: Classifier
    place: str
    image_shape: tuple[int, ...]

    @property
    def num_classes(self) -> int | None:
        """Of the head."""
        return self.model.num_classes

    def apply(self, variables: Any, features: jax.Array, **options: Any) -> Any:
        """Returns what the model does with the images of these features [B, …]."""
        images = jnp.zeros((len(features), *self.image_shape))
        with _at(self.place, lambda given: features.astype(given.dtype)):
            return self.model.apply(variables, images, **options)

    def of_images(self, variables: Any, images: jax.Array) -> jax.Array:
        """Returns the features [B, …] of images [B, H, W, C], already normalised."""
        found = []
        with _at(self.place, lambda given: found.append(given) or given):
            self.model.apply(variables, images, train=False)
        return found[0]


def _at(place: str, change: Callable[[jax.Array], jax.Array]) -> contextlib.AbstractContextManager:
    """Within the block, what a top-level module of that name is given is changed."""

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.module.path == (place,) and context.method_name == "__call__":
            args = (change(args[0]), *args[1:])
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def from_features(
    model: Classifier,
    shapes: Any,
    frozen: Frozen,
    image_shape: tuple[int, ...],
    *,
    augmented: bool,
    aux_weight: float,
) -> tuple[FromFeatures | None, str]:
    """Returns the model that takes features, or None and why there is none.

    Args:
      model: of the zoo.
      shapes: of its variables.
      frozen: what of it does not train.
      image_shape: [H, W, C].
      augmented: whether an image is another one in each epoch.
      aux_weight: what an auxiliary head's loss counts.
    """
    if augmented:
        return None, "config.augment changes the images"
    moving = _moving(shapes, frozen)
    if moving is not None:
        return None, f"{moving!r} is not frozen"
    calls = _calls(model, shapes, image_shape)
    names = [call.path[0] for call in calls if len(call.path) == 1]
    if HEAD not in names:
        return None, f"{type(model).__name__} has no layer that is called {HEAD!r}"
    if aux_weight and any(name.startswith("aux") for name in names):
        return None, "the loss of auxiliary heads counts, config.loss.aux_weight"
    place = _place(calls)
    below = calls[: next(i for i, call in enumerate(calls) if call.path == (place,))]
    random = next(("/".join(call.path) for call in below if call.drops), None)
    if random is not None:
        return None, f"{random!r} drops at random parts of what is below the head"
    return FromFeatures(model, place, image_shape), ""


def _moving(shapes: Any, frozen: Frozen) -> str | None:
    """Returns the path of the first parameter or statistic below the head that changes."""
    params, statistics = shapes["params"], shapes.get("batch_stats", {})
    for tree, kept in ((params, frozen.params), (statistics, frozen.statistics)):
        stays = jax.tree.leaves(kept) if kept is not None else [False] * len(paths_of(tree))
        for path, is_kept in zip(paths_of(tree), stays, strict=True):
            if not is_kept and not path.startswith(f"{HEAD}/"):
                return path
    return None


class Call(NamedTuple):
    """A module that is called.

    Attributes:
      path: its names, from the network down.
      is_dropout: whether it is that, at whatever rate.
      drops: whether it does drop something in training.
    """

    path: tuple[str, ...]
    is_dropout: bool
    drops: bool


def _calls(model: Classifier, shapes: Any, image_shape: tuple[int, ...]) -> list[Call]:
    """Returns the modules that training calls, in order."""
    calls = []

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name == "__call__" and module.path:
            dropout = module if isinstance(module, nn.Dropout) else None
            drops = dropout is not None and dropout.rate > 0 and not dropout.deterministic
            calls.append(Call(module.path, dropout is not None, drops))
        return call(*args, **kwargs)

    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(watch):
        jax.eval_shape(
            lambda v, x: apply(v, x, rngs={"dropout": jax.random.key(0)}), shapes, images
        )
    return calls


def _place(calls: Sequence[Call]) -> str:
    """Returns the name of the module from which on the network is its head."""
    top = [call for call in calls if len(call.path) == 1]
    head = next(i for i, call in enumerate(top) if call.path[0] == HEAD)
    return top[head - 1].path[0] if head and top[head - 1].is_dropout else HEAD


def chosen(
    wanted: bool | None, found: FromFeatures | None, why: str, *, alone: bool, size: int
) -> bool:
    """Returns whether features take the place of images.

    Args:
      wanted: what the configuration says; None leaves it to this function.
      found: of `from_features`.
      why: likewise.
      alone: whether there is one process, one program and one seed; features are of one network.
      size: of the features of all splits, in bytes.

    Raises:
      ConfigError: if they are wanted and cannot be had.
    """
    if wanted is None:
        return found is not None and alone and size <= AUTOMATIC
    if wanted and found is None:
        raise ConfigError(
            f"config.data.features=True keeps what the head is given, but {why}; leave it out"
        )
    if wanted and not alone:
        raise ConfigError(
            "config.data.features=True is for one process, one seed and "
            "config.parallel.mode='jit'; leave it out"
        )
    return wanted
