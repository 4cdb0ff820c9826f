"""Which examples a network sees as alike: the nearest ones in the space of its features."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zoo.errors import ConfigError, DataError, suggest

METRICS = ("cosine", "euclidean")
QUERIES, ROWS = 256, 4096  # of one matrix product


class Neighbours(NamedTuple):
    """The nearest rows for each of M queries, the nearest first; of equals the first one.

    Attributes:
      indices: int64 [M, k], which rows.
      distances: float64 [M, k].
    """

    indices: np.ndarray
    distances: np.ndarray


def nearest(
    queries: np.ndarray,
    features: np.ndarray,
    k: int,
    *,
    metric: str = "cosine",
    leave_out: Sequence[int] | np.ndarray | None = None,
) -> Neighbours:
    """Returns the k rows of `features` that are nearest to each query: exactly, not nearly.

    Distances are computed in float64, in blocks: `features` may be larger than the memory, as
    `np.load(file, mmap_mode="r")` gives it.

    Args:
      queries: [M, …]; axes behind the first are one vector.
      features: [N, …] likewise.
      k: how many.
      metric: "cosine", 1 - the cosine of the angle, which is 1 for a vector of zeros; or
        "euclidean".
      leave_out: int [M], for each query a row that is not meant: itself, where the queries are
        among the features.

    Raises:
      ConfigError: for another metric, or a k that is no number from 1 to the rows there are.
      DataError: for features that do not fit, or are not finite.
    """
    if metric not in METRICS:
        raise ConfigError(
            f"metric {metric!r}: there is none.{suggest(metric, METRICS)} "
            f"Allowed: {', '.join(METRICS)}"
        )
    if queries.shape[1:] != features.shape[1:]:
        raise DataError(
            f"queries of {list(queries.shape[1:])} cannot be compared with features of "
            f"{list(features.shape[1:])}; take the same endpoint of the same model"
        )
    there = len(features) - (leave_out is not None)
    if not 1 <= k <= there:
        raise ConfigError(f"k={k}: give a number from 1 to the {there} rows there are")
    found = [
        _nearest(
            _vectors(queries[i : i + QUERIES], i, metric),
            features,
            k,
            metric,
            None if leave_out is None else np.asarray(leave_out)[i : i + QUERIES],
        )
        for i in range(0, len(queries), QUERIES)
    ]
    none = Neighbours(np.zeros((0, k), np.int64), np.zeros((0, k)))
    return Neighbours(*map(np.concatenate, zip(none, *found, strict=True)))


def _nearest(
    queries: np.ndarray, features: np.ndarray, k: int, metric: str, leave_out: np.ndarray | None
) -> Neighbours:
    """Returns the same for one block of vectors."""
    best = Neighbours(np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0)))
    for low in range(0, len(features), ROWS):
        rows = _vectors(features[low : low + ROWS], low, metric)
        indices = np.broadcast_to(low + np.arange(len(rows)), (len(queries), len(rows)))
        distances = _distances(queries, rows, metric)
        if leave_out is not None:
            distances[indices == leave_out[:, None]] = np.inf
        both = [
            np.concatenate(pair, axis=1) for pair in zip(best, (indices, distances), strict=True)
        ]
        order = np.argsort(both[1], axis=1, kind="stable")[:, :k]
        best = Neighbours(*(np.take_along_axis(part, order, axis=1) for part in both))
    if metric == "cosine":
        return best
    exact = np.stack(
        [
            np.linalg.norm(query - _vectors(features[rows], 0, metric), axis=1)
            for query, rows in zip(queries, best.indices, strict=True)
        ]
    )
    return Neighbours(best.indices, exact)


def _distances(queries: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    """Returns what orders rows by their distance, float64 [M, N]: for cosines the distance."""
    products = queries @ rows.T
    if metric == "cosine":
        return np.clip(1 - products, 0, 2)
    return (queries**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * products


def _vectors(features: np.ndarray, first: int, metric: str) -> np.ndarray:
    """Returns features as float64 [N, D], for cosines of length 1, or 0 where they are zeros."""
    vectors = np.asarray(features, np.float64).reshape(len(features), -1)
    wrong = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(wrong):
        raise DataError(f"row {first + wrong[0]} of the features is not finite")
    if metric == "cosine":
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(lengths > 0, lengths, 1)
    return vectors
