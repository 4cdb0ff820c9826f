"""How images have to be prepared for a set of weights, which is part of the weights."""

from collections.abc import Sequence
import dataclasses
import math
from numbers import Real
from typing import Any

import numpy as np

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def import_images() -> Any:
    """Returns `zoo.images`, which needs Pillow.

    Raises:
      ImportError: that says how to install it.
    """
    try:
        from zoo import images
    except ImportError as error:
        raise ImportError(
            f"images are prepared with Pillow ({error}): pip install 'zoo[weights]'"
        ) from error
    return images


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From an image to the network's input, as it was when the weights were trained.

    Called with an image it returns float32 [image_size, image_size, C].

    Attributes:
      image_size: side of the square, in pixels.
      mean: one per channel, on the scale 0 to 1, in the order of the network's channels.
      std: likewise.
      interpolation: a key of `zoo.images.INTERPOLATIONS`; shrinking is antialiased.
      crop_fraction: the part of the resized side that is kept, see `zoo.images.fit_image`.
      fit: one of `zoo.images.FITS`.
      channel_order: "RGB", or "BGR" as in networks that come from Caffe.
      class_names: in the order of the logits, of both classes where there is one logit; None if
        they are not known.
      test_image_size: side with which the published accuracy was measured, if it is another.
      test_crop_fraction: likewise.

    Example:
      >>> preprocess = Preprocessing(image_size=224)
      >>> preprocess(np.zeros((480, 640, 3), np.uint8)).shape
      (224, 224, 3)
    """

    image_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    crop_fraction: float = 0.875
    fit: str = "crop"
    channel_order: str = "RGB"
    class_names: tuple[str, ...] | None = None
    test_image_size: int | None = None
    test_crop_fraction: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for values that no preprocessing can have."""
        images = import_images()
        fractions = [f for f in (self.crop_fraction, self.test_crop_fraction) if f is not None]
        sizes = [s for s in (self.image_size, self.test_image_size) if s is not None]
        for field, holds, allowed in (
            ("image_size", all(isinstance(s, int) and s > 0 for s in sizes), "a whole number > 0"),
            ("mean", len(self.mean) in (1, 3) and _are_finite(self.mean), "1 or 3 numbers"),
            (
                "std",
                len(self.std) == len(self.mean) and _are_finite(self.std) and min(self.std) > 0,
                "as many, > 0",
            ),
            ("crop_fraction", all(0 < f <= 1 for f in fractions), "> 0 and <= 1"),
            (
                "interpolation",
                self.interpolation in images.INTERPOLATIONS,
                [*images.INTERPOLATIONS],
            ),
            ("fit", self.fit in images.FITS, images.FITS),
            ("channel_order", self.channel_order in images.CHANNEL_ORDERS, images.CHANNEL_ORDERS),
        ):
            if not holds:
                raise ValueError(
                    f"preprocessing {field}={getattr(self, field)!r}: must be {allowed}"
                )

    def __call__(self, image: Any) -> np.ndarray:
        """Returns the network's input, float32 [image_size, image_size, C], of one image.

        Args:
          image: a path, a Pillow image, or uint8 [H, W], [H, W, 1] or [H, W, 3].

        Raises:
          DataError: if it cannot be decoded.
          ValueError: if it is no image.
        """
        return self.normalise(self.pixels(image))

    def pixels(self, image: Any) -> np.ndarray:
        """Returns uint8 [image_size, image_size, C]: decoded and fitted, not normalised."""
        images = import_images()
        return images.fit_image(
            images.to_pillow(image),
            self.image_size,
            len(self.mean),
            self.fit,
            self.crop_fraction,
            self.interpolation,
        )

    def normalise(self, images: Any) -> Any:
        """Returns float32 [..., C] of uint8 [..., C], in NumPy or on a device of JAX."""
        return import_images().normalise(images, self.mean, self.std, self.channel_order)

    def with_channels(self, channels: int) -> "Preprocessing":
        """Returns it for images with 1 or 3 channels; one channel takes the means of three."""
        if channels == len(self.mean):
            return self
        if channels not in (1, 3):
            raise ValueError(f"channels={channels}: images have 1 or 3; normalise others yourself")
        mean, std = (sum(v) / len(v) for v in (self.mean, self.std))
        return self.replace(mean=(mean,) * channels, std=(std,) * channels, channel_order="RGB")

    def at_test_size(self) -> "Preprocessing":
        """Returns it with the size and crop with which the accuracy was measured."""
        return dataclasses.replace(
            self,
            image_size=self.test_image_size or self.image_size,
            crop_fraction=self.test_crop_fraction or self.crop_fraction,
        )

    def replace(self, **changes: Any) -> "Preprocessing":
        """Returns it with some attributes changed."""
        return dataclasses.replace(self, **changes)


def are_names(names: Sequence[str] | None, outputs: int | None) -> bool:
    """Returns whether these are the names of so many outputs; one output tells two classes.

    Example:
      >>> are_names(("cat", "dog"), 1)
      True
    """
    return names is not None and len(names) in ((outputs,) if outputs != 1 else (1, 2))


def _are_finite(values: Any) -> bool:
    return all(isinstance(v, Real) and math.isfinite(v) for v in values)
