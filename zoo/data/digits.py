"""The handwritten digits of UCI as a TFDS dataset, made offline from scikit-learn.

1,797 grey images of 8x8 pixels with values 0 to 16, from "Optical recognition of
handwritten digits" (Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49,
CC BY 4.0). scikit-learn ships them, so nothing is downloaded. Importing this module
registers the dataset with TFDS under the name `digits`.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the fixed, stratified split: for each name the sorted example indices.

    Each class is shuffled by a fixed key and cut at the cumulative fractions of `SPLITS`,
    so every split has every class in proportion, on every machine and numpy version.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    cuts = np.cumsum(list(SPLITS.values()))[:-1]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = np.argsort(np.random.Philox(key=[1998, int(label)]).random_raw(len(members)))
        pieces = np.split(members[order], np.round(cuts * len(members)).astype(int))
        for name, piece in zip(SPLITS, pieces, strict=True):
            parts[name].append(piece)
    return {name: np.sort(np.concatenate(pieces)) for name, pieces in parts.items()}


class Digits(tfds.core.GeneratorBasedBuilder):
    """UCI handwritten digits: 1,258 training, 180 validation and 359 test images."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Fixed stratified 70/10/20 split."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="8x8 grey images of handwritten digits (UCI, via scikit-learn).",
            homepage="https://doi.org/10.24432/C50P49",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=[str(i) for i in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager) -> dict:
        del dl_manager  # nothing to download
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        parts = split_indices(digits.target)
        return {
            name: self._generate_examples(images, digits.target, indices)
            for name, indices in parts.items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[tuple[int, dict]]:
        for i in indices.tolist():
            yield i, {"image": Image.fromarray(images[i]), "label": int(labels[i])}
