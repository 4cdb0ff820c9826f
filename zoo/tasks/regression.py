"""Regression: one or several numbers for each image."""

from collections.abc import Sequence
import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError, DataError, suggest
from zoo.tasks.task import Best, Metrics, Pair, Sums, at_least_float32, hide, masked_sum, means

LOSSES = ("mse", "mae", "huber")
SUMS = ("absolute_error", "squared_error", "target", "squared_target")


@dataclasses.dataclass(frozen=True)
class Regression:
    """Numbers, each with a name and a unit of its own.

    Targets are float [B, T], or [B] if there is one. The network predicts them standardised,
    (y - mean) / std, and the loss is that of standardised errors e, the mean over targets:
    of "mse" e^2, of "mae" |e|, of "huber" e^2 / 2 up to delta and delta (|e| - delta / 2)
    beyond (Huber 1964, https://doi.org/10.1214/aoms/1177703732). All other figures are in
    the targets' units. See `Task`.

    Standardising also keeps R^2 exact: it is a difference of sums, which for targets far
    from 0 (years, say) cancel in float32.

    Args:
      names: of the targets; there are as many outputs. A run takes them from its data, where
        these have numbers with names.
      kind: one of `LOSSES`.
      delta: where Huber's loss becomes linear, in standard deviations.
      mean: of the training targets, one for each, in their units; 0 by default.
      std: their standard deviations, likewise; 1 by default.

    Raises:
      ConfigError: for other values.
    """

    names: Sequence[str] = ("target",)
    kind: str = "mse"
    delta: float = 1.0
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    best: ClassVar[Best] = Best("loss", larger_is_better=False)

    def __post_init__(self):
        for key, value in (("names", self.names), ("mean", self.mean), ("std", self.std)):
            object.__setattr__(self, key, value if value is None else tuple(value))
        if not self.names or len(set(self.names)) < len(self.names):
            raise ConfigError(f"names={self.names!r}: give each target a name of its own")
        if self.kind not in LOSSES:
            raise ConfigError(
                f"kind={self.kind!r}: must be one of {', '.join(LOSSES)}."
                f"{suggest(self.kind, LOSSES)}"
            )
        if not 0 < self.delta < math.inf:
            raise ConfigError(f"delta={self.delta!r}: must be greater than 0")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != len(self.names):
                raise ConfigError(
                    f"{key}={values!r}: there are {len(self.names)} targets; give one for each"
                )
        if not all(map(math.isfinite, self.mean or ())):
            raise ConfigError(f"mean={self.mean!r}: must be finite")
        if not all(0 < s < math.inf for s in self.std or ()):
            raise ConfigError(
                f"std={self.std!r}: must be greater than 0; leave out targets that do not vary"
            )

    def outputs(self, data_classes: int) -> int:
        return len(self.names)

    def check_targets(self, targets: np.ndarray, num_outputs: int, name: str) -> None:
        if targets.shape not in self._shapes(len(targets)):
            raise DataError(
                f"{name}: targets {list(targets.shape)}; wanted [N, {len(self.names)}], in the "
                f"order {', '.join(self.names)}"
            )
        right = np.isfinite(targets).reshape(len(targets), -1).all(1)
        if not right.all():
            first = int(np.argmin(right))
            raise DataError(
                f"{name}: example {first} has target {targets[first].tolist()}, allowed are "
                f"finite numbers ({int(np.sum(~right))} such targets)"
            )

    def activation(self, logits: jax.Array) -> jax.Array:
        """Returns predictions [B, T] in the targets' units."""
        mean, std = self._scales()
        return at_least_float32(logits) * std + mean

    def loss(self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool) -> Pair:
        errors, _ = self._standardised(logits, targets, mask)
        size = errors * jnp.sign(errors)  # of |e| JAX says that its slope at 0 is 1
        if self.kind == "mse":
            losses = jnp.square(errors)
        elif self.kind == "mae":
            losses = size
        else:
            near = jnp.minimum(size, self.delta)
            losses = near * (size - near / 2)
        return masked_sum(jnp.mean(losses, axis=-1), mask), jnp.sum(mask)

    def metrics(
        self, logits: jax.Array, targets: jax.Array, mask: jax.Array, *, train: bool
    ) -> Metrics:
        """Returns "loss" [] and the sums of `SUMS`, each [T] and of standardised values."""
        errors, z = self._standardised(logits, targets, mask)
        values = (jnp.abs(errors), jnp.square(errors), z, jnp.square(z))
        out: Metrics = {"loss": self.loss(logits, targets, mask, train=train)}
        return out | {
            name: (masked_sum(value, mask), jnp.sum(mask))
            for name, value in zip(SUMS, values, strict=True)
        }

    def summary(self, sums: Sums) -> dict[str, float]:
        """Returns "loss", "mae", "rmse" and "r2", the last three with "_NAME" if several.

        Of several targets "r2" is the mean. It is NaN where targets do not vary, or by too
        little beside their distance from `mean` to be seen in float32.
        """
        out = means({name: pair for name, pair in sums.items() if name not in SUMS})
        each = [np.broadcast_to(np.asarray(sums[n][0], np.float64), len(self.names)) for n in SUMS]
        count = float(sums["absolute_error"][1])
        std = self.std or (1.0,) * len(self.names)
        r2s = []
        for i, name in enumerate(self.names):
            absolute, squared, z, squared_z = (float(values[i]) for values in each)
            tail = f"_{name}" if len(self.names) > 1 else ""
            out[f"mae{tail}"] = std[i] * absolute / count if count else math.nan
            out[f"rmse{tail}"] = std[i] * math.sqrt(squared / count) if count else math.nan
            spread = squared_z - z * z / count if count else 0.0
            r2s.append(1 - squared / spread if spread > 1e-5 * squared_z else math.nan)
            out[f"r2{tail}"] = r2s[-1]
        out["r2"] = sum(r2s) / len(r2s)
        return out

    def _shapes(self, count: int) -> list[tuple[int, ...]]:
        """Returns the shapes that so many targets may have."""
        return [(count, len(self.names))] + [(count,)] * (len(self.names) == 1)

    def _scales(self) -> tuple[np.ndarray, np.ndarray]:
        zeros, ones = (0.0,) * len(self.names), (1.0,) * len(self.names)
        scales = (self.mean or zeros, self.std or ones)
        return np.asarray(scales[0], np.float32), np.asarray(scales[1], np.float32)

    def _standardised(
        self, logits: jax.Array, targets: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns errors and targets [B, T], standardised, 0 in masked rows."""
        shape = (mask.shape[0], len(self.names))
        if logits.shape != shape or targets.shape not in self._shapes(shape[0]):
            raise ConfigError(
                f"logits {list(logits.shape)} and targets {list(targets.shape)} do not suit the "
                f"regression of {', '.join(self.names)}: give both as {list(shape)}"
            )
        mean, std = self._scales()
        z = (at_least_float32(targets.reshape(shape)) - mean) / std
        z = hide(z, mask)
        return hide(at_least_float32(logits), mask) - z, z
