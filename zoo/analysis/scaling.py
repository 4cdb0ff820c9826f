"""What a temperature does to a model's probabilities, measured on examples not fitted to."""

import dataclasses
from typing import Any

import numpy as np

from zoo.analysis.calibration import cross_fitted, fit_temperature
from zoo.analysis.intervals import RESAMPLES
from zoo.analysis.measuring import measure
from zoo.analysis.outcomes import outcomes_of
from zoo.analysis.predictions import Predictions
from zoo.errors import ConfigError

FOLDS = 5
SHAPED = ("loss", "brier", "ece", "adaptive_ece", "classwise_ece")  # the figures that change


def scale(
    predictions: Predictions, fitted: Predictions, *, seed: int = 0, number: int = RESAMPLES
) -> dict[str, Any]:
    """Returns the temperature of one split, and the figures of another that is divided by it.

    Args:
      predictions: whose figures are wanted.
      fitted: of the same model, on the split that the temperature is fitted on. If it is the
        same split, each of `FOLDS` parts is divided by what the others give.
      seed: of the parts, and of the bootstrap.
      number: of the bootstrap's resamples.

    Returns:
      "value", the temperature of all of `fitted`; "split" and "examples" of that; "how" the
      figures were made; "figures", those of `SHAPED`; "calibration", the bars.

    Raises:
      ConfigError: for a regression, which has no probabilities.
    """
    fit = outcomes_of(fitted)
    if fit.right is None:
        raise ConfigError(f"{fitted.model}: a regression has no probabilities to calibrate")
    targets = fit.targets
    value = fit_temperature(fit.logits, targets, sigmoids=fit.sigmoids)
    split = fitted.data["split"]
    if predictions.data["fingerprint"] == fitted.data["fingerprint"]:
        how = f"cross-validated in {FOLDS} folds of the same split"
        scaled, _ = cross_fitted(fit.logits, targets, sigmoids=fit.sigmoids, folds=FOLDS, seed=seed)
    else:
        how, scaled = f"fitted on {split}", predictions.logits / value
    scaled_ones = dataclasses.replace(predictions, logits=np.float32(scaled))
    found = measure(scaled_ones, seed=seed, number=number)
    return {
        "value": value,
        "split": split,
        "examples": len(fit.logits),
        "how": how,
        "figures": {name: found["figures"][name] for name in SHAPED if name in found["figures"]},
        "calibration": found["calibration"],
    }
