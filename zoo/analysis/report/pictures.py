"""Thumbnails inside the page, as many as its size allows."""

import base64
from collections.abc import Iterable, Sequence
import io
import os
from typing import Any

import numpy as np
from PIL import Image

from zoo.analysis.running import track
from zoo.data.source import Source

SIDE = 160  # pixels, of the longer side of what is embedded
SMALL = 64  # images up to this size are embedded as they are, and shown with their pixels
BYTES = 3_000_000  # of all pictures of a page, as they stand in it
MOST = 1200  # pictures


def thumbnail(image: np.ndarray) -> str:
    """Returns an image as a data URI: PNG if it is small, else a JPEG of `SIDE` pixels.

    Args:
      image: uint8 [H, W, 1 or 3].
    """
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    out = io.BytesIO()
    if is_small(image):
        picture.save(out, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.save(out, "JPEG", quality=80, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def is_small(image: np.ndarray) -> bool:
    """Whether an image [H, W, C] is shown with its pixels."""
    return max(image.shape[:2]) <= SMALL


def embed(
    source: Source, rows: Iterable[int], indices: np.ndarray, places: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Returns pictures, until `BYTES` or `MOST` are reached, and where each example's is.

    Args:
      source: the images.
      rows: of examples, the most important first; some may come twice.
      indices: int [N], of the examples in the source.
      places: [N], where they come from.
    """
    wanted = list(dict.fromkeys(map(int, rows)))[:MOST]
    pictures: list[dict[str, Any]] = []
    position, size = {}, 0
    for row in track(wanted, len(wanted), "pictures", lambda _: 1):
        image, _ = source[int(indices[row])]
        uri = thumbnail(image)
        size += len(uri)
        if size > BYTES:
            break
        position[row] = len(pictures)
        pictures.append({"uri": uri, "small": is_small(image), "place": places[row]})
    return pictures, position


def shorten(places: Sequence[str]) -> tuple[str, list[str]]:
    """Returns what all places begin with, up to a slash or space, and the rest of each.

    Example:
      >>> shorten(["/data/test/cat/1.jpg", "/data/test/cow/1.jpg"])
      ('/data/test/', ['cat/1.jpg', 'cow/1.jpg'])
    """
    # Whatever they have in common is cut at a slash or space: not all places are paths.
    same = os.path.commonprefix(list(places)) if len(places) > 1 else ""  # noqa: RUF071
    start = max(same.rfind("/"), same.rfind(" ")) + 1
    return same[:start], [place[start:] for place in places]
