"""Pieces that every family shares."""

from flax import linen as nn
import jax


class Classifier(nn.Module):
    """A network seen from outside: images in, class logits (or features) out.

    A family subclasses this and defines one compact method,
    `endpoints(images, *, train)`, which returns the feature maps by name: `strideN` for
    the last map at each resolution, `pre_logits` [B, D], and `logits` [B, K] unless
    `num_classes` is None. Under `jit` the endpoints nobody uses cost nothing.
    """

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits [B, num_classes], or features [B, D] without a head.

        Args:
          images: [B, H, W, C], already normalised.
          train: whether BatchNorm uses the batch and dropout is on.
        """
        out = self.endpoints(images, train=train)
        return out["logits"] if "logits" in out else out["pre_logits"]

    def endpoints(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Returns every named feature map of the network."""
        raise NotImplementedError
