"""Colours, sharpness and grey levels of one image on the device.

The operations that Pillow has are Pillow's (ImageEnhance, ImageOps): its luma, its way of
cutting off fractions, its edges.
"""

import jax
import jax.numpy as jnp

from zoo.data.augmentation.checks import check_number, check_range
from zoo.data.augmentation.geometry import Number, filter_axis, random_apply


def luma(image: jax.Array) -> jax.Array:
    """Returns the brightness of an image [H, W, C] as uint8 [H, W, 1] (ITU-R BT.601-2)."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.split(image.astype(jnp.int32), 3, axis=-1)
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).astype(jnp.uint8)


def blend(first: Number, second: jax.Array, factor: Number) -> jax.Array:
    """Returns first + factor (second - first) as uint8, cut off to a whole number.

    In whole numbers, so that all devices agree: the factor becomes a multiple of 2**-16, and
    what lacks less than 1 / 256 to the next grey level is that level. Pillow multiplies in
    float32, where 1.6 times 5 may be less than 8: it may differ by one level.

    Args:
      first: whole numbers from 0 to 255 that broadcast with `second`; the result for 0.
      second: uint8 [H, W, C]; the result for factor 1.
      factor: from -100 to 100; what leaves [0, 255] is clipped.
    """
    factor = jnp.clip(jnp.asarray(factor, jnp.float32), -100, 100)
    steps = jnp.round(factor * 2**16).astype(jnp.int32)
    first = jnp.asarray(first).astype(jnp.int32)
    mixed = first * 2**16 + steps * (second.astype(jnp.int32) - first)
    return jnp.clip((mixed + 2**8) >> 16, 0, 255).astype(jnp.uint8)


def brightness(image: jax.Array, factor: Number) -> jax.Array:
    """Makes an image [H, W, C] `factor` times as bright; 0 is black, 1 leaves it."""
    return blend(0, image, factor)


def mean_luma(image: jax.Array) -> jax.Array:
    """Returns the mean brightness of an image [H, W, C], rounded, as int32 []."""
    pixels = luma(image)
    return ((2 * jnp.sum(pixels, dtype=jnp.uint32) + pixels.size) // (2 * pixels.size)).astype(
        jnp.int32
    )


def contrast(image: jax.Array, factor: Number) -> jax.Array:
    """Moves an image [H, W, C] away from its mean brightness; 0 is grey, 1 leaves it."""
    return blend(mean_luma(image), image, factor)


def saturation(image: jax.Array, factor: Number) -> jax.Array:
    """Makes an image [H, W, C] more colourful; 0 is grey, 1 leaves it (Pillow's Color)."""
    return blend(luma(image), image, factor)


def grayscale(image: jax.Array) -> jax.Array:
    """Takes the colours out of an image [H, W, C], which keeps its channels."""
    return jnp.broadcast_to(luma(image), image.shape)


def hue(image: jax.Array, turn: Number) -> jax.Array:
    """Turns the circle of hues by a part of it; 0 and 1 leave an image [H, W, C]."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.moveaxis(image.astype(jnp.float32), -1, 0)
    most = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = most - jnp.minimum(jnp.minimum(red, green), blue)
    sixths = jnp.where(
        most == red,
        green - blue,
        jnp.where(most == green, 2 * chroma + blue - red, 4 * chroma + red - green),
    )
    sixths = sixths / jnp.maximum(chroma, 1) + 6 * turn
    position = (jnp.array([5.0, 3.0, 1.0]) + sixths[..., None]) % 6
    part = jnp.clip(jnp.minimum(position, 4 - position), 0, 1)
    return jnp.round(most[..., None] - chroma[..., None] * part).astype(jnp.uint8)


def gaussian_blur(image: jax.Array, sigma: Number, *, kernel_size: int) -> jax.Array:
    """Blurs an image [H, W, C]; edges are reflected, without the outermost pixel.

    Args:
      image: uint8 [H, W, C].
      sigma: of the Gaussian, in pixels; 0 leaves the image.
      kernel_size: how many pixels are averaged on each axis; odd, less than twice the side.

    Raises:
      ConfigError: for a size below 1.
    """
    check_number("kernel_size", kernel_size, 1)
    radius = kernel_size // 2
    for axis in (1, 0):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        size = image.shape[axis]
        distances = jnp.arange(size + 2 * radius) - radius - jnp.arange(size)[:, None]
        scaled = distances / jnp.maximum(sigma, 1e-3)
        weights = jnp.where(jnp.abs(distances) <= radius, jnp.exp(-0.5 * scaled**2), 0)
        weights /= weights.sum(1, keepdims=True)
        image = filter_axis(jnp.pad(image, pad, mode="reflect"), weights, axis)
    return image


def smooth(image: jax.Array) -> jax.Array:
    """Returns an image [H, W, C] averaged with its neighbours: Pillow's filter SMOOTH.

    A pixel counts five times and each of its eight neighbours once. The outermost pixels
    stay as they are.
    """
    height, width = image.shape[:2]
    if min(height, width) < 3:
        return image
    pixels = image.astype(jnp.int32)
    total = 4 * pixels[1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            total += pixels[row : row + height - 2, column : column + width - 2]
    return image.at[1:-1, 1:-1].set(((2 * total + 13) // 26).astype(jnp.uint8))


def sharpness(image: jax.Array, factor: Number) -> jax.Array:
    """Sharpens an image [H, W, C] if the factor is over 1, blurs it below; 1 leaves it."""
    return blend(smooth(image), image, factor)


def invert(image: jax.Array) -> jax.Array:
    """Returns the negative of an image [H, W, C]."""
    return 255 - image


def solarise(image: jax.Array, threshold: Number) -> jax.Array:
    """Inverts the pixels of an image [H, W, C] that are at or over a threshold; 256: none."""
    return jnp.where(image.astype(jnp.int32) < threshold, image, 255 - image)


def solarise_add(image: jax.Array, amount: Number, threshold: Number = 128) -> jax.Array:
    """Adds an amount, in whole grey levels, to the pixels below a threshold, up to 255."""
    pixels = image.astype(jnp.int32)
    added = jnp.clip(pixels + jnp.asarray(amount).astype(jnp.int32), 0, 255).astype(jnp.uint8)
    return jnp.where(pixels < threshold, added, image)


def posterise(image: jax.Array, bits: Number) -> jax.Array:
    """Keeps the highest bits of each value of an image [H, W, C], from 0 to 8 of them."""
    removed = 8 - jnp.clip(jnp.asarray(bits), 0, 8).astype(jnp.int32)
    return ((image.astype(jnp.int32) >> removed) << removed).astype(jnp.uint8)


def stretch(image: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Maps [low, high] onto [0, 255]; both are uint8 [C]. Where they are one, nothing changes."""
    low, high = low.astype(jnp.int32), high.astype(jnp.int32)
    scaled = (image.astype(jnp.int32) - low) * 255 // jnp.maximum(high - low, 1)
    return jnp.where(high > low, jnp.clip(scaled, 0, 255), image).astype(jnp.uint8)


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches each channel of an image [H, W, C] to the whole range from 0 to 255."""
    return stretch(image, image.min((0, 1)), image.max((0, 1)))


def equalise_table(image: jax.Array) -> jax.Array:
    """Returns the uint8 [256, C] that `equalise` looks values up in."""
    pixels = image.reshape(-1, image.shape[-1])
    counts = jax.vmap(lambda channel: jnp.bincount(channel, length=256), 1, 1)(pixels)
    below = jnp.cumsum(counts, 0) - counts
    # The largest value's own pixels do not count: it is mapped to 255 anyway.
    largest = jnp.take_along_axis(counts, pixels.max(0)[None].astype(jnp.int32), 0)
    step = (len(pixels) - largest) // 255
    table = jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, table, jnp.arange(256)[:, None]).astype(jnp.uint8)


def look_up(image: jax.Array, table: jax.Array) -> jax.Array:
    """Returns table[value] for each value of an image [H, W, C], by a table uint8 [256, C]."""
    return table[image, jnp.arange(image.shape[-1])]


def equalise(image: jax.Array) -> jax.Array:
    """Spreads the values of each channel of an image [H, W, C] evenly over 0 to 255."""
    return look_up(image, equalise_table(image))


def random_factor(key: jax.Array, amount: Number) -> jax.Array:
    """Draws from [max(0, 1 - amount), 1 + amount]."""
    check_number("amount", amount, 0)
    return jax.random.uniform(key, minval=jnp.maximum(0.0, 1.0 - amount), maxval=1.0 + amount)


def random_brightness(image: jax.Array, key: jax.Array, amount: Number = 0.4) -> jax.Array:
    """Changes the brightness by a factor up to `amount` away from 1."""
    return brightness(image, random_factor(key, amount))


def random_contrast(image: jax.Array, key: jax.Array, amount: Number = 0.4) -> jax.Array:
    """Changes the contrast by a factor up to `amount` away from 1."""
    return contrast(image, random_factor(key, amount))


def random_saturation(image: jax.Array, key: jax.Array, amount: Number = 0.4) -> jax.Array:
    """Changes the saturation by a factor up to `amount` away from 1."""
    return saturation(image, random_factor(key, amount))


def random_hue(image: jax.Array, key: jax.Array, amount: Number = 0.1) -> jax.Array:
    """Turns the hues by up to `amount` of the circle, 0 to 0.5, either way."""
    check_number("amount", amount, 0, 0.5)
    return hue(image, jax.random.uniform(key, minval=-1.0) * amount)


def colour_jitter(
    image: jax.Array,
    key: jax.Array,
    *,
    brightness: Number = 0.0,
    contrast: Number = 0.0,
    saturation: Number = 0.0,
    hue: Number = 0.0,
) -> jax.Array:
    """Changes brightness, contrast, saturation and hue in random order, as torchvision does.

    Args:
      image: uint8 [H, W, C].
      key: of the draw.
      brightness: see `random_brightness`.
      contrast: see `random_contrast`.
      saturation: see `random_saturation`.
      hue: see `random_hue`.
    """
    check_number("hue", hue, 0, 0.5)
    changes = [
        lambda image, key: random_brightness(image, key, brightness),
        lambda image, key: random_contrast(image, key, contrast),
        lambda image, key: random_saturation(image, key, saturation),
        lambda image, key: random_hue(image, key, hue),
    ]
    order_key, key = jax.random.split(key)
    order = jax.random.permutation(order_key, 4)

    def change(image: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        return jax.lax.switch(index, changes, image, jax.random.fold_in(key, index)), None

    return jax.lax.scan(change, image, order)[0]


def random_gaussian_blur(
    image: jax.Array,
    key: jax.Array,
    *,
    kernel_size: int,
    sigma: tuple[float, float] = (0.1, 2.0),
    probability: Number = 0.5,
) -> jax.Array:
    """Blurs with a sigma drawn from a range, with a probability; see `gaussian_blur`."""
    check_range("sigma", sigma, 0)
    apply_key, sigma_key = jax.random.split(key)
    drawn = jax.random.uniform(sigma_key, minval=sigma[0], maxval=sigma[1])

    def blur(image: jax.Array) -> jax.Array:
        return gaussian_blur(image, drawn, kernel_size=kernel_size)

    return random_apply(blur, image, apply_key, probability)


def random_sharpness(
    image: jax.Array, key: jax.Array, factor: Number = 2.0, probability: Number = 0.5
) -> jax.Array:
    """Sharpens by a factor, with a probability; see `sharpness`."""
    return random_apply(sharpness, image, key, probability, factor)


def random_solarise(
    image: jax.Array, key: jax.Array, threshold: Number = 128, probability: Number = 0.5
) -> jax.Array:
    """Solarises at a threshold, with a probability; see `solarise`."""
    return random_apply(solarise, image, key, probability, threshold)


def random_solarise_add(
    image: jax.Array, key: jax.Array, amount: Number = 110, probability: Number = 0.5
) -> jax.Array:
    """Adds up to `amount` to dark pixels, with a probability; see `solarise_add`."""
    apply_key, amount_key = jax.random.split(key)
    drawn = jax.random.uniform(amount_key) * amount
    return random_apply(solarise_add, image, apply_key, probability, drawn)


def random_posterise(
    image: jax.Array, key: jax.Array, bits: Number = 4, probability: Number = 0.5
) -> jax.Array:
    """Keeps `bits` bits, with a probability; see `posterise`."""
    return random_apply(posterise, image, key, probability, bits)


def random_grayscale(image: jax.Array, key: jax.Array, probability: Number = 0.1) -> jax.Array:
    """Takes the colours out of an image [H, W, C] with a probability; see `grayscale`."""
    return random_apply(grayscale, image, key, probability)


def random_invert(image: jax.Array, key: jax.Array, probability: Number = 0.5) -> jax.Array:
    """Inverts an image [H, W, C] with a probability; see `invert`."""
    return random_apply(invert, image, key, probability)


def random_autocontrast(image: jax.Array, key: jax.Array, probability: Number = 0.5) -> jax.Array:
    """Stretches the channels of an image [H, W, C] with a probability; see `autocontrast`."""
    return random_apply(autocontrast, image, key, probability)


def random_equalise(image: jax.Array, key: jax.Array, probability: Number = 0.5) -> jax.Array:
    """Equalises the channels of an image [H, W, C] with a probability; see `equalise`."""
    return random_apply(equalise, image, key, probability)
