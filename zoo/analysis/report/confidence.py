"""Whether probabilities can be believed."""

import dataclasses
from typing import Any

import numpy as np

from zoo.analysis.outcomes import Outcomes
from zoo.analysis.calibration import cross_fitted, fit_temperature
from zoo.analysis.figures import log_softmax, sigmoid

FOLDS = 5  # where there are no other examples to fit a temperature on


def calibration(answers: Outcomes, fitted_on: Outcomes | None, role: str) -> dict[str, Any]:
    """Returns the reliability diagram, and what a temperature makes of it.

    Args:
      answers: of any task but regression.
      fitted_on: others, to fit the temperature on; None to fit it on parts of the same ones.
      role: what the others are called.

    Returns:
      "bars", "of" (what the probability is of), "ece", "temperature", "ece_after", "text", "note".
    """
    diagram = answers.reliability()
    fit = fitted_on or answers
    temperature = fit_temperature(fit.logits, fit.targets, sigmoids=answers.sigmoids)
    scaled, where = answers.logits / temperature, f"fitted on {role}"
    if fitted_on is None:
        where = "which flatters, as it was fitted on these few examples"
        if len(answers.logits) >= FOLDS:
            where = f"fitted on {FOLDS - 1} of {FOLDS} parts of these examples in turn"
            scaled, _ = cross_fitted(
                answers.logits, answers.targets, sigmoids=answers.sigmoids, folds=FOLDS
            )
    p = sigmoid(scaled) if answers.sigmoids else np.exp(log_softmax(scaled))
    after = dataclasses.replace(answers, logits=scaled, probabilities=p).reliability()
    before, then = diagram.expected_error(), after.expected_error()
    tendency = _tendency(answers, temperature)
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
        "of": "it is so" if answers.sigmoids else "it is right",
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


def _tendency(answers: Outcomes, temperature: float) -> str:
    if answers.right is not None and answers.right.all():
        return "Nothing is wrong among these examples, so that no probability is too large."
    if temperature > 1.05:
        return "This model is surer than it should be."
    if temperature < 0.95:
        return "This model is less sure than it could be."
    return "This model is about as sure as it should be."
