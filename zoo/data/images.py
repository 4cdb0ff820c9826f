"""Image files and arrays on the host: decode, convert, fit to the network's size."""

import os
from pathlib import Path
import stat

import numpy as np
from PIL import Image, ImageOps

from zoo.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")
MAX_PIXELS = 100_000_000  # a larger image is a decompression bomb or a mistake

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FITS = ("squash", "crop", "pad")


def decode_image(path: str | os.PathLike) -> np.ndarray:
    """Returns an image file as uint8 [H, W, 1] if it is grey, else [H, W, 3].

    The format is told by the content, not the name. EXIF rotation is applied, alpha is
    laid over white, CMYK and palettes become RGB, 16 bits are scaled to 8 (not clipped);
    of an animation the first frame counts.

    Raises:
      DataError: for anything that is not one whole image of an allowed format.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a regular file")
        if status.st_size == 0:
            raise DataError("the file is empty")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width}x{image.height} is over {MAX_PIXELS:,} pixels")
            image.load()
            pixels = np.array(_to_8_bit(_upright(image)))
            return pixels.reshape(*pixels.shape[:2], -1)
    except Exception as error:  # Pillow's plugins raise nearly everything on damaged files
        raise DataError(f"{os.fsdecode(path)}: cannot be decoded ({error})") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a malformed EXIF block says nothing about the pixels
        return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def fit_image(
    image: np.ndarray,
    size: int,
    channels: int,
    fit: str = "crop",
    crop_fraction: float = 1.0,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Returns an image as uint8 [size, size, channels].

    Args:
      image: uint8 [H, W, 1 or 3].
      size: the side of the square wanted, in pixels.
      channels: 1 (luma) or 3.
      fit: "squash" stretches to the square; "crop" resizes the shorter side to
        size / crop_fraction and takes the centre; "pad" shrinks to fit if need be and
        centres on black.
      crop_fraction: the part of the resized shorter side that "crop" keeps.
      interpolation: a key of `INTERPOLATIONS`; shrinking is antialiased.
    """
    pil = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    pil = pil.convert("L" if channels == 1 else "RGB")
    resample = INTERPOLATIONS[interpolation]
    width, height = pil.size
    if fit == "squash":
        pil = _resize(pil, size, size, resample)
    elif fit == "crop":
        scale = round(size / crop_fraction) / min(width, height)
        pil = _resize(pil, round(width * scale), round(height * scale), resample)
        pil = _centre(pil, size)
    else:
        scale = min(1.0, size / max(width, height))
        pil = _resize(pil, max(1, round(width * scale)), max(1, round(height * scale)), resample)
        pil = _centre(pil, size)
    return np.array(pil).reshape(size, size, channels)


def _resize(image: Image.Image, width: int, height: int, resample: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), resample)


def _centre(image: Image.Image, size: int) -> Image.Image:
    """Cuts or pads (with black) to the central square."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def is_image_name(path: Path) -> bool:
    """Whether a file's name ends like an image's."""
    return path.suffix.lower() in EXTENSIONS
