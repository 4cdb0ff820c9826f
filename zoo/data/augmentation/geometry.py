"""Flips, crops and warps of one image on the device.

Coordinates are Pillow's: x runs to the right, y down, and the pixel in column j covers
[j, j + 1), so its centre is at j + 0.5. A warp is given by the inverse map: it says for each
pixel of the result where in the image it comes from. What comes from outside is filled.
"""

from collections.abc import Callable, Sequence
import math

import jax
import jax.numpy as jnp

from zoo.data.augmentation.checks import check_name, check_number, check_range

Number = float | jax.Array
Fill = float | Sequence[float] | jax.Array  # a grey level from 0 to 255, or one per channel

INTERPOLATIONS = ("nearest", "bilinear")
RESIZES = ("bilinear", "bicubic")
SUBPIXELS = 2048  # of a bilinear weight: 255 * 2048**2 is the most that int32 holds
WEIGHT_STEPS = 2**15  # 255 * 1.3 * 2**15 < 2**24, so float32 sums of them are exact


def random_apply(
    function: Callable[..., jax.Array],
    image: jax.Array,
    key: jax.Array,
    probability: Number,
    *arguments: Number,
) -> jax.Array:
    """Returns `function(image, *arguments)` with a probability, else the image itself."""
    check_number("probability", probability, 0, 1)
    return jnp.where(jax.random.bernoulli(key, probability), function(image, *arguments), image)


def horizontal_flip(image: jax.Array) -> jax.Array:
    """Mirrors an image [H, W, C] left to right."""
    return image[:, ::-1]


def vertical_flip(image: jax.Array) -> jax.Array:
    """Mirrors an image [H, W, C] top to bottom."""
    return image[::-1]


def random_horizontal_flip(
    image: jax.Array, key: jax.Array, probability: Number = 0.5
) -> jax.Array:
    """Mirrors an image [H, W, C] left to right with a probability."""
    return random_apply(horizontal_flip, image, key, probability)


def random_vertical_flip(image: jax.Array, key: jax.Array, probability: Number = 0.5) -> jax.Array:
    """Mirrors an image [H, W, C] top to bottom with a probability."""
    return random_apply(vertical_flip, image, key, probability)


def filter_axis(image: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Returns uint8 sums of an image's rows (axis 0) or columns (axis 1), rounded.

    Weights become multiples of 2**-15. Then every product and sum is exact in float32, and
    the order in which a device adds makes no difference.

    Args:
      image: uint8 [H, W, C].
      weights: float32 [N, H] or [N, W]; each row's sum is 1, that of its absolute values
        at most 1.3.
      axis: 0 or 1; it has length N in the result.
    """
    weights = jnp.round(weights * WEIGHT_STEPS)
    pixels = jnp.moveaxis(image, axis, 0).astype(jnp.float32)
    sums = jnp.tensordot(weights, pixels, 1, precision=jax.lax.Precision.HIGHEST)
    rounded = jnp.clip(jnp.floor(sums / WEIGHT_STEPS + 0.5), 0, 255).astype(jnp.uint8)
    return jnp.moveaxis(rounded, 0, axis)


def _triangle(x: jax.Array) -> jax.Array:
    return jnp.maximum(0, 1 - jnp.abs(x))


def _cubic(x: jax.Array) -> jax.Array:
    """Keys 1981 with a = -0.5, as in Pillow."""
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


def _resize_weights(
    start: Number, length: Number, size_in: int, size_out: int, interpolation: str
) -> jax.Array:
    """Returns float32 [size_out, size_in]: how much of each pixel goes into the resized ones."""
    scale = jnp.asarray(length, jnp.float32) / size_out
    centres = start + (jnp.arange(size_out) + 0.5) * scale
    pixels = jnp.arange(size_in)
    distances = (pixels + 0.5 - centres[:, None]) / jnp.maximum(scale, 1)
    weights = {"bilinear": _triangle, "bicubic": _cubic}[interpolation](distances)
    weights = jnp.where((pixels >= start) & (pixels < start + length), weights, 0)
    return weights / weights.sum(1, keepdims=True)


def resized_crop(
    image: jax.Array,
    top: Number,
    left: Number,
    height: Number,
    width: Number,
    *,
    size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
) -> jax.Array:
    """Cuts a box out of an image and resizes it with antialiasing, as Pillow does.

    Args:
      image: uint8 [H, W, C].
      top: the box's first row.
      left: its first column.
      height: of the box, in pixels; at least 1.
      width: likewise.
      size: (height, width) of the result; None for the image's own.
      interpolation: one of `RESIZES`.

    Returns:
      uint8 [*size, C].

    Raises:
      ConfigError: for an interpolation that is not there.
    """
    check_name("interpolation", interpolation, RESIZES)
    rows, columns = size or image.shape[:2]
    across = _resize_weights(left, width, image.shape[1], columns, interpolation)
    down = _resize_weights(top, height, image.shape[0], rows, interpolation)
    return filter_axis(filter_axis(image, across, 1), down, 0)


def random_box(
    key: jax.Array,
    shape: Sequence[int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draws a box by its area and shape: the first of ten that fits into the image.

    Args:
      key: of the draw.
      shape: of the image, [H, W, ...].
      scale: smallest and largest area, as a part of the image's.
      ratio: smallest and largest width by height; their logarithm is uniform.

    Returns:
      int32 top, left, height, width, and whether any of the ten fitted.

    Raises:
      ConfigError: for ranges that are none.
    """
    check_range("scale", scale, 0, 1)
    check_range("ratio", ratio, 0)
    # One call of the generator; each takes long to compile.
    uniform = jax.random.uniform(key, (22,))
    areas = (scale[0] + uniform[:10] * (scale[1] - scale[0])) * shape[0] * shape[1]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = jnp.exp(low + uniform[10:20] * (high - low))
    widths = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
    fits = (widths > 0) & (widths <= shape[1]) & (heights > 0) & (heights <= shape[0])
    first = jnp.argmax(fits)
    height, width = heights[first], widths[first]
    free = jnp.maximum(jnp.stack([shape[0] - height, shape[1] - width]), 0)
    top, left = jnp.floor(uniform[20:] * (free + 1)).astype(jnp.int32)
    return top, left, height, width, fits[first]


def random_resized_crop(
    image: jax.Array,
    key: jax.Array,
    *,
    size: tuple[int, int] | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
) -> jax.Array:
    """Resizes a random part of an image (Szegedy et al. 2014, section 6), as torchvision does.

    Where none of ten boxes fits, the largest central box of an allowed shape is taken.

    Args:
      image: uint8 [H, W, C].
      key: of the draw.
      size: see `resized_crop`.
      scale: see `random_box`.
      ratio: likewise.
      interpolation: see `resized_crop`.

    Returns:
      uint8 [*size, C].

    Raises:
      ConfigError: for ranges that are none, or an unknown interpolation.
    """
    *box, found = random_box(key, image.shape, scale, ratio)
    height, width = image.shape[:2]
    central_width = min(width, round(height * ratio[1]))
    central_height = min(height, round(width / ratio[0]))
    central = (
        (height - central_height) // 2,
        (width - central_width) // 2,
        central_height,
        central_width,
    )
    box = [jnp.where(found, b, c) for b, c in zip(box, central, strict=True)]
    return resized_crop(image, *box, size=size, interpolation=interpolation)


def padding_crop(
    image: jax.Array, top: Number, left: Number, *, padding: int, fill: Fill = 0
) -> jax.Array:
    """Pads an image [H, W, C] on all sides and cuts it to its own size again.

    Args:
      image: uint8 [H, W, C].
      top: the first row that stays, from 0 to 2 `padding`; `padding` is the image itself.
      left: likewise, the first column.
      padding: in pixels.
      fill: what is padded.

    Raises:
      ConfigError: for a negative padding.
    """
    check_number("padding", padding, 0)
    height, width, channels = image.shape
    padded = jnp.broadcast_to(
        jnp.asarray(fill, image.dtype), (height + 2 * padding, width + 2 * padding, channels)
    )
    padded = padded.at[padding : padding + height, padding : padding + width].set(image)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def random_padding_crop(
    image: jax.Array, key: jax.Array, *, padding: int, fill: Fill = 0
) -> jax.Array:
    """Pads and cuts at a random place (He et al. 2015, section 4.2: 4 pixels for CIFAR)."""
    check_number("padding", padding, 0)
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return padding_crop(image, top, left, padding=padding, fill=fill)


def sample(
    image: jax.Array,
    x: jax.Array,
    y: jax.Array,
    *,
    interpolation: str = "nearest",
    fill: Fill = 0,
) -> jax.Array:
    """Looks up an image at any points, with Pillow's rules for edges and rounding.

    Bilinear values are cut off, not rounded, and weights are multiples of 1 / 2048, so a
    value may be one grey level away from Pillow's.

    Args:
      image: uint8 [H, W, C].
      x: float32 [...], from 0 to W.
      y: float32 [...], from 0 to H.
      interpolation: one of `INTERPOLATIONS`.
      fill: the value of points outside.

    Returns:
      uint8 [..., C].

    Raises:
      ConfigError: for an interpolation that is not there.
    """
    check_name("interpolation", interpolation, INTERPOLATIONS)
    height, width = image.shape[:2]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)

    def at(row: jax.Array, column: jax.Array) -> jax.Array:
        return image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]

    if interpolation == "nearest":
        pixels = at(jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32))
    else:
        column, right = _subpixels(x, width)
        row, lower = _subpixels(y, height)
        upper_row = _between(at(row, column), at(row, column + 1), right)
        lower_row = _between(at(row + 1, column), at(row + 1, column + 1), right)
        pixels = _between(upper_row, lower_row, lower) // SUBPIXELS**2
    fill = jnp.asarray(fill, image.dtype)
    return jnp.where(inside[..., None], pixels.astype(image.dtype), fill)


def _subpixels(position: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the pixel whose centre is at or before each point, and the rest in subpixels."""
    fixed = jnp.round(jnp.clip(position - 0.5, -1, size) * SUBPIXELS).astype(jnp.int32)
    return fixed // SUBPIXELS, fixed % SUBPIXELS


def _between(first: jax.Array, second: jax.Array, weight: jax.Array) -> jax.Array:
    weight = weight[..., None]
    return first.astype(jnp.int32) * (SUBPIXELS - weight) + second.astype(jnp.int32) * weight


def _centres(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns x and y [H, W] of the centres of an image's pixels."""
    height, width = image.shape[:2]
    y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    return x, y


def affine(
    image: jax.Array, matrix: jax.Array, *, interpolation: str = "nearest", fill: Fill = 0
) -> jax.Array:
    """Warps an image [H, W, C]: (x, y) comes from (a x + b y + c, d x + e y + f).

    Args:
      image: uint8 [H, W, C].
      matrix: float32 [6], a to f, as `Image.transform` of Pillow takes them.
      interpolation: see `sample`.
      fill: likewise.
    """
    x, y = _centres(image)
    a, b, c, d, e, f = matrix
    return sample(
        image, a * x + b * y + c, d * x + e * y + f, interpolation=interpolation, fill=fill
    )


def shift_matrix(x: Number, y: Number) -> jax.Array:
    """Returns the matrix [6] that moves an image by x pixels to the right and y down."""
    return _matrix(1, 0, -jnp.asarray(x), 0, 1, -jnp.asarray(y))


def shear_matrix(x: Number, y: Number) -> jax.Array:
    """Returns the matrix [6] of shearing about the upper left corner, as AutoAugment does.

    Args:
      x: how many pixels to the left a row moves per row downwards.
      y: how many pixels up a column moves per column to the right.
    """
    return _matrix(1, x, 0, y, 1, 0)


def zoom_matrix(x: Number, y: Number, shape: Sequence[int]) -> jax.Array:
    """Returns the matrix [6] that enlarges an image about its centre.

    Args:
      x: by how much it becomes wider; 1 leaves it, 2 doubles it.
      y: likewise, higher.
      shape: of the image, [H, W, ...].
    """
    a, e = 1 / jnp.asarray(x, jnp.float32), 1 / jnp.asarray(y, jnp.float32)
    return _matrix(a, 0, (1 - a) * shape[1] / 2, 0, e, (1 - e) * shape[0] / 2)


def rotation_matrix(degrees: Number, shape: Sequence[int]) -> jax.Array:
    """Returns the matrix [6] that turns an image of shape [H, W, ...] about its centre.

    Args:
      degrees: counterclockwise, as `Image.rotate` of Pillow counts them.
      shape: of the image.
    """
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = shape[1] / 2, shape[0] / 2
    return _matrix(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _matrix(*values: Number) -> jax.Array:
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in values])


def shift(
    image: jax.Array, x: Number, y: Number, *, interpolation: str = "nearest", fill: Fill = 0
) -> jax.Array:
    """Moves an image; see `shift_matrix` and `affine`."""
    return affine(image, shift_matrix(x, y), interpolation=interpolation, fill=fill)


def zoom(
    image: jax.Array, x: Number, y: Number, *, interpolation: str = "nearest", fill: Fill = 0
) -> jax.Array:
    """Enlarges or shrinks the content about the centre; see `zoom_matrix` and `affine`."""
    matrix = zoom_matrix(x, y, image.shape)
    return affine(image, matrix, interpolation=interpolation, fill=fill)


def rotate(
    image: jax.Array, degrees: Number, *, interpolation: str = "nearest", fill: Fill = 0
) -> jax.Array:
    """Turns an image about its centre; see `rotation_matrix` and `affine`."""
    matrix = rotation_matrix(degrees, image.shape)
    return affine(image, matrix, interpolation=interpolation, fill=fill)


def shear(
    image: jax.Array, x: Number, y: Number, *, interpolation: str = "nearest", fill: Fill = 0
) -> jax.Array:
    """Shears an image about its upper left corner; see `shear_matrix` and `affine`."""
    return affine(image, shear_matrix(x, y), interpolation=interpolation, fill=fill)


def random_shift(
    image: jax.Array,
    key: jax.Array,
    *,
    x: Number = 0.1,
    y: Number = 0.1,
    interpolation: str = "nearest",
    fill: Fill = 0,
) -> jax.Array:
    """Moves an image by up to the parts `x` of its width and `y` of its height."""
    across, down = jax.random.uniform(key, (2,), minval=-1.0)
    across, down = across * x * image.shape[1], down * y * image.shape[0]
    return shift(image, across, down, interpolation=interpolation, fill=fill)


def random_zoom(
    image: jax.Array,
    key: jax.Array,
    *,
    scale: tuple[float, float] = (0.8, 1.25),
    interpolation: str = "nearest",
    fill: Fill = 0,
) -> jax.Array:
    """Enlarges an image by a factor from `scale`, whose logarithm is uniform."""
    check_range("scale", scale, 0)
    low, high = math.log(scale[0]), math.log(scale[1])
    factor = jnp.exp(jax.random.uniform(key, minval=low, maxval=high))
    return zoom(image, factor, factor, interpolation=interpolation, fill=fill)


def random_rotation(
    image: jax.Array,
    key: jax.Array,
    *,
    degrees: Number = 15.0,
    interpolation: str = "nearest",
    fill: Fill = 0,
) -> jax.Array:
    """Turns an image by up to `degrees` either way."""
    angle = jax.random.uniform(key, minval=-1.0) * degrees
    return rotate(image, angle, interpolation=interpolation, fill=fill)


def random_shear(
    image: jax.Array,
    key: jax.Array,
    *,
    x: Number = 0.3,
    y: Number = 0.0,
    interpolation: str = "nearest",
    fill: Fill = 0,
) -> jax.Array:
    """Shears an image by up to `x` and `y` either way, see `shear_matrix`."""
    across, down = jax.random.uniform(key, (2,), minval=-1.0)
    return shear(image, across * x, down * y, interpolation=interpolation, fill=fill)


def _square_to(corners: jax.Array) -> jax.Array:
    """Returns the projective map [3, 3] of the unit square's corners, clockwise, onto [4, 2].

    Heckbert 1989, "Fundamentals of Texture Mapping and Image Warping", section 2.2.3.
    """
    p0, p1, p2, p3 = corners
    (x1, y1), (x2, y2), (xs, ys) = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    determinant = x1 * y2 - x2 * y1
    g = (xs * y2 - x2 * ys) / determinant
    h = (x1 * ys - xs * y1) / determinant
    columns = [p1 - p0 + g * p1, p3 - p0 + h * p3, p0]
    return jnp.concatenate([jnp.stack(columns, axis=1), jnp.stack([g, h, jnp.ones(())])[None]])


def perspective_coefficients(start: jax.Array, end: jax.Array) -> jax.Array:
    """Returns the coefficients [8] of the warp that moves four points of an image.

    Args:
      start: float [4, 2], (x, y) of four points, clockwise from the upper left.
      end: float [4, 2], where they go.
    """
    forward = _square_to(jnp.asarray(start, jnp.float32))
    u, v, w = _square_to(jnp.asarray(end, jnp.float32))
    # The adjugate, which is the inverse up to a factor.
    inverse = jnp.stack([jnp.cross(v, w), jnp.cross(w, u), jnp.cross(u, v)], axis=1)
    product = (forward[:, :, None] * inverse[None]).sum(1)  # in float32 on every device
    return (product / product[2, 2]).ravel()[:8]


def perspective(
    image: jax.Array, coefficients: jax.Array, *, interpolation: str = "nearest", fill: Fill = 0
) -> jax.Array:
    """Warps an image as a plane seen at an angle.

    Args:
      image: uint8 [H, W, C].
      coefficients: float32 [8], a to h: (x, y) comes from (a x + b y + c, d x + e y + f), both
        divided by g x + h y + 1; see `perspective_coefficients`.
      interpolation: see `sample`.
      fill: likewise.
    """
    x, y = _centres(image)
    a, b, c, d, e, f, g, h = coefficients
    depth = g * x + h * y + 1
    return sample(
        image,
        (a * x + b * y + c) / depth,
        (d * x + e * y + f) / depth,
        interpolation=interpolation,
        fill=fill,
    )


def random_perspective(
    image: jax.Array,
    key: jax.Array,
    *,
    distortion: float = 0.5,
    probability: Number = 0.5,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Moves each corner towards the centre by a random amount, as torchvision does.

    Args:
      image: uint8 [H, W, C].
      key: of the draw.
      distortion: the largest move, as a part of half the side; from 0 to 1.
      probability: of doing so at all.
      interpolation: see `sample`.
      fill: likewise.

    Raises:
      ConfigError: for a distortion or probability outside [0, 1].
    """
    check_number("distortion", distortion, 0, 1)
    apply_key, corner_key = jax.random.split(key)
    height, width = image.shape[:2]
    corners = jnp.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * jnp.array([width - 1, height - 1])
    inwards = jnp.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    most = jnp.array([int(distortion * (width // 2)), int(distortion * (height // 2))])
    moves = jax.random.randint(corner_key, (4, 2), 0, most + 1)
    coefficients = perspective_coefficients(corners, corners + inwards * moves)

    def warp(image: jax.Array) -> jax.Array:
        return perspective(image, coefficients, interpolation=interpolation, fill=fill)

    return random_apply(warp, image, apply_key, probability)
