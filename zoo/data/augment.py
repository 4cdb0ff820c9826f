"""What happens to images on the device, inside the step: augmentation, normalisation.

Every random choice is keyed by (seed, epoch, example), so an example looks the same in
the same epoch whatever the number of devices and hosts, and after any restart.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def random_shift(image: jax.Array, key: jax.Array, pixels: int) -> jax.Array:
    """Moves an image [H, W, C] by up to `pixels` in each direction; zeros come in."""
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def random_flip(image: jax.Array, key: jax.Array) -> jax.Array:
    """Mirrors an image [H, W, C] left to right with probability one half."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def augment(images: jax.Array, keys: jax.Array, *, shift: int, flip: bool) -> jax.Array:
    """Augments images [B, H, W, C] of any dtype, each by its own key [B]."""

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        shift_key, flip_key = jax.random.split(key)
        if shift:
            image = random_shift(image, shift_key, shift)
        return random_flip(image, flip_key) if flip else image

    return jax.vmap(one)(images, keys)


def example_keys(key: jax.Array, epochs: jax.Array, indices: jax.Array) -> jax.Array:
    """Returns one key per example [B] from the run's key, the epoch and the example."""
    return jax.vmap(lambda e, i: jax.random.fold_in(jax.random.fold_in(key, e), i))(epochs, indices)


def make_prepare(
    normalise: Callable[[jax.Array], jax.Array], *, shift: int, flip: bool
) -> Callable[..., jax.Array]:
    """Returns `prepare(batch, key=None)`: the network's float32 input of a batch.

    With a key the images are augmented first; without, never.

    Args:
      normalise: makes float32 of uint8 [B, H, W, C].
      shift: see `random_shift`.
      flip: whether to, see `random_flip`.
    """

    def prepare(batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        images = batch["image"]
        if key is not None and (shift or flip):
            keys = example_keys(key, batch["epoch"], batch["index"])
            images = augment(images, keys, shift=shift, flip=flip)
        return normalise(images)

    return prepare
