"""How images have to be prepared for a set of weights, which is part of the weights."""

import dataclasses
import os
from typing import Any

import numpy as np

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What timm calls the ways to fit an image into the square.
CROP_MODES = {"center": "crop", "squash": "squash", "pad": "pad"}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From an image to the network's input, as it was when the weights were trained.

    Called with an image it returns float32 [image_size, image_size, C].

    Attributes:
      image_size: side of the square, in pixels.
      mean: one per channel, on the scale 0 to 1, in the order of the network's channels.
      std: likewise.
      interpolation: a key of `zoo.images.INTERPOLATIONS`; shrinking is antialiased.
      crop_fraction: the part of the resized shorter side that "crop" keeps.
      fit: one of `zoo.images.FITS`.
      channel_order: "RGB", or "BGR" as in networks that come from Caffe.
      class_names: in the order of the logits; None if they are not known.
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
        from zoo.images import decode_image, fit_image, to_array  # here: they need Pillow

        array = decode_image(image) if isinstance(image, str | os.PathLike) else to_array(image)
        return fit_image(
            array,
            self.image_size,
            len(self.mean),
            self.fit,
            self.crop_fraction,
            self.interpolation,
        )

    def normalise(self, images: Any) -> Any:
        """Returns float32 [..., C] of uint8 [..., C], in NumPy or on a device of JAX."""
        from zoo.images import normalise

        return normalise(images, self.mean, self.std, self.channel_order)

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
