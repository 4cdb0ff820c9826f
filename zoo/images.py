"""Images on their way into a network: decode, convert, fit to its size, normalise."""

from collections.abc import Sequence
import io
import os
from pathlib import Path
import stat
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from zoo.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")
MAX_PIXELS = 100_000_000  # a larger image is a decompression bomb or a mistake
MAX_BYTES = 2**29  # of a file: more than that many pixels need in any format
ORIENTATION = 0x0112  # EXIF's tag; 2 to 8 are mirrored and rotated

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FITS = ("squash", "crop", "pad")
CHANNEL_ORDERS = ("RGB", "BGR")


class Encoded(NamedTuple):
    """The content of an image file, not yet decoded, and what to call it in messages."""

    data: bytes
    name: str


def read_image(path: str | os.PathLike) -> Encoded:
    """Returns the content of an image file.

    Raises:
      DataError: for what is no file, is empty, or has more than `MAX_BYTES`.
    """
    name = os.fsdecode(path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a regular file")
        if not 0 < status.st_size <= MAX_BYTES:
            size = f"{status.st_size:,} bytes, over {MAX_BYTES:,}"
            raise DataError(size if status.st_size else "the file is empty")
        with open(path, "rb", buffering=0) as file:  # in one piece
            return Encoded(file.readall(), name)
    except (OSError, DataError) as error:
        raise DataError(f"{name}: cannot be decoded ({error})") from error


def decode(encoded: Encoded) -> Image.Image:
    """Returns an image in Pillow's mode L if it is grey, else RGB; see `decode_image`.

    Raises:
      DataError: for anything that is not one whole image of an allowed format.
    """
    try:
        with Image.open(io.BytesIO(encoded.data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width}x{image.height} is over {MAX_PIXELS:,} pixels")
            image.load()
            return _to_8_bit(_upright(image))
    except UnidentifiedImageError as error:  # whose own message is not the same twice
        known = ", ".join(FORMATS)
        raise DataError(f"{encoded.name}: cannot be decoded (is none of {known})") from error
    except Exception as error:  # Pillow's plugins raise nearly everything on damaged files
        raise DataError(f"{encoded.name}: cannot be decoded ({error})") from error


def decode_image(path: str | os.PathLike) -> np.ndarray:
    """Returns an image file as uint8 [H, W, 1] if it is grey, else [H, W, 3].

    The format is told by the content, not the name. EXIF rotation is applied, alpha is
    laid over white, CMYK and palettes become RGB, 16 bits are scaled to 8 (not clipped);
    of an animation the first frame counts.

    Raises:
      DataError: for anything that is not one whole image of an allowed format.
    """
    return to_array(decode(read_image(path)))


def _upright(image: Image.Image) -> Image.Image:
    try:
        if 2 <= image.getexif().get(ORIENTATION, 1) <= 8:
            return ImageOps.exif_transpose(image)
        return image
    except Exception:  # a malformed EXIF block says nothing about the pixels
        return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return to_mode(image, "L" if image.mode in ("1", "L") else "RGB")


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Returns an image in a mode of Pillow; unlike its `convert`, without copying what is."""
    return image if image.mode == mode else image.convert(mode)


def to_pillow(image: Any) -> Image.Image:
    """Returns a path, `Encoded`, a Pillow image or an array as an image of mode L or RGB.

    Raises:
      DataError: for a file that cannot be decoded.
      ValueError: for what is none of these.
    """
    if isinstance(image, Encoded):
        return decode(image)
    if isinstance(image, str | os.PathLike):
        return decode(read_image(image))
    if isinstance(image, Image.Image):
        return _to_8_bit(_upright(image))
    array = to_array(image)
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def to_array(image: Any) -> np.ndarray:
    """Returns a Pillow image or an array as uint8 [H, W, 1] if it is grey, else [H, W, 3].

    Raises:
      ValueError: if it is neither.
    """
    array = np.asarray(_to_8_bit(_upright(image)) if isinstance(image, Image.Image) else image)
    if array.ndim == 2:
        array = array[..., None]
    right = array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] in (1, 3)
    if not right or not array.size:
        raise ValueError(
            "wanted a path, a Pillow image, or an array uint8 [H, W], [H, W, 1] or [H, W, 3]; "
            f"got {type(image).__name__} {array.dtype} {list(array.shape)}"
        )
    return array


def resized_side(size: int, crop_fraction: float) -> int:
    """Returns the side that an image is resized to, of whose centre `size` pixels are kept."""
    return int(size / crop_fraction + 1e-3)  # 299 / (299 / 342) may be less than 342


def fit_image(
    image: np.ndarray | Image.Image,
    size: int,
    channels: int,
    fit: str = "crop",
    crop_fraction: float = 1.0,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Returns an image as uint8 [size, size, channels].

    Args:
      image: uint8 [H, W, 1 or 3], or what `decode` and `to_pillow` return.
      size: the side of the square wanted, in pixels.
      channels: 1 (luma) or 3.
      fit: "squash" stretches to a square of size / crop_fraction, rounded down, "crop"
        resizes the shorter side to that, and both take the centre; "pad" shrinks to fit if
        need be and centres on black. Squashing and cropping give torchvision's pixels.
      crop_fraction: the part of the resized side that is kept.
      interpolation: a key of `INTERPOLATIONS`; shrinking is antialiased.

    Raises:
      DataError: if the image is so narrow that "crop" would enlarge it beyond `MAX_PIXELS`.
    """
    pil = image if isinstance(image, Image.Image) else to_pillow(image)
    pil = to_mode(pil, "L" if channels == 1 else "RGB")
    resample = INTERPOLATIONS[interpolation]
    width, height = pil.size
    shorter = resized_side(size, crop_fraction)
    if fit == "squash":
        pil = _centre(_resize(pil, shorter, shorter, resample), size)
    elif fit == "crop":
        longer = int(shorter * max(width, height) / min(width, height))
        if shorter * longer > MAX_PIXELS:
            raise DataError(
                f"{width}x{height} would be resized to {shorter}x{longer}, over {MAX_PIXELS:,} "
                'pixels; use fit="squash" or "pad"'
            )
        size_resized = (shorter, longer) if width <= height else (longer, shorter)
        pil = _centre(_resize(pil, *size_resized, resample), size)
    else:
        scale = min(1.0, size / max(width, height))
        pil = _resize(pil, max(1, round(width * scale)), max(1, round(height * scale)), resample)
        pil = _centre(pil, size)
    return np.array(pil).reshape(size, size, channels)


def _resize(image: Image.Image, width: int, height: int, resample: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), resample)


def _centre(image: Image.Image, size: int) -> Image.Image:
    """Cuts or pads (with black) to the central square; halves are rounded to even numbers."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def normalise(
    images: Any, mean: Sequence[float], std: Sequence[float], channel_order: str = "RGB"
) -> Any:
    """Returns (images / 255 - mean) / std as float32 [..., C], of the same library's kind.

    Args:
      images: uint8 [..., C], RGB if they have three channels; of NumPy or JAX.
      mean: one value, or one per channel of the result, on the scale 0 to 1.
      std: likewise.
      channel_order: of the result; one of `CHANNEL_ORDERS`.
    """
    if channel_order == "BGR":
        images = images[..., ::-1]
    x = images.astype(np.float32) / np.float32(255)
    return (x - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def is_image_name(path: Path) -> bool:
    """Whether a file's name ends like an image's."""
    return path.suffix.lower() in EXTENSIONS
