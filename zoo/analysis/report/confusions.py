"""What is taken for what, and the figures of each class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.analysis.figures import confusion_matrix
from zoo.analysis.outcomes import Outcomes

MOST_SHOWN = 30  # classes in the matrix; of more, those confused most often
MOST_CELLS = 20_000  # of mistakes that the page knows
MOST_PAIRS = 200  # in the table of the most frequent mistakes


def confusions(outcomes: Outcomes, names: Sequence[str]) -> dict[str, Any]:
    """Returns the confusion matrix and the most frequent mistakes.

    Args:
      outcomes: of a classification or a binary task.
      names: of the K classes.

    Returns:
      "names"; "support" [K]; "cells", those that are not 0, as [true, said, count]; "block", the
      classes to show first; "pairs", the most frequent mistakes, like cells; "kinds", how many
      kinds of mistake there are; "text".
    """
    matrix = confusion_matrix(outcomes.truth, outcomes.said, len(names))
    support = matrix.sum(1)
    pairs = _mistakes(matrix)
    kept = pairs[:MOST_CELLS]
    diagonal = [(k, k, int(n)) for k, n in enumerate(np.diag(matrix)) if n]
    return {
        "names": list(names),
        "support": support.tolist(),
        "cells": [list(cell) for cell in (*diagonal, *kept)],
        "block": block(pairs, len(names)),
        "pairs": [list(pair) for pair in pairs[:MOST_PAIRS]],
        "kinds": len(pairs),
        "text": _text(pairs, names),
    }


def _mistakes(matrix: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns (true, said, count) of every kind of mistake, the most frequent first."""
    wrong = matrix - np.diag(np.diag(matrix))
    truths, saids = np.nonzero(wrong)
    counts = wrong[truths, saids]
    order = np.argsort(-counts, kind="stable")
    return [(int(truths[i]), int(saids[i]), int(counts[i])) for i in order]


def block(pairs: Sequence[tuple[int, int, int]], classes: int) -> list[int]:
    """Returns the classes to show in a matrix, at most `MOST_SHOWN`, in their order.

    Args:
      pairs: (true, said, count), the most frequent first: classes are taken as they come.
      classes: K.
    """
    if classes <= MOST_SHOWN:
        return list(range(classes))
    taken: dict[int, None] = {}
    for true, said, _ in pairs:
        both = taken | {true: None, said: None}
        if len(both) > MOST_SHOWN:
            break
        taken = both
    return sorted(taken) or list(range(MOST_SHOWN))


def _text(pairs: Sequence[tuple[int, int, int]], names: Sequence[str]) -> str:
    if not pairs:
        return "Nothing is taken for anything else: every example is recognised."
    total = sum(count for _, _, count in pairs)
    half, kinds = 0, 0
    for _, _, count in pairs:
        half, kinds = half + count, kinds + 1
        if half >= total / 2:
            break
    true, said, count = pairs[0]
    often = f"{names[true]} for {names[said]}, {count:,} time{'s' * (count > 1)}"
    half_of = f"Half of them are of {kinds:,} of {len(pairs):,} kinds. " if len(pairs) > 9 else ""
    return (
        f"There {'are' if total > 1 else 'is'} {total:,} mistake{'s' * (total > 1)}. {half_of}The "
        f"most frequent is {often}. Rows are what is true, columns what was said; the stronger the "
        "colour, the larger the part of its row."
    )


def class_table(
    outcomes: Outcomes, names: Sequence[str], measured: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the figures of each class, or label.

    Args:
      outcomes: what was said.
      names: of the classes or labels.
      measured: the figures of each, as `zoo.analysis.measuring.measure` returns them.
    """
    rows = [
        {
            "name": name,
            "f1": row["f1"] if row["examples"] or row["said"] else None,
            "precision": row["precision"] if row["said"] else None,
            "recall": row["recall"] if row["examples"] else None,
            "support": row["examples"],
        }
        for name, row in zip(names, measured, strict=True)
    ]
    taken = outcomes.truth.ndim == 1
    if taken:
        matrix = confusion_matrix(outcomes.truth, outcomes.said, len(names))
        for k, row in enumerate(rows):
            others = matrix[k] * (np.arange(len(names)) != k)
            if others.any():
                said = int(others.argmax())
                row |= {"taken_for": names[said], "taken": int(others[said])}
    text = (
        "Precision: how many of those said to be of the class are. Recall: how many of the "
        "class are found. F1 is their harmonic mean, and the worst class comes first."
    )
    return {"rows": rows, "taken": taken, "text": text}
