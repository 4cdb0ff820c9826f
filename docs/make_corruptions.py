"""Writes docs/corruptions.webp: the 15 common corruptions in 5 severities.

    python docs/make_corruptions.py

They are of a card of 224 pixels, drawn in docs/make_augmentation.py, and shown at half its size.
"""

from pathlib import Path

from make_augmentation import card
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.data.corruptions import NAMES, SEVERITIES, corrupt

PICTURE = Path(__file__).with_name("corruptions.webp")
SIDE, SHOWN, GAP, TEXT = 224, 112, 4, 130  # pixels; TEXT is the width of the names


def size() -> tuple[int, int]:
    """Returns the width and height of the picture."""
    cell = SHOWN + GAP
    return TEXT + len(SEVERITIES) * cell + GAP, len(NAMES) * cell + GAP


def draw() -> Image.Image:
    """Returns a row for each corruption."""
    whole = Image.new("RGB", size(), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(14)
    image = np.asarray(card(size=(SIDE, SIDE)))
    for row, name in enumerate(NAMES):
        top = GAP + row * (SHOWN + GAP)
        pen.text((GAP, top + SHOWN // 2 - 8), name, "black", font)
        for column, severity in enumerate(SEVERITIES):
            cell = Image.fromarray(corrupt(image, name, severity, seed=1))
            left = TEXT + column * (SHOWN + GAP)
            whole.paste(cell.resize((SHOWN, SHOWN), Image.Resampling.LANCZOS), (left, top))
    return whole


if __name__ == "__main__":
    draw().save(PICTURE, quality=80, method=6)
