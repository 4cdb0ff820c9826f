"""A part of a JPEG, decoded without most of what lies outside of it.

Of what makes it cheap the first two change no pixel:

* rows below the part are not decoded: the header is told a smaller height, and the decoder
  stops there by itself. What lies above has to be read, as the code has variable length;
* where `simplejpeg` is installed it decodes. It is the same library, libjpeg-turbo, as
  Pillow's, with the same results bit by bit, without Pillow's fourth byte per pixel;
* a part that is to be made smaller by two or more anyhow is decoded at 1/2, 1/4 or 1/8 of its
  size, if that is asked for: the transform of a block then yields fewer pixels, each about the mean
  of those that it stands for. Shrunk further to the size wanted they differ from the same shrunk
  from the whole by 0.9 grey levels of 255 on average for photographs, in 99 of 100 numbers by 9
  at most; where there is much grain by 2.5 and 14;
* the transform and the colours, stored at half the size, can be approximated, if that is asked
  for: with `zoo.data.resize`'s vector instructions 1.0 grey levels on average, 5 at most in 99 of
  100 numbers, for crops of photographs to 224 pixels.
"""

from collections.abc import Callable
import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from zoo.errors import DataError
from zoo.images import MAX_PIXELS, ORIENTATION, Encoded, decode

try:
    from simplejpeg import decode_jpeg
except ImportError:  # an optional one, see above
    decode_jpeg = None

Box = tuple[int, int, int, int]  # top, left, height and width, in pixels
Draw = Callable[[int, int], Box]  # of a picture's height and width
Pixels = Image.Image | np.ndarray  # of mode L or RGB; uint8 [H, W] or [H, W, 3]

FACTORS = (8, 4, 2)  # by which libjpeg-turbo shrinks with vector instructions
TURNS = {  # by EXIF's orientation, as Pillow turns them
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Part(NamedTuple):
    """A part of a picture.

    Attributes:
      pixels: of the part, whichever kind was at hand.
      box: left, top, right and bottom of the part within them; they may reach a pixel farther.
      turn: what to do to the part, once resized, to have it upright; None for nothing.
    """

    pixels: Pixels
    box: tuple[float, float, float, float]
    turn: Image.Transpose | None = None


class Header(NamedTuple):
    """What the frame header of a JPEG says.

    Attributes:
      at: where in the file the height stands, two bytes.
      height: in pixels, as stored.
      width: likewise.
      components: 1 (grey) or 3.
      sequential: whether all of a block stands in one place, unlike in a progressive JPEG.
      described: whether there are EXIF or XMP data.
    """

    at: int
    height: int
    width: int
    components: int
    sequential: bool
    described: bool


def cut(encoded: Encoded, draw: Draw, smallest: int | None = None, *, rough: bool = False) -> Part:
    """Returns a part of a picture, decoded as cheaply as possible.

    Args:
      encoded: the file, of any format; what is not a usual JPEG is decoded as a whole.
      draw: says which part, given the upright picture's height and width.
      smallest: the sides of the part, in pixels, that may not be undercut by decoding at a
        smaller size; None for the full size always.
      rough: whether simplejpeg may approximate, see above.

    Raises:
      DataError: for anything that is not one whole image of an allowed format.
    """
    header = read_header(encoded.data)
    if header is None:
        whole = decode(encoded)
        return _part(whole, draw(whole.height, whole.width), 1)
    orientation = _orientation(encoded.data) if header.described else 1
    height, width = header.height, header.width
    upright = (width, height) if orientation >= 5 else (height, width)
    box = as_stored(draw(*upright), *upright, orientation)
    factor = _factor(box, smallest)
    data = encoded.data
    # The last rows' colours are interpolated with those of the row below.
    needed = box[0] + box[2] + 2 * factor
    if header.sequential and needed < height:
        at = header.at
        data = b"".join((data[:at], needed.to_bytes(2, "big"), data[at + 2 :]))
        height = needed
    pixels = _decode(Encoded(data, encoded.name), header, height, factor, rough)
    return _part(pixels, box, factor, TURNS.get(orientation))


def load(encoded: Encoded) -> Image.Image:
    """Returns a whole picture, upright, in Pillow's mode L or RGB: the pixels of `images.decode`.

    Raises:
      DataError: for anything that is not one whole image of an allowed format.
    """
    header = None if decode_jpeg is None else read_header(encoded.data)
    if header is None:
        return decode(encoded)
    pixels = _decode(encoded, header, header.height, 1, False)
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    turn = TURNS.get(_orientation(encoded.data)) if header.described else None
    return image if turn is None else image.transpose(turn)


def read_header(data: bytes) -> Header | None:
    """Returns the header of a usual, whole JPEG: 8 bits, grey or of three colours; else None.

    That it ends like a JPEG is all that is known of the rest; what does not is left to Pillow,
    which says what is wrong.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    place, described = 2, False
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xC2:  # baseline, extended, progressive; all in Huffman's code
            height = int.from_bytes(data[place + 5 : place + 7], "big")
            width = int.from_bytes(data[place + 7 : place + 9], "big")
            components = data[place + 9]
            usual = data[place + 4] == 8 and components in (1, 3)
            if not usual or not 0 < height * width <= MAX_PIXELS:
                return None
            return Header(place + 5, height, width, components, marker != 0xC2, described)
        if not (0xE0 <= marker <= 0xEF or marker in (0xC4, 0xDB, 0xDD, 0xFE)):
            return None
        described |= marker == 0xE1
        place += 2 + length
    return None


def as_stored(box: Box, height: int, width: int, orientation: int) -> Box:
    """Returns where in the stored picture a part of the upright one, [height, width], is."""
    top, left, rows, columns = box
    if orientation >= 5:
        top, left, rows, columns, height, width = left, top, columns, rows, width, height
    if orientation in (3, 4, 6, 7):
        top = height - top - rows
    if orientation in (2, 3, 7, 8):
        left = width - left - columns
    return top, left, rows, columns


def _orientation(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a malformed EXIF block says nothing about the pixels
        return 1
    return orientation if orientation in TURNS else 1


def _factor(box: Box, smallest: int | None) -> int:
    """Returns by how much smaller the picture can be decoded."""
    if smallest is None:
        return 1
    return next((f for f in FACTORS if min(box[2:]) >= f * smallest), 1)


def _decode(encoded: Encoded, header: Header, height: int, factor: int, rough: bool) -> Pixels:
    """Returns the upper `height` rows of a JPEG, 1 / factor of the size, rounded up."""
    rows, columns = -(-height // factor), -(-header.width // factor)
    mode = "L" if header.components == 1 else "RGB"
    try:
        if decode_jpeg is None:
            with Image.open(io.BytesIO(encoded.data), formats=("JPEG",)) as image:
                if factor > 1:
                    image.draft(mode, (header.width // factor, height // factor))
                image.load()
            kind, size, pixels = image.mode, (image.height, image.width), image
        else:
            array = decode_jpeg(
                encoded.data,
                "GRAY" if mode == "L" else "RGB",
                fastdct=rough,
                fastupsample=rough,
                min_height=rows if factor > 1 else 0,
                min_width=columns if factor > 1 else 0,
                min_factor=factor,
                strict=False,  # where the last rows are left out there is something to warn of
            )
            pixels = array[..., 0] if mode == "L" else array
            kind, size = mode, pixels.shape[:2]
    except Exception as error:  # each library has its own
        raise DataError(f"{encoded.name}: cannot be decoded ({error})") from error
    if (kind, size) != (mode, (rows, columns)):
        raise DataError(
            f"{encoded.name}: cannot be decoded (by its header it is {mode} {[rows, columns]}, "
            f"but {kind} {list(size)} came out)"
        )
    return pixels


def _part(pixels: Pixels, box: Box, factor: int, turn: Image.Transpose | None = None) -> Part:
    """Returns a part of a picture that is 1 / factor of its size."""
    top, left = box[0] / factor, box[1] / factor
    bottom, right = top + box[2] / factor, left + box[3] / factor
    x0, y0, x1, y1 = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    if isinstance(pixels, np.ndarray):
        pixels = pixels[y0:y1, x0:x1]
    else:
        pixels = pixels.crop((x0, y0, x1, y1))
    return Part(pixels, (left - x0, top - y0, right - x0, bottom - y0), turn)


def cut_array(image: np.ndarray, draw: Draw) -> Part:
    """Returns a part of a decoded picture, uint8 [H, W, 1 or 3]."""
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    return _part(pixels, draw(*image.shape[:2]), 1)
