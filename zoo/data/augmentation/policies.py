"""Policies: AutoAugment, RandAugment, TrivialAugment and AugMix, on one image on the device.

An operation here is a number, its place in `OPERATIONS`, and has one magnitude; both may be
traced. Under `vmap` a switch computes all of its branches. There are only five: the warps
share one look-up of pixels, and what works value by value shares one table of 256 entries.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from zoo.data.augmentation import colour, geometry
from zoo.data.augmentation.checks import check_count, check_name, check_number
from zoo.data.augmentation.geometry import Fill, Number
from zoo.data.augmentation.mixing import symmetric_beta
from zoo.errors import ConfigError

_WARPS = ("shear_x", "shear_y", "shift_x", "shift_y", "rotate")
_TABLES = (
    "brightness",
    "contrast",
    "posterise",
    "solarise",
    "solarise_add",
    "autocontrast",
    "equalise",
    "invert",
)
OPERATIONS = ("identity", *_WARPS, *_TABLES, "saturation", "sharpness")
_FAMILY = np.array([0] + [1] * len(_WARPS) + [2] * len(_TABLES) + [3, 4])
_SIGNED = np.array(
    [name in (*_WARPS, "brightness", "contrast", "saturation", "sharpness") for name in OPERATIONS]
)

# Cubuk et al. 2019, section 3; Mueller and Hutter 2021 have the same.
RAND_AUGMENT = tuple(name for name in OPERATIONS if name not in ("solarise_add", "invert"))
# Hendrycks et al. 2019, section 3: without those that ImageNet-C tests.
AUGMIX = (*_WARPS, "posterise", "solarise", "autocontrast", "equalise")


def apply_operation(
    image: jax.Array,
    operation: int | jax.Array,
    magnitude: Number,
    *,
    interpolation: str = "nearest",
    fill: Fill = 128,
) -> jax.Array:
    """Applies one operation, given by its number.

    Args:
      image: uint8 [H, W, C].
      operation: its place in `OPERATIONS`.
      magnitude: 0 changes nothing, but for "autocontrast", "equalise" and "invert", which
        have none. "shear_x", "shear_y": see `shear_matrix`; "shift_x", "shift_y": in pixels;
        "rotate": in degrees; "brightness", "contrast", "saturation", "sharpness": the factor
        less 1; "posterise": how many bits go; "solarise": 256 less the threshold;
        "solarise_add": in grey levels.
      interpolation: of the warps, see `sample`.
      fill: likewise.

    Returns:
      uint8 [H, W, C].

    Raises:
      ConfigError: for an interpolation that is not there.
    """
    check_name("interpolation", interpolation, geometry.INTERPOLATIONS)
    operation = jnp.asarray(operation)
    magnitude = jnp.asarray(magnitude, jnp.float32)

    def warp(image: jax.Array) -> jax.Array:
        matrix = _warp_matrix(image, operation, magnitude)
        return geometry.affine(image, matrix, interpolation=interpolation, fill=fill)

    families = (
        lambda image: image,
        warp,
        lambda image: colour.look_up(image, _table(image, operation, magnitude)),
        lambda image: colour.saturation(image, 1 + magnitude),
        lambda image: colour.sharpness(image, 1 + magnitude),
    )
    return jax.lax.switch(jnp.asarray(_FAMILY)[operation], families, image)


def _warp_matrix(image: jax.Array, operation: jax.Array, magnitude: jax.Array) -> jax.Array:
    matrices = {
        "shear_x": geometry.shear_matrix(magnitude, 0),
        "shear_y": geometry.shear_matrix(0, magnitude),
        "shift_x": geometry.shift_matrix(magnitude, 0),
        "shift_y": geometry.shift_matrix(0, magnitude),
        "rotate": geometry.rotation_matrix(magnitude, image.shape),
    }
    first = OPERATIONS.index(_WARPS[0])
    return jnp.stack([matrices[name] for name in _WARPS])[operation - first]


def _table(image: jax.Array, operation: jax.Array, magnitude: jax.Array) -> jax.Array:
    """Returns uint8 [256, C]: what becomes of each value. It is made by changing all values."""
    channels = image.shape[-1]
    ramp = jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8)[:, None, None], (256, 1, channels))
    changes = {
        "brightness": lambda: colour.brightness(ramp, 1 + magnitude),
        "contrast": lambda: colour.blend(colour.mean_luma(image), ramp, 1 + magnitude),
        "posterise": lambda: colour.posterise(ramp, 8 - jnp.round(magnitude)),
        "solarise": lambda: colour.solarise(ramp, 256 - magnitude),
        "solarise_add": lambda: colour.solarise_add(ramp, magnitude),
        "autocontrast": lambda: colour.stretch(ramp, image.min((0, 1)), image.max((0, 1))),
        "equalise": lambda: colour.equalise_table(image)[:, None],
        "invert": lambda: colour.invert(ramp),
    }
    first = OPERATIONS.index(_TABLES[0])
    return jax.lax.switch(operation - first, [changes[name] for name in _TABLES])[:, 0]


def largest_magnitudes(shape: Sequence[int], *, wide: bool = False) -> np.ndarray:
    """Returns the magnitude [len(OPERATIONS)] of each operation at full strength.

    Args:
      shape: of the image, [H, W, ...]: AutoAugment's shifts are parts of its sides.
      wide: the ranges of TrivialAugmentWide (Mueller and Hutter 2021), else those of
        AutoAugment (Cubuk et al. 2018).
    """
    factor = 0.99 if wide else 0.9
    largest = {
        "shear_x": 0.99 if wide else 0.3,
        "shear_y": 0.99 if wide else 0.3,
        "shift_x": 32.0 if wide else shape[1] * 150 / 331,
        "shift_y": 32.0 if wide else shape[0] * 150 / 331,
        "rotate": 135.0 if wide else 30.0,
        "brightness": factor,
        "contrast": factor,
        "saturation": factor,
        "sharpness": factor,
        "posterise": 6.0 if wide else 4.0,
        "solarise": 256.0,
        "solarise_add": 110.0,
    }
    return np.array([largest.get(name, 0.0) for name in OPERATIONS], np.float32)


def _numbers(operations: Sequence[str]) -> jax.Array:
    """Returns the places in `OPERATIONS` of some names."""
    if isinstance(operations, str) or not operations:
        raise ConfigError(
            f"operations={operations!r}: give a list of one or more of {', '.join(OPERATIONS)}"
        )
    for name in operations:
        check_name("operations", name, OPERATIONS)
    return jnp.array([OPERATIONS.index(name) for name in operations])


def _choose(uniform: jax.Array, choices: jax.Array) -> jax.Array:
    """Returns choices [...], all equally likely, by numbers [...] that are even in [0, 1)."""
    return choices[jnp.floor(uniform * len(choices)).astype(jnp.int32)]


def _signed(
    operations: jax.Array, strengths: Number, largest: np.ndarray, uniform: jax.Array
) -> jax.Array:
    """Returns operations' magnitudes; where one can go both ways, a number below 1/2 is a minus."""
    negative = (uniform < 0.5) & jnp.asarray(_SIGNED)[operations]
    return jnp.where(negative, -1, 1) * strengths * jnp.asarray(largest)[operations]


def apply_operations(
    image: jax.Array,
    operations: jax.Array,
    magnitudes: jax.Array,
    *,
    interpolation: str = "nearest",
    fill: Fill = 128,
) -> jax.Array:
    """Applies operations [N] one after the other; see `apply_operation`."""

    def step(image: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return apply_operation(image, *inputs, interpolation=interpolation, fill=fill), None

    return jax.lax.scan(step, image, (operations, magnitudes))[0]


def draw_rand_augment(
    key: jax.Array,
    shape: Sequence[int],
    *,
    num_ops: int = 2,
    magnitude: Number = 9.0,
    std: Number = 0.0,
    max_magnitude: float = 10.0,
    probability: Number = 1.0,
    operations: Sequence[str] = RAND_AUGMENT,
) -> tuple[jax.Array, jax.Array]:
    """Returns what `rand_augment` does to an image of a shape: operations and magnitudes [N]."""
    check_count("num_ops", num_ops)
    check_number("max_magnitude", max_magnitude, 1e-6)
    check_number("magnitude", magnitude, 0, max_magnitude)
    check_number("std", std, 0)
    check_number("probability", probability, 0, 1)
    # One call of the generator; each takes long to compile.
    which, noise, sign, apply = jax.random.uniform(key, (4, num_ops))
    drawn = jnp.where(apply < probability, _choose(which, _numbers(operations)), 0)
    normal = jax.scipy.special.ndtri(jnp.maximum(noise, 2.0**-24))
    strengths = jnp.clip(magnitude + std * normal, 0, max_magnitude) / max_magnitude
    return drawn, _signed(drawn, strengths, largest_magnitudes(shape), sign)


def rand_augment(
    image: jax.Array,
    key: jax.Array,
    *,
    num_ops: int = 2,
    magnitude: Number = 9.0,
    std: Number = 0.0,
    max_magnitude: float = 10.0,
    probability: Number = 1.0,
    operations: Sequence[str] = RAND_AUGMENT,
    interpolation: str = "nearest",
    fill: Fill = 128,
) -> jax.Array:
    """RandAugment (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719, section 3).

    Args:
      image: uint8 [H, W, C].
      key: of the draw.
      num_ops: how many operations follow each other; each is drawn on its own.
      magnitude: of all operations.
      std: each magnitude is drawn from a normal distribution with this deviation, and
        clipped to [0, max_magnitude]; timm's "mstd".
      max_magnitude: what stands for `largest_magnitudes`: 10 in the paper and in timm, 30 in
        torchvision.
      probability: of each operation; timm has 0.5.
      operations: names from `OPERATIONS`, all equally likely.
      interpolation: see `apply_operation`.
      fill: likewise.

    Returns:
      uint8 [H, W, C].

    Raises:
      ConfigError: for an unknown name or a number that is out of range.
    """
    drawn = draw_rand_augment(
        key,
        image.shape,
        num_ops=num_ops,
        magnitude=magnitude,
        std=std,
        max_magnitude=max_magnitude,
        probability=probability,
        operations=operations,
    )
    return apply_operations(image, *drawn, interpolation=interpolation, fill=fill)


def draw_trivial_augment_wide(
    key: jax.Array, shape: Sequence[int], *, operations: Sequence[str] = RAND_AUGMENT
) -> tuple[jax.Array, jax.Array]:
    """Returns what `trivial_augment_wide` does to an image: operation and magnitude, [1]."""
    which, level, sign = jax.random.uniform(key, (3, 1))
    drawn = _choose(which, _numbers(operations))
    strengths = _choose(level, jnp.arange(31) / 30)
    return drawn, _signed(drawn, strengths, largest_magnitudes(shape, wide=True), sign)


def trivial_augment_wide(
    image: jax.Array,
    key: jax.Array,
    *,
    operations: Sequence[str] = RAND_AUGMENT,
    interpolation: str = "nearest",
    fill: Fill = 128,
) -> jax.Array:
    """TrivialAugment (Mueller and Hutter 2021, https://arxiv.org/abs/2103.10158, section 3).

    One operation at one of 31 magnitudes, all equally likely, in the ranges called wide.

    Args:
      image: uint8 [H, W, C].
      key: of the draw.
      operations: names from `OPERATIONS`.
      interpolation: see `apply_operation`.
      fill: likewise.

    Returns:
      uint8 [H, W, C].

    Raises:
      ConfigError: for an unknown name.
    """
    drawn = draw_trivial_augment_wide(key, image.shape, operations=operations)
    return apply_operations(image, *drawn, interpolation=interpolation, fill=fill)


# Cubuk et al. 2018, https://arxiv.org/abs/1805.09501, appendix: 25 pairs of (operation,
# probability, magnitude from 0 to 9) for each dataset.
_AUTO_AUGMENT = {
    "imagenet": """
        posterise 0.4 8, rotate 0.6 9
        solarise 0.6 5, autocontrast 0.6 0
        equalise 0.8 0, equalise 0.6 0
        posterise 0.6 7, posterise 0.6 6
        equalise 0.4 0, solarise 0.2 4
        equalise 0.4 0, rotate 0.8 8
        solarise 0.6 3, equalise 0.6 0
        posterise 0.8 5, equalise 1 0
        rotate 0.2 3, solarise 0.6 8
        equalise 0.6 0, posterise 0.4 6
        rotate 0.8 8, saturation 0.4 0
        rotate 0.4 9, equalise 0.6 0
        equalise 0 0, equalise 0.8 0
        invert 0.6 0, equalise 1 0
        saturation 0.6 4, contrast 1 8
        rotate 0.8 8, saturation 1 2
        saturation 0.8 8, solarise 0.8 7
        sharpness 0.4 7, invert 0.6 0
        shear_x 0.6 5, equalise 1 0
        saturation 0.4 0, equalise 0.6 0
        equalise 0.4 0, solarise 0.2 4
        solarise 0.6 5, autocontrast 0.6 0
        invert 0.6 0, equalise 1 0
        saturation 0.6 4, contrast 1 8
        equalise 0.8 0, equalise 0.6 0
    """,
    "cifar10": """
        invert 0.1 0, contrast 0.2 6
        rotate 0.7 2, shift_x 0.3 9
        sharpness 0.8 1, sharpness 0.9 3
        shear_y 0.5 8, shift_y 0.7 9
        autocontrast 0.5 0, equalise 0.9 0
        shear_y 0.2 7, posterise 0.3 7
        saturation 0.4 3, brightness 0.6 7
        sharpness 0.3 9, brightness 0.7 9
        equalise 0.6 0, equalise 0.5 0
        contrast 0.6 7, sharpness 0.6 5
        saturation 0.7 7, shift_x 0.5 8
        equalise 0.3 0, autocontrast 0.4 0
        shift_y 0.4 3, sharpness 0.2 6
        brightness 0.9 6, saturation 0.2 8
        solarise 0.5 2, invert 0 0
        equalise 0.2 0, autocontrast 0.6 0
        equalise 0.2 0, equalise 0.6 0
        saturation 0.9 9, equalise 0.6 0
        autocontrast 0.8 0, solarise 0.2 8
        brightness 0.1 3, saturation 0.7 0
        solarise 0.4 5, autocontrast 0.9 0
        shift_y 0.9 9, shift_y 0.7 9
        autocontrast 0.9 0, solarise 0.8 3
        equalise 0.8 0, invert 0.1 0
        shift_y 0.7 9, autocontrast 0.9 0
    """,
    "svhn": """
        shear_x 0.9 4, invert 0.2 0
        shear_y 0.9 8, invert 0.7 0
        equalise 0.6 0, solarise 0.6 6
        invert 0.9 0, equalise 0.6 0
        equalise 0.6 0, rotate 0.9 3
        shear_x 0.9 4, autocontrast 0.8 0
        shear_y 0.9 8, invert 0.4 0
        shear_y 0.9 5, solarise 0.2 6
        invert 0.9 0, autocontrast 0.8 0
        equalise 0.6 0, rotate 0.9 3
        shear_x 0.9 4, solarise 0.3 3
        shear_y 0.8 8, invert 0.7 0
        equalise 0.9 0, shift_y 0.6 6
        invert 0.9 0, equalise 0.6 0
        contrast 0.3 3, rotate 0.8 4
        invert 0.8 0, shift_y 0 2
        shear_y 0.7 6, solarise 0.4 8
        invert 0.6 0, rotate 0.8 4
        shear_y 0.3 7, shift_x 0.9 3
        shear_x 0.1 6, invert 0.6 0
        solarise 0.7 2, shift_y 0.6 7
        shear_y 0.8 4, invert 0.8 0
        shear_x 0.7 9, shift_y 0.8 3
        shear_y 0.8 5, autocontrast 0.7 0
        shear_x 0.7 2, invert 0.1 0
    """,
}
AUTO_AUGMENT_POLICIES = tuple(_AUTO_AUGMENT)


def auto_augment_table(policy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns operations (places in `OPERATIONS`), probabilities and strengths, each [25, 2].

    Args:
      policy: one of `AUTO_AUGMENT_POLICIES`.

    Raises:
      ConfigError: if there is no such policy.
    """
    check_name("policy", policy, AUTO_AUGMENT_POLICIES)
    rows = [
        [operation.split() for operation in line.split(",")]
        for line in _AUTO_AUGMENT[policy].strip().splitlines()
    ]
    numbers = np.array([[OPERATIONS.index(name) for name, _, _ in row] for row in rows])
    probabilities = np.array([[float(p) for _, p, _ in row] for row in rows], np.float32)
    strengths = np.array([[int(level) / 9 for _, _, level in row] for row in rows], np.float32)
    return numbers, probabilities, strengths


def draw_auto_augment(
    key: jax.Array, shape: Sequence[int], *, policy: str = "imagenet"
) -> tuple[jax.Array, jax.Array]:
    """Returns what `auto_augment` does to an image of a shape: operations and magnitudes [2]."""
    table = auto_augment_table(policy)
    row, apply, sign = jax.random.uniform(key, (3, 2))
    row = _choose(row[0], jnp.arange(len(table[0])))
    operations, probabilities, strengths = (jnp.asarray(column)[row] for column in table)
    operations = jnp.where(apply < probabilities, operations, 0)
    return operations, _signed(operations, strengths, largest_magnitudes(shape), sign)


def auto_augment(
    image: jax.Array,
    key: jax.Array,
    *,
    policy: str = "imagenet",
    interpolation: str = "nearest",
    fill: Fill = 128,
) -> jax.Array:
    """AutoAugment (Cubuk et al. 2018, https://arxiv.org/abs/1805.09501, appendix).

    One of 25 pairs of operations, each of the two with its probability. As in torchvision,
    magnitude 9 is the largest, and factors go up or down with equal probability.

    Args:
      image: uint8 [H, W, C].
      key: of the draw.
      policy: one of `AUTO_AUGMENT_POLICIES`.
      interpolation: see `apply_operation`.
      fill: likewise.

    Returns:
      uint8 [H, W, C].

    Raises:
      ConfigError: if there is no such policy.
    """
    drawn = draw_auto_augment(key, image.shape, policy=policy)
    return apply_operations(image, *drawn, interpolation=interpolation, fill=fill)


def draw_aug_mix(
    key: jax.Array,
    shape: Sequence[int],
    *,
    severity: Number = 3.0,
    width: int = 3,
    depth: int = 3,
    operations: Sequence[str] = AUGMIX,
) -> tuple[jax.Array, jax.Array]:
    """Returns the chains of `aug_mix`: operations and magnitudes [width, depth]."""
    check_number("severity", severity, 0, 10)
    check_count("width", width)
    check_count("depth", depth)
    which, length, level, sign = jax.random.uniform(key, (4, width, depth))
    lengths = _choose(length[:, :1], jnp.arange(1, depth + 1))
    drawn = jnp.where(jnp.arange(depth) < lengths, _choose(which, _numbers(operations)), 0)
    return drawn, _signed(drawn, level * severity / 10, largest_magnitudes(shape), sign)


def aug_mix(
    image: jax.Array,
    key: jax.Array,
    *,
    severity: Number = 3.0,
    width: int = 3,
    depth: int = 3,
    alpha: float = 1.0,
    operations: Sequence[str] = AUGMIX,
    interpolation: str = "nearest",
    fill: Fill = 128,
) -> jax.Array:
    """AugMix (Hendrycks et al. 2019, https://arxiv.org/abs/1912.02781, algorithm 1).

    Chains of operations are averaged, and the average with the image. The paper's loss of
    Jensen and Shannon wants two such images: call this with two keys.

    Args:
      image: uint8 [H, W, C].
      key: of the draw.
      severity: the largest magnitude, from 0 to 10; each is drawn evenly up to there.
      width: how many chains.
      depth: the most operations in a chain; from 1 to `depth` are equally likely.
      alpha: of the Dirichlet and Beta distributions that the weights are drawn from.
      operations: names from `OPERATIONS`.
      interpolation: see `apply_operation`.
      fill: likewise.

    Returns:
      uint8 [H, W, C].

    Raises:
      ConfigError: for an unknown name or a number that is out of range.
    """
    check_number("alpha", alpha, 1e-3)
    weights_key, share_key, key = jax.random.split(key, 3)
    drawn = draw_aug_mix(
        key, image.shape, severity=severity, width=width, depth=depth, operations=operations
    )
    weights = jax.random.dirichlet(weights_key, jnp.full(width, alpha, jnp.float32))
    share = symmetric_beta(jax.random.uniform(share_key, (2,)), alpha)

    def add_chain(total: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        weight, *chain = inputs
        changed = apply_operations(image, *chain, interpolation=interpolation, fill=fill)
        return total + weight * changed, None

    pixels = image.astype(jnp.float32)
    average = jax.lax.scan(add_chain, jnp.zeros_like(pixels), (weights, *drawn))[0]
    mixed = (1 - share) * pixels + share * average
    return jnp.clip(jnp.round(mixed), 0, 255).astype(jnp.uint8)
