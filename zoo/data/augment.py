"""The augmentation of a configuration, as one function of a batch on the device.

Every random choice is keyed by (seed, epoch, example), so an example looks the same in
the same epoch whatever the number of devices and hosts, and after any restart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from zoo.data.augmentation import colour, geometry, mixing, policies
from zoo.data.augmentation.checks import check_arguments, check_name
from zoo.errors import ConfigError

Operation = Callable[[jax.Array, jax.Array], jax.Array]
Augment = Callable[[Mapping[str, jax.Array], jax.Array, Any], tuple[jax.Array, Any]]

PROBE = (32, 32, 3)  # an image on which arguments are tried where no shape is given


def _random_operations() -> Iterator[tuple[str, Callable[..., jax.Array]]]:
    """Yields what is in a pipeline's reach: the functions that begin with (image, key)."""
    for module in (geometry, colour, mixing, policies):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            first = tuple(inspect.signature(function).parameters)[:2]
            if function.__module__ == module.__name__ and first == ("image", "key"):
                yield name, function


OPERATIONS = dict(_random_operations())


def make_operation(
    name: str, arguments: Mapping[str, Any], image_shape: Sequence[int] = PROBE
) -> Operation:
    """Returns `operation(image, key)`, with its name and arguments checked.

    Args:
      name: a key of `OPERATIONS`.
      arguments: of that function.
      image_shape: [H, W, C] of the images to come; nothing is computed of them.

    Raises:
      ConfigError: for an unknown operation or argument, or a value that it does not accept.

    Example:
      >>> flip = make_operation("random_horizontal_flip", {"probability": 1.0})
      >>> flip(jnp.array([[[1], [2]]], jnp.uint8), jax.random.key(0)).ravel().tolist()
      [2, 1]
    """
    check_name("operation", name, tuple(OPERATIONS))
    function, arguments = OPERATIONS[name], dict(arguments)
    check_arguments(name, function, arguments, supplied=("image", "key"))

    def operation(image: jax.Array, key: jax.Array) -> jax.Array:
        return function(image, key, **arguments)

    image = jax.ShapeDtypeStruct(tuple(image_shape), jnp.uint8)
    result = _tried(name, arguments, lambda image: operation(image, jax.random.key(0)), image)
    if (result.shape, result.dtype) != (image.shape, image.dtype):
        raise ConfigError(
            f"{name}: makes {result.dtype} {list(result.shape)} of {image.dtype} "
            f"{list(image.shape)}; the network takes images of one size"
            + ("; leave size out" if "size" in arguments else "")
        )
    return operation


def _tried(name: str, arguments: Mapping[str, Any], function: Callable, *inputs: Any) -> Any:
    """Returns the shapes of a function's results; what it cannot work with is a ConfigError."""
    try:
        return jax.eval_shape(function, *inputs)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:  # JAX's, of a wrong type or shape
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ConfigError(f"{name}: cannot work with {dict(arguments)} ({reason})") from error


def example_keys(key: jax.Array, epochs: jax.Array, indices: jax.Array) -> jax.Array:
    """Returns one key per example [B] from the run's key, the epoch and the example."""
    return jax.vmap(lambda e, i: jax.random.fold_in(jax.random.fold_in(key, e), i))(epochs, indices)


def _fold(keys: jax.Array, number: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def make_augment(
    images: Sequence[tuple[str, Mapping[str, Any]]] = (),
    mix: Mapping[str, Any] | None = None,
    image_shape: Sequence[int] = PROBE,
) -> Augment:
    """Returns `augment(batch, key, targets) -> (images, targets)`, pure and jittable.

    Of a batch it takes "image", uint8 [B, H, W, C], "epoch" and "index", both [B], and for
    mixing "mask" [B]. An example's operations depend on nothing but itself, its epoch and the
    key; what it is mixed with also on which other examples are in the batch, not on their
    order. Targets are float [B, K] where there is mixing; otherwise they are handed on as
    they are. Without operations and mixing so are the images.

    Args:
      images: (name, arguments) of operations, in order; names are keys of `OPERATIONS`.
      mix: arguments of `mixing.mix`; none for no mixing.
      image_shape: [H, W, C] of the images to come, on which the arguments are tried.

    Raises:
      ConfigError: for an unknown operation or argument, or a value that it does not accept.

    Example:
      >>> augment = make_augment([("random_hue", {"amount": 0.05})], {"cutmix_alpha": 1.0})
      >>> batch = {"image": jnp.zeros((4, 32, 32, 3), jnp.uint8), "mask": jnp.ones(4)}
      >>> batch |= {"epoch": jnp.zeros(4, int), "index": jnp.arange(4)}
      >>> made = jax.eval_shape(augment, batch, jax.random.key(0), jnp.eye(4))
      >>> [result.shape for result in made]
      [(4, 32, 32, 3), (4, 4)]
    """
    try:
        operations = [make_operation(*_pair(entry), image_shape) for entry in images]
    except ConfigError as error:
        raise ConfigError(f"config.augment.images: {error}") from error
    mixing_arguments = _checked_mix(dict(mix or {}), image_shape)

    def augment(
        batch: Mapping[str, jax.Array], key: jax.Array, targets: Any
    ) -> tuple[jax.Array, Any]:
        pixels = batch["image"]
        if not operations and not mixing_arguments:
            return pixels, targets
        keys = example_keys(key, batch["epoch"], batch["index"])
        for number, operation in enumerate(operations, 1):  # 0 is for mixing
            pixels = jax.vmap(operation)(pixels, _fold(keys, number))
        if not mixing_arguments:
            return pixels, targets
        if targets.ndim != 2 or not jnp.issubdtype(targets.dtype, jnp.floating):
            raise ValueError(
                f"targets {targets.dtype} {list(targets.shape)} cannot be mixed; give float "
                "[B, K], such as one-hot labels"
            )
        return mixing.mix(pixels, targets, _fold(keys, 0), mask=batch["mask"], **mixing_arguments)

    return augment


def _pair(entry: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(entry, list | tuple) and len(entry) == 2 and hasattr(entry[1], "keys"):
        return entry[0], entry[1]
    raise ConfigError(
        f"{entry!r} is not a pair of a name and its arguments; write "
        "(('random_horizontal_flip', {}),), with the comma also where there is only one"
    )


def _checked_mix(arguments: dict[str, Any], image_shape: Sequence[int]) -> dict[str, Any]:
    """Returns the arguments of `mixing.mix`, tried on a batch of two."""
    if not arguments:
        return arguments
    name = "config.augment.mix"
    supplied = ("images", "targets", "keys", "mask")
    check_arguments(name, mixing.mix, arguments, supplied)
    _tried(
        name,
        arguments,
        lambda images, targets: mixing.mix(
            images, targets, jax.random.split(jax.random.key(0)), **arguments
        ),
        jax.ShapeDtypeStruct((2, *image_shape), jnp.uint8),
        jax.ShapeDtypeStruct((2, 2), jnp.float32),
    )
    if not any(arguments.get(alpha) for alpha in ("mixup_alpha", "cutmix_alpha")):
        raise ConfigError(
            f"{name}={arguments!r} mixes nothing; give mixup_alpha, cutmix_alpha or "
            "both, greater than 0, or {} for no mixing"
        )
    return arguments
