"""Writes docs/augmentation.md and its pictures.

    python docs/make_augmentation.py

What the page says of arguments comes from the functions themselves; pictures are of a card
drawn below. Takes about a minute on 2 CPU cores, nearly all of it compilation.
"""

from collections.abc import Iterator, Mapping, Sequence
import inspect
import json
from pathlib import Path
import textwrap
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.data.augment import OPERATIONS, make_augment, make_operation
from zoo.data.augmentation import mixing, policies
from zoo.data.crop import draw_box, make_crop
from zoo.images import fit_image

PAGE = Path(__file__).with_name("augmentation.md")
PICTURES = Path(__file__).with_name("augmentation")
SIDE, GAP, DRAWS = 128, 6, 4


class Entry(NamedTuple):
    """What the page says of an operation beside its signature.

    Attributes:
      text: what it does, where it comes from, what to know.
      compared: with what its pixels or draws were compared, and how closely.
      shown: arguments of the picture, where they are not the defaults.
      pale: whether the picture begins with a card of few grey levels.
    """

    text: str
    compared: str
    shown: Mapping[str, Any] = MappingProxyType({})
    pale: bool = False


WARPS = (
    "Pillow's `Image.transform`: the same pixels but for at most 0.3 % of them, which lie within "
    "1e-3 of a pixel's edge; bilinear to one grey level"
)

SECTIONS: dict[str, dict[str, Entry]] = {
    "Flips, crops and warps": {
        "random_horizontal_flip": Entry(
            "Mirrors left to right. Not for letters and digits.",
            "Pillow's `ImageOps.mirror`: equal",
        ),
        "random_vertical_flip": Entry(
            "Mirrors top to bottom: for pictures from above or through a microscope.",
            "Pillow's `ImageOps.flip`: equal",
        ),
        "random_resized_crop": Entry(
            "Enlarges a random part ([Szegedy et al. 2014](https://arxiv.org/abs/1409.4842), "
            "section 6), with antialiasing. On the device it works on the fitted image; "
            "`config.augment.crop` takes its part from the whole picture instead, see above.",
            "Pillow's `crop` and `resize`: to one grey level; boxes distributed as torchvision's "
            "`RandomResizedCrop` (Kolmogorov-Smirnov, 4000 draws)",
        ),
        "random_padding_crop": Entry(
            "Pads and cuts to the old size ([He et al. 2015](https://arxiv.org/abs/1512.03385), "
            "section 4.2: 4 pixels for CIFAR).",
            "Pillow's `ImageOps.expand` and `crop`: equal",
            {"padding": 20},
        ),
        "random_shift": Entry(
            "Moves by up to a part of the width `x` and of the height `y`.", WARPS
        ),
        "random_zoom": Entry(
            "Enlarges or shrinks about the centre; the factor's logarithm is uniform.",
            WARPS,
            {"scale": (0.6, 1.6)},
        ),
        "random_rotation": Entry(
            "Turns about the centre.",
            WARPS.replace("Image.transform", "Image.rotate"),
            {"degrees": 40.0},
        ),
        "random_shear": Entry("Shears about the upper left corner, as AutoAugment does.", WARPS),
        "random_perspective": Entry(
            "Moves the corners inwards. The map of four points is that of Heckbert 1989, "
            '"Fundamentals of Texture Mapping and Image Warping", section 2.2.3.',
            "Pillow as above; torchvision's `perspective` from the same corners: to one grey level",
            {"probability": 1.0},
        ),
    },
    "Colours and grey levels": {
        "random_brightness": Entry(
            "Multiplies by a factor up to `amount` away from 1.",
            "Pillow's `ImageEnhance.Brightness`: equal",
        ),
        "random_contrast": Entry(
            "Moves away from the mean grey, or towards it.",
            "Pillow's `ImageEnhance.Contrast`: equal",
        ),
        "random_saturation": Entry(
            "Moves away from the picture without colours, or towards it.",
            "Pillow's `ImageEnhance.Color`: equal",
            {"amount": 0.9},
        ),
        "random_hue": Entry(
            "Turns the circle of hues by up to a part `amount` of it.",
            "Python's `colorsys` and torchvision's `adjust_hue`: to one grey level",
        ),
        "colour_jitter": Entry(
            "The four above in random order; what is not given stays as it is "
            "([Szegedy et al. 2014](https://arxiv.org/abs/1409.4842), section 6, name photometric "
            "distortions; order and ranges are those of torchvision's `ColorJitter`).",
            "Pillow and `colorsys`, part by part as above",
            {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        ),
        "random_grayscale": Entry(
            "Takes the colours out (ITU-R BT.601 luma).",
            'Pillow\'s `convert("L")`: equal',
            {"probability": 0.5},
        ),
        "random_gaussian_blur": Entry(
            "Blurs with a deviation drawn from `sigma`; `kernel_size` is odd, in pixels, and about "
            "a tenth of the side in [Chen et al. 2020](https://arxiv.org/abs/2002.05709), "
            "appendix A.",
            "torchvision's `gaussian_blur`: to one grey level",
            {"kernel_size": 13, "sigma": (0.1, 4.0), "probability": 1.0},
        ),
        "random_sharpness": Entry(
            "Moves away from the smoothed picture: a `factor` below 1 blurs.",
            "Pillow's `ImageEnhance.Sharpness`: equal",
            {"factor": 8.0},
        ),
        "random_solarise": Entry(
            "Inverts what is at or over a threshold.", "Pillow's `ImageOps.solarize`: equal"
        ),
        "random_solarise_add": Entry(
            "Adds up to `amount` grey levels to what is below 128.",
            "a table applied by Pillow's `Image.point`: to one grey level",
            {"probability": 1.0},
        ),
        "random_posterise": Entry(
            "Keeps the highest `bits` of 8.", "Pillow's `ImageOps.posterize`: equal", {"bits": 2}
        ),
        "random_invert": Entry("The negative.", "Pillow's `ImageOps.invert`: equal"),
        "random_autocontrast": Entry(
            "Stretches each channel to the range from 0 to 255.",
            "Pillow's `ImageOps.autocontrast`: to one grey level",
            pale=True,
        ),
        "random_equalise": Entry(
            "Spreads the values of each channel evenly.", "Pillow's `ImageOps.equalize`: equal"
        ),
    },
    "Taking information out": {
        "random_cutout": Entry(
            "Fills a square, `size` pixels wide, whose centre is any pixel "
            "([DeVries and Taylor 2017](https://arxiv.org/abs/1708.04552): 16 of 32 for CIFAR-10).",
            "Pillow's `paste`: equal",
            {"size": 50, "fill": 128},
        ),
        "random_erasing": Entry(
            "Fills a box of random area and shape ([Zhong et al. 2017]"
            "(https://arxiv.org/abs/1708.04896), section 3.2); with `noise=True` each pixel with "
            "values of its own.",
            "Pillow's `paste`: equal; boxes are drawn by the function of `random_resized_crop`",
            {"probability": 1.0, "noise": True},
        ),
    },
    "Policies": {
        "rand_augment": Entry(
            "`num_ops` operations, each drawn from {rand} "
            "([Cubuk et al. 2019](https://arxiv.org/abs/1909.13719), section 3). `std` and "
            "`probability` are timm's; torchvision has `max_magnitude=30`.",
            "Pillow (operations, see above) and torchvision's `RandAugment`: the ranges are equal",
        ),
        "auto_augment": Entry(
            "One of 25 pairs that were found by search for `policy` = {policies} "
            "([Cubuk et al. 2018](https://arxiv.org/abs/1805.09501), appendix).",
            "torchvision's `AutoAugment`: the three tables are equal",
        ),
        "trivial_augment_wide": Entry(
            "One operation at one of 31 magnitudes ([Mueller and Hutter 2021]"
            "(https://arxiv.org/abs/2103.10158), section 3).",
            "torchvision's `TrivialAugmentWide`: the ranges are equal",
        ),
        "aug_mix": Entry(
            "An average of `width` chains of up to `depth` operations of {augmix}, and of the "
            "image ([Hendrycks et al. 2019](https://arxiv.org/abs/1912.02781), algorithm 1). The "
            "paper's consistency loss is not part of it.",
            "Pillow (operations, see above) and with its probabilities (draws)",
            {"severity": 10.0},
        ),
    },
}


INTRODUCTION = """\
# Augmentation

Written by `python docs/make_augmentation.py`. Each strip shows a test card and then four draws.

A recipe names operations and their arguments. They are applied to training images only, in this
order, inside the training step:

```python
config.augment.crop = {"scale": (0.25, 1.0)}  # while decoding, on the host
config.augment.images = (  # on the device, one after the other
    ("random_horizontal_flip", {}),
    ("rand_augment", {"num_ops": 2, "magnitude": 9}),
    ("random_erasing", {"probability": 0.25}),
)
config.augment.mix = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}  # last, within the batch
```

`python -m zoo augment --config=configs/x.py --out=grid.png` draws what that makes of your data. A
name or an argument that does not exist is an error that names the close ones.

* Images are uint8 [H, W, C] throughout, with 1 or 3 channels and of any shape; they keep theirs.
* What an example looks like follows from (seed, epoch, its index) alone: not from the batch, the
  device or a restart. Mixing depends on which examples are in the batch, not on their order.
* In signatures below, a value is the default; an argument without one must be given.
* `fill` is a grey level or one per channel; `interpolation` is `"nearest"` or `"bilinear"`.
* What a row says of comparisons is a test: tests/data/test_augmentation.py for Pillow,
  tests/parity/test_augmentation.py for torchvision.
"""

DECODING = {
    "crop": Entry(
        "`config.augment.crop`: a random part of the whole picture, resized with "
        "antialiasing, instead of fitting it ([Szegedy et al. 2014]"
        "(https://arxiv.org/abs/1409.4842), section 6). The first of ten boxes that fits, "
        "else the largest central one of an allowed shape. Not with `config.data.cache`.",
        "torchvision's `RandomResizedCrop`: the same law (Kolmogorov-Smirnov and means of "
        "4000 draws on three shapes), and of the same box the same pixels",
    ),
}
MIXING = {
    "mixup": Entry(
        "`config.augment.mix` with `mixup_alpha`: an average of two images and of their "
        "targets, with a share from Beta(alpha, alpha) for each example ([Zhang et al. 2017]"
        "(https://arxiv.org/abs/1710.09412)).",
        "SciPy's Beta distribution (shares) and with the mixed pixels (targets)",
        {"mixup_alpha": 1.0},
    ),
    "cutmix": Entry(
        "`config.augment.mix` with `cutmix_alpha`: a box of another image; targets are mixed "
        "by the area that it really has ([Yun et al. 2019](https://arxiv.org/abs/1905.04899)). "
        "With both alphas `cutmix_probability` says how often it is this one.",
        "the mixed pixels: the targets say what they show",
        {"cutmix_alpha": 1.0},
    ),
}
ALL = {"While decoding": DECODING, **SECTIONS, "Mixing": MIXING}
HOST = ("uniform", "height", "width")
MIXED = ("images", "targets", "keys", "mask")


def signature(function: Any, supplied: Sequence[str]) -> str:
    """Returns the arguments that a recipe can give, with their defaults."""
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in supplied:
            continue
        default = parameter.default
        value = "" if default is parameter.empty else f"={_short(default)}"
        parts.append(parameter.name + value)
    return ", ".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value % 1 else str(value)
    for name in ("RAND_AUGMENT", "AUGMIX"):
        if value == getattr(policies, name):
            return name
    return f"({', '.join(map(_short, value))})" if isinstance(value, tuple) else json.dumps(value)


def page() -> str:
    """Returns the text of the page."""
    lists = {
        "rand": f"RAND_AUGMENT ({', '.join(policies.RAND_AUGMENT)})",
        "augmix": f"AUGMIX ({', '.join(policies.AUGMIX)})",
        "policies": ", ".join(f'"{name}"' for name in policies.AUTO_AUGMENT_POLICIES),
    }
    parts = [INTRODUCTION]
    for title, entries in ALL.items():
        parts.append(f"## {title}\n")
        for name, entry in entries.items():
            arguments = signature(*_function(name))
            shown = ", ".join(f"{key}={_short(value)}" for key, value in entry.shown.items())
            note = f"Compared with {entry.compared}."
            if shown:
                note = f"Shown with {shown}. {note}"
            parts += [f"### {name}\n", f"```\n{arguments}\n```\n"]
            parts += [_wrapped(entry.text.format(**lists))]
            parts += [f"![{name}](augmentation/{name}.webp)\n", _wrapped(note)]
    return "\n".join(parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False) + "\n"


def _function(name: str) -> tuple[Any, Sequence[str]]:
    """Returns a function and the arguments that no recipe gives."""
    if name == "crop":
        return draw_box, HOST
    if name in MIXING:
        return mixing.mix, MIXED
    return OPERATIONS[name], ("image", "key")


def card(letters: str = "zoo", turn: float = 0.0, size: tuple[int, int] = (SIDE, SIDE)) -> Any:
    """Returns a test card, uint8 [H, W, 3]: sky, sun, a hill, a house, colours, lines, letters.

    Args:
      letters: what it says.
      turn: of all hues, a part of the circle.
      size: its width and height.
    """
    width, height = 4 * size[0], 4 * size[1]  # drawn large, then made smaller
    sky = np.linspace((70, 130, 215), (225, 235, 245), height)
    pil = Image.fromarray(np.broadcast_to(sky[:, None], (height, width, 3)).astype(np.uint8))
    draw, unit = ImageDraw.Draw(pil), height / 100

    def box(x: float, y: float, right: float, bottom: float) -> tuple[float, ...]:
        return x * width / 100, y * unit, right * width / 100, bottom * unit

    def disc(x: float, y: float, radius: float, colour: str) -> None:
        x, y, radius = x * width / 100, y * unit, radius * unit
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

    disc(80, 20, 11, "#ffd23f")
    draw.ellipse(box(-40, 55, 90, 160), "#4f8a3c")
    draw.ellipse(box(30, 68, 150, 170), "#7fb24a")
    draw.rectangle(box(12, 50, 36, 74), "#f2e6d0")
    draw.polygon(
        [
            (8 * width / 100, 50 * unit),
            (24 * width / 100, 33 * unit),
            (40 * width / 100, 50 * unit),
        ],
        "#b5442e",
    )
    draw.rectangle(box(20, 60, 27, 74), "#5b3a29")
    for number, colour in enumerate(("#e6194b", "#3cb44b", "#4363d8", "#111111")):
        disc(50 + 13 * number, 87, 5, colour)
    for number in range(8):
        draw.rectangle(box(56 + 5 * number, 50, 58 + 5 * number, 62), "#222222")
    font = ImageFont.load_default(24 * unit)
    draw.text((5 * width / 100, 3 * unit), letters, "#ffffff", font)
    pil = pil.resize(size, Image.Resampling.LANCZOS)
    hsv = np.array(pil.convert("HSV"))
    hsv[..., 0] += np.uint8(round(256 * turn) % 256)
    return np.array(Image.fromarray(hsv, "HSV").convert("RGB")) if turn else np.array(pil)


def strip(images: Sequence[np.ndarray]) -> Image.Image:
    """Returns images [H, W, 3] side by side on white."""
    row = Image.new("RGB", (len(images) * (SIDE + GAP) - GAP, SIDE), "white")
    for number, image in enumerate(images):
        row.paste(Image.fromarray(np.asarray(image)), (number * (SIDE + GAP), 0))
    return row


def pictures() -> Iterator[tuple[str, Image.Image]]:
    """Yields the name and the strip of every operation."""
    keys = jax.random.split(jax.random.key(2003), DRAWS)  # whose draws are far from each other
    for entries in SECTIONS.values():
        for name, entry in entries.items():
            operation = make_operation(name, entry.shown, (SIDE, SIDE, 3))
            image = card() // 2 + 50 if entry.pale else card()
            yield name, strip([image, *jax.jit(jax.vmap(operation, (None, 0)))(image, keys)])
    whole = card(size=(480, 360))
    options = {"seed": 2, "size": SIDE, "channels": 3, "interpolation": "bilinear"}
    crop = make_crop({"scale": (0.08, 1.0)}, **options)
    assert crop is not None
    yield "crop", strip([fit_image(whole, SIDE, 3), *(crop(whole, e, 0) for e in range(DRAWS))])
    cards = [card(), card("elk", 0.25), card("owl", 0.5), card("yak", 0.75)]
    for name, entry in MIXING.items():
        augment = jax.jit(make_augment((), entry.shown))
        batch = {"image": np.stack(cards), "index": np.arange(4), "mask": np.ones(4)}
        made = [
            augment(batch | {"epoch": np.full(4, epoch)}, keys[0], jnp.eye(4))[0][0]
            for epoch in range(DRAWS)
        ]
        yield name, strip([cards[0], *made])


def main() -> None:
    """Writes the page and the pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, picture in pictures():
        picture.save(PICTURES / f"{name}.webp", quality=88, method=6)
        print(f"{name}.webp", flush=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
