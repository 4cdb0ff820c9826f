"""Whether probabilities can be believed."""

import dataclasses
from typing import Any

import numpy as np

from zoo.analysis.calibration import cross_fitted, fit_temperature
from zoo.analysis.figures import log_softmax, sigmoid
from zoo.analysis.outcomes import Outcomes

FOLDS = 5  # where there are no other examples to fit a temperature on


def calibration(outcomes: Outcomes, fitted_on: Outcomes | None, role: str) -> dict[str, Any]:
    """Returns the reliability diagram, and what a temperature makes of it.

    Args:
      outcomes: of any task but regression.
      fitted_on: others, to fit the temperature on; None to fit it on parts of the same ones.
      role: what the others are called.

    Returns:
      "bars", "of" (what the probability is of), "ece", "temperature", "ece_after", "text", "note".
    """
    diagram = outcomes.reliability()
    fit = fitted_on or outcomes
    temperature = fit_temperature(fit.logits, fit.targets, sigmoids=outcomes.sigmoids)
    scaled, where = outcomes.logits / temperature, f"fitted on {role}"
    if fitted_on is None:
        where = "which flatters, as it was fitted on these few examples"
        if len(outcomes.logits) >= FOLDS:
            where = f"fitted on {FOLDS - 1} of {FOLDS} parts of these examples in turn"
            scaled, _ = cross_fitted(
                outcomes.logits, outcomes.targets, sigmoids=outcomes.sigmoids, folds=FOLDS
            )
    p = sigmoid(scaled) if outcomes.sigmoids else np.exp(log_softmax(scaled))
    after = dataclasses.replace(outcomes, logits=scaled, probabilities=p).reliability()
    before, then = diagram.expected_error(), after.expected_error()
    tendency = _tendency(outcomes, temperature)
    return {
        "bars": [
            {"low": low, "high": high, "count": int(n), "confidence": said, "accuracy": true}
            for low, high, n, said, true in zip(
                diagram.edges[:-1],
                diagram.edges[1:],
                diagram.counts,
                diagram.confidence,
                diagram.accuracy,
                strict=True,
            )
        ],
        "of": "it is so" if outcomes.sigmoids else "it is right",
        "ece": before,
        "temperature": temperature,
        "ece_after": then,
        "text": (
            "Where probabilities can be believed, a column ends at its short line, the mean "
            f"probability of those answers. {tendency}"
        ),
        "note": (
            f"The mean gap (ECE) is {before:.2%}. With logits divided by a temperature of "
            f"{temperature:.3g}, {where}, it is {then:.2%}. The most probable class stays the same."
        ).replace("%", "\u202f%"),
    }


def _tendency(outcomes: Outcomes, temperature: float) -> str:
    if outcomes.right is not None and outcomes.right.all():
        return "Nothing is wrong among these examples, so that no probability is too large."
    if temperature > 1.05:
        return "This model is surer than it should be."
    if temperature < 0.95:
        return "This model is less sure than it could be."
    return "This model is about as sure as it should be."
