"""What takes information out of an image, and what mixes the images of a batch.

Mixing is keyed by example like everything else: who is mixed with whom follows from the
keys of the batch's examples, and how from the example's own key. The same examples in any
order, on any number of devices, give the same images. On several devices the partners'
pixels travel between them, as many as the batch has.
"""

import jax
import jax.numpy as jnp

from zoo.data.augmentation.checks import check_number
from zoo.data.augmentation.geometry import Fill, Number, random_apply, random_box


def _inside(
    shape: tuple[int, ...], top: Number, left: Number, height: Number, width: Number
) -> jax.Array:
    """Returns whether each pixel [H, W, 1] is inside a box."""
    rows, columns = jnp.arange(shape[0])[:, None, None], jnp.arange(shape[1])[None, :, None]
    return (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)


def cutout(image: jax.Array, y: Number, x: Number, size: Number, *, fill: Fill = 0) -> jax.Array:
    """Fills a square (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).

    Args:
      image: uint8 [H, W, C].
      y: row of the square's centre; the square may reach over the image's edge.
      x: likewise, its column.
      size: its side, in pixels.
      fill: what it is filled with.
    """
    inside = _inside(image.shape, y - size // 2, x - size // 2, size, size)
    return jnp.where(inside, jnp.asarray(fill, image.dtype), image)


def random_cutout(
    image: jax.Array,
    key: jax.Array,
    *,
    size: Number,
    probability: Number = 1.0,
    fill: Fill = 0,
) -> jax.Array:
    """Fills a square whose centre is any pixel, with a probability; see `cutout`."""
    check_number("size", size, 0)
    apply_key, place_key = jax.random.split(key)
    y, x = jax.random.randint(place_key, (2,), 0, jnp.array(image.shape[:2]))
    return random_apply(
        lambda image: cutout(image, y, x, size, fill=fill), image, apply_key, probability
    )


def erase(
    image: jax.Array,
    top: Number,
    left: Number,
    height: Number,
    width: Number,
    *,
    fill: Fill | jax.Array = 0,
) -> jax.Array:
    """Fills a box of an image uint8 [H, W, C] with grey levels, or an image's of its shape."""
    inside = _inside(image.shape, top, left, height, width)
    return jnp.where(inside, jnp.asarray(fill, image.dtype), image)


def random_erasing(
    image: jax.Array,
    key: jax.Array,
    *,
    probability: Number = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
    noise: bool = False,
    fill: Fill = 0,
) -> jax.Array:
    """Erases a random box (Zhong et al. 2017, https://arxiv.org/abs/1708.04896, section 3.2).

    Args:
      image: uint8 [H, W, C].
      key: of the draw.
      probability: of doing so at all.
      scale: see `random_box`; where none of its ten boxes fits, nothing is erased.
      ratio: likewise.
      noise: whether to fill with a random value for each pixel and channel.
      fill: what to fill with otherwise.

    Raises:
      ConfigError: for ranges that are none, or a probability outside [0, 1].
    """
    apply_key, box_key, noise_key = jax.random.split(key, 3)
    top, left, height, width, found = random_box(box_key, image.shape, scale, ratio)
    height = jnp.where(found, height, 0)
    if noise:
        fill = jax.random.bits(noise_key, image.shape, jnp.uint8)
    return random_apply(
        lambda image: erase(image, top, left, height, width, fill=fill),
        image,
        apply_key,
        probability,
    )


def partners(keys: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Returns for each example of a batch the row [B] of the one that it is mixed with.

    Its partner has the next larger key, and the smallest is the largest one's. Every example
    is the partner of exactly one, and as the keys are new in each epoch, so are the pairs.

    Args:
      keys: one key per example, [B], from `example_keys`.
      mask: [B], 0 for rows that do not count, which are their own partners.
    """
    words = jax.random.key_data(keys).T
    valid = jnp.ones(keys.shape, bool) if mask is None else mask > 0
    order = jnp.lexsort((*words, ~valid))
    place = jnp.arange(len(order))
    last = place == jnp.sum(valid) - 1
    following = order[jnp.where(last, 0, (place + 1) % len(order))]
    following = jnp.where(valid[order], following, order)
    return jnp.zeros_like(order).at[order].set(following)


def symmetric_beta(uniform: jax.Array, alpha: Number) -> jax.Array:
    """Returns numbers [...] that are distributed as Beta(alpha, alpha); for 0 they are 1.

    In closed form, by Student's t with 2 alpha degrees of freedom (Bailey 1994, "Polar
    generation of random variates with the t-distribution"). In steps of 1 / 4096: what
    devices compute differently in the last bits becomes one, and sums of uint8 are exact.

    Args:
      uniform: [2, ...], even in [0, 1).
      alpha: 0 or more; it broadcasts.
    """
    radius, turn = uniform
    logarithm = jnp.log(jnp.maximum(radius, 2.0**-24))
    side = jnp.cos(2 * jnp.pi * turn)
    square = jnp.expm1(-logarithm / jnp.maximum(alpha, 1e-3)) * side**2
    drawn = 0.5 + 0.5 * jnp.sign(side) * jnp.sqrt(1 / (1 + 1 / square))
    return jnp.where(alpha > 0, jnp.round(drawn * 4096) / 4096, 1.0)


def _blend_batch(images: jax.Array, others: jax.Array, share: jax.Array) -> jax.Array:
    share = share.reshape(-1, *[1] * (images.ndim - 1))
    mixed = share * images.astype(jnp.float32) + (1 - share) * others.astype(jnp.float32)
    if jnp.issubdtype(images.dtype, jnp.integer):
        mixed = jnp.round(mixed)
    return mixed.astype(images.dtype)


def _paste(
    images: jax.Array, others: jax.Array, share: jax.Array, places: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pastes boxes of about 1 - share of the area; returns images and the shares that stay.

    Args:
      images: [B, H, W, C].
      others: [B, H, W, C], what is pasted.
      share: [B].
      places: [2, B], the boxes' centres as parts of height and width.
    """
    height, width = images.shape[1:3]

    def box(share: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        y, x = jnp.floor(y * height), jnp.floor(x * width)
        side = jnp.sqrt(1 - share)
        rows, columns = jnp.floor(side * height), jnp.floor(side * width)
        return _inside(images.shape[1:], y - rows // 2, x - columns // 2, rows, columns)

    inside = jax.vmap(box)(share, *places)
    stays = 1 - inside.sum((1, 2, 3)) / (height * width)
    return jnp.where(inside, others, images), stays


def mixup(
    images: jax.Array,
    targets: jax.Array,
    keys: jax.Array,
    *,
    alpha: float = 0.2,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Averages each image with another (Zhang et al. 2017, https://arxiv.org/abs/1710.09412).

    The paper's code draws one share for the whole batch; here each example has its own.

    Args:
      images: uint8 or float [B, H, W, C].
      targets: float [B, K], such as one-hot labels, smoothed or not.
      keys: one per example, [B], from `example_keys`.
      alpha: the shares are drawn from Beta(alpha, alpha); 0 mixes nothing.
      mask: see `partners`.

    Returns:
      images of the same kind and targets [B, K].

    Raises:
      ConfigError: for a negative alpha.
    """
    return mix(images, targets, keys, mixup_alpha=alpha, mask=mask)


def cutmix(
    images: jax.Array,
    targets: jax.Array,
    keys: jax.Array,
    *,
    alpha: float = 1.0,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Pastes a box of another image (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    Targets are mixed by the pixels that the box really has; see `mixup` for the arguments.
    """
    return mix(images, targets, keys, cutmix_alpha=alpha, mask=mask)


def mix(
    images: jax.Array,
    targets: jax.Array,
    keys: jax.Array,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    probability: Number = 1.0,
    cutmix_probability: Number = 0.5,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Applies `mixup` or `cutmix` to each example; where an alpha is 0, only the other one.

    Args:
      images: uint8 or float [B, H, W, C].
      targets: float [B, K].
      keys: one per example, [B].
      mixup_alpha: see `mixup`; 0.8 beside CutMix in DeiT (Touvron et al. 2020,
        https://arxiv.org/abs/2012.12877, table 9).
      cutmix_alpha: see `cutmix`; 1.0 there.
      probability: that an example is mixed at all.
      cutmix_probability: that it is pasted rather than averaged, where both are possible.
      mask: see `partners`.

    Returns:
      images of the same kind and targets [B, K].

    Raises:
      ConfigError: for a negative alpha or a probability outside [0, 1].
    """
    check_number("mixup_alpha", mixup_alpha, 0)
    check_number("cutmix_alpha", cutmix_alpha, 0)
    check_number("probability", probability, 0, 1)
    check_number("cutmix_probability", cutmix_probability, 0, 1)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (6,)))(keys).T
    apply, choice = uniform[:2]
    partner = partners(keys, mask)
    others = images[partner]
    rate = cutmix_probability if mixup_alpha and cutmix_alpha else float(cutmix_alpha > 0)
    pastes = choice < rate
    share = symmetric_beta(uniform[2:4], jnp.where(pastes, cutmix_alpha, mixup_alpha))
    share = jnp.where(apply < probability, share, 1)
    pasted, pasted_share = _paste(images, others, share, uniform[4:])
    averaged = _blend_batch(images, others, share)
    mixed = jnp.where(pastes[:, None, None, None], pasted, averaged)
    share = jnp.where(pastes, pasted_share, share)[:, None]
    return mixed, share * targets + (1 - share) * targets[partner]
