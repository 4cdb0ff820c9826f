"""What a network makes of examples before its last layer: its endpoints, as arrays."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from zoo.analysis.running import (
    Compute,
    Rows,
    endpoints_of,
    examples_of,
    gather,
    outputs_like,
    run_over,
    track,
)
from zoo.analysis.trained import Trained
from zoo.data.loader import Examples
from zoo.data.source import Source
from zoo.errors import ConfigError, DataError, suggest

DTYPES = ("float32", "float16")
Shape = tuple[int, ...]


def extract(
    trained: Trained,
    source: Source,
    endpoint: str = "pre_logits",
    *,
    pool: bool = False,
    batch_size: int = 64,
    threads: int = 2,
    max_bad: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns an endpoint of every example of a source, and their targets.

    For more than fits into the memory, see `zoo.analysis.feature_files.write_features`.

    Args:
      trained: the model.
      source: the data, whatever their classes; see `zoo.analysis.opening.open_data`.
      endpoint: of the model.
      pool: whether to average maps over all positions.
      batch_size: over all devices.
      threads: that decode.
      max_bad: how many images that cannot be decoded to leave out.

    Returns:
      float32 [N, D] or [N, H, W, C], and int [N] or float32 [N, K]. Example i is row i, unless
      some were left out.

    Raises:
      ConfigError: for an endpoint that the model does not have.
      DataError: for features that are not finite, and see `zoo.data.loader.Examples`.
    """
    compute = features_of(trained, endpoint, pool=pool)
    examples = examples_of(trained, source, max_bad=max_bad)
    rows = gather(feature_rows(trained, examples, compute, batch_size=batch_size, threads=threads))
    return rows.outputs[endpoint], rows.targets


def features_of(
    trained: Trained, *endpoints: str, pool: bool = False, dtype: str = "float32"
) -> Compute:
    """Returns the function from images to a dict of endpoints.

    Args:
      trained: the model.
      *endpoints: their names.
      pool: whether to average maps over all positions.
      dtype: of the result, one of `DTYPES`.

    Raises:
      ConfigError: for an endpoint that the model does not have, or that is more than one array.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: give {' or '.join(DTYPES)}.{suggest(dtype, DTYPES)}")
    if not endpoints:
        raise ConfigError("name at least one endpoint, such as pre_logits")
    compute = endpoints_of(trained, *endpoints)
    for name, value in outputs_like(trained, compute).items():
        if not hasattr(value, "shape"):
            raise ConfigError(
                f"endpoint {name!r} of {trained.label} is {len(value)} arrays; take another"
            )

    def features(variables, images):
        found = compute(variables, images)
        return {name: _finish(found[name], pool, dtype) for name in endpoints}

    return features


def _finish(x: jax.Array, pool: bool, dtype: str) -> jax.Array:
    x = x.astype(jnp.float32)
    if pool and x.ndim == 4:
        x = x.mean((1, 2))
    return x.astype(dtype)


def shapes_of(trained: Trained, features: Compute) -> dict[str, Shape]:
    """Returns the shape of one example's features, by endpoint."""
    return {name: x.shape[1:] for name, x in outputs_like(trained, features).items()}


def feature_rows(
    trained: Trained, examples: Examples, features: Compute, *, batch_size: int, threads: int
) -> Iterator[Rows]:
    """Yields features batch by batch, with a progress bar on a terminal.

    Raises:
      DataError: for such as are not finite.
    """
    rows = run_over(trained, examples, features, batch_size=batch_size, threads=threads)
    for row in track(rows, len(examples), "extracting", lambda row: len(row.indices)):
        for name, values in row.outputs.items():
            wrong = np.flatnonzero(~np.isfinite(values).all(tuple(range(1, values.ndim))))
            if len(wrong):
                place = examples.source.describe(int(row.indices[wrong[0]]))
                way_out = "; take float32" if values.dtype == np.float16 else ""
                raise DataError(f"{place}: {name} is not finite as {values.dtype}{way_out}")
        yield row
