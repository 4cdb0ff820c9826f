"""Whether probabilities mean what they say, and one number that mends most of it.

Guo et al. 2017, "On calibration of modern neural networks", https://arxiv.org/abs/1706.04599.
A temperature is fitted on examples of its own, or by cross-validation: fitted and measured on
the same examples it flatters itself.
"""

from typing import NamedTuple

import numpy as np

from zoo.analysis.figures import log_softmax, one_hot, sigmoid
from zoo.errors import ConfigError

BINS = 15  # section 4 of the paper
TEMPERATURES = (0.01, 100.0)  # the limits of what is fitted


class Reliability(NamedTuple):
    """A reliability diagram's bars.

    Attributes:
      edges: float [B + 1], of the bins; each holds its upper edge, the first its lower too.
      counts: [B], how many examples are in each.
      confidence: float [B], their mean probability; NaN of an empty bin.
      accuracy: float [B], how many of them are as said; likewise.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    def expected_error(self) -> float:
        """Returns ECE, equation 3: the mean gap between accuracy and confidence."""
        there = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[there]
        return float(self.counts[there] @ gaps / self.counts.sum()) if there.any() else np.nan

    def largest_error(self) -> float:
        """Returns MCE, equation 5: the largest of the gaps."""
        there = self.counts > 0
        return float(np.abs(self.accuracy - self.confidence)[there].max()) if any(there) else np.nan


def reliability(
    probabilities: np.ndarray,
    right: np.ndarray,
    *,
    bins: int = BINS,
    adaptive: bool = False,
    weights: np.ndarray | None = None,
) -> Reliability:
    """Returns a reliability diagram.

    Args:
      probabilities: [N]: of the class that was said, or of a yes.
      right: bool [N] (or 0 to 1): whether it was that class, or a yes.
      bins: their number.
      adaptive: bins with as many examples each (Nixon et al. 2019,
        https://arxiv.org/abs/1904.01685) instead of as wide.
      weights: [N], how often each example counts.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins}: must be 1 or more")
    edges = np.linspace(0, 1, bins + 1)
    if adaptive and len(probabilities):
        edges[1:-1] = np.quantile(probabilities, edges[1:-1])
    place = np.searchsorted(edges[1:-1], probabilities)
    w = np.ones(len(probabilities)) if weights is None else weights
    counts, said, true = (
        np.bincount(place, w * x, minlength=bins) for x in (1.0, probabilities, right)
    )
    divisors = np.where(counts > 0, counts, np.nan)
    return Reliability(edges, counts, said / divisors, true / divisors)


def classwise_error(probabilities: np.ndarray, targets: np.ndarray, *, bins: int = BINS) -> float:
    """Returns the mean over classes of the ECE of "it is this class".

    Kull et al. 2019, https://arxiv.org/abs/1910.12656, section 2; bins as wide.

    Args:
      probabilities: [N, K].
      targets: labels, int [N], or [N, K], 0 to 1.
      bins: their number.
    """
    truths = one_hot(targets, probabilities.shape[1])
    each = zip(probabilities.T, truths.T, strict=True)
    return float(np.mean([reliability(p, t, bins=bins).expected_error() for p, t in each]))


def fit_temperature(logits: np.ndarray, targets: np.ndarray, *, sigmoids: bool = False) -> float:
    """Returns the T with which logits / T have the least cross-entropy, section 4.2.

    Cross-entropy is convex in 1 / T, so its slope is bisected: exact to double precision. T is
    kept within `TEMPERATURES`, where it would go to 0 (every answer is right) or to infinity
    (answers are no better than chance).

    Args:
      logits: [N, K].
      targets: labels, int [N], or probabilities [N, K].
      sigmoids: every logit is a yes or no of its own; targets are then [N, K], 0 to 1.
    """
    if not len(logits):
        raise ConfigError("a temperature cannot be fitted on no examples")
    z = logits.astype(np.float64)
    t = targets.astype(np.float64) if sigmoids else one_hot(targets, logits.shape[1])

    def slope(inverse: float) -> float:
        p = sigmoid(z * inverse) if sigmoids else np.exp(log_softmax(z * inverse))
        return float(np.mean(np.sum(z * (p - t), axis=1)))

    low, high = (np.log(1 / limit) for limit in reversed(TEMPERATURES))
    if slope(np.exp(low)) >= 0:
        return TEMPERATURES[1]
    if slope(np.exp(high)) <= 0:
        return TEMPERATURES[0]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def cross_fitted(
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    sigmoids: bool = False,
    folds: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, list[float]]:
    """Returns logits [N, K], each divided by a T of the other folds, and those temperatures.

    Args:
      logits: [N, K].
      targets: see `fit_temperature`.
      sigmoids: likewise.
      folds: their number, 2 or more.
      seed: of who is in which.
    """
    if not 2 <= folds <= len(logits):
        raise ConfigError(f"folds={folds}: must be 2 to {len(logits)}, the number of examples")
    fold = np.random.default_rng(seed).permutation(len(logits)) % folds
    out, temperatures = logits.astype(np.float64), []
    for i in range(folds):
        others = fold != i
        temperatures.append(fit_temperature(logits[others], targets[others], sigmoids=sigmoids))
        out[~others] /= temperatures[-1]
    return out, temperatures
