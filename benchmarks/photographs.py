"""Photographs to measure input with: as large as ImageNet's, and as hard to decode.

They are cut, at random, from those that come with scikit-image and scikit-learn, scaled to about
500x375 pixels (a quarter of them upright, sizes differ), and given the grain of a camera so that a
JPEG of quality 92 has 110 KB on average, as ImageNet's have. Without it they would have 45 KB, as
they have been scaled, and decoding would look cheaper than it is.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIDES = (500, 375)  # width and height on average
UPRIGHT = 0.25  # how many of them are higher than wide
QUALITY = 92
GRAIN = (16.0, 10.0)  # standard deviations in grey levels: of all colours alike, and of each
CLASSES = 10


def originals() -> list[Image.Image]:
    """Returns the ten colour photographs of scikit-image and scikit-learn that have details.

    Raises:
      ImportError: if one of them is not installed.
    """
    import skimage
    import sklearn.datasets

    names = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"]
    names += ["motorcycle_right.png", "retina.jpg", "hubble_deep_field.jpg"]
    paths = [Path(skimage.__file__).parent / "data" / name for name in names]
    paths += sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))
    return [Image.open(path).convert("RGB") for path in paths]


def photographs(count: int, seed: int = 0) -> Iterator[Image.Image]:
    """Yields so many pictures, the same ones for the same seed."""
    sources, random = originals(), np.random.default_rng(seed)
    for i in range(count):
        source = sources[i % len(sources)]
        sides = [max(200, round(random.normal(side, side / 12))) for side in SIDES]
        width, height = sides[::-1] if random.uniform() < UPRIGHT else sides
        scale = random.uniform(0.7, 1) * min(source.width / width, source.height / height)
        left = random.uniform(0, source.width - width * scale)
        top = random.uniform(0, source.height - height * scale)
        box = (left, top, left + width * scale, top + height * scale)
        picture = source.resize((width, height), Image.Resampling.BICUBIC, box=box)
        grain = random.normal(0, GRAIN[0], (height, width, 1))
        grain = grain + random.normal(0, GRAIN[1], (height, width, 3))
        yield Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def write_folder(root: Path, count: int) -> float:
    """Writes root/train/CLASS/NUMBER.jpg and returns the mean size of a file in bytes."""
    sizes = []
    for i, picture in enumerate(photographs(count)):
        path = root / "train" / f"class{i % CLASSES}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    return float(np.mean(sizes))


def write_tfds(root: Path, folder: Path) -> str:
    """Writes the pictures of a folder as a TFDS dataset held as array_record; returns its name."""
    import tensorflow_datasets as tfds

    files = sorted((folder / "train").rglob("*.jpg"))

    with tfds.core.registered.skip_registration():

        class Photographs(tfds.core.GeneratorBasedBuilder):
            """The pictures of a folder."""

            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=CLASSES),
                }
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i, file in enumerate(files):
                    yield i, {"image": str(file), "label": int(file.parent.name[5:])}

    tfds.disable_progress_bar()
    Photographs(data_dir=str(root), file_format="array_record").download_and_prepare()
    return "photographs"
