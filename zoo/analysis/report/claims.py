"""What was said, one answer after the other, and which of them deserve a picture."""

from typing import NamedTuple

import numpy as np

from zoo.analysis.outcomes import Outcomes
from zoo.tasks.multilabel import MultiLabel


class Claims(NamedTuple):
    """M answers: one for each example, or one for each label of each.

    Attributes:
      rows: int [M], of which example.
      truth: int [M], an index into `names`.
      said: int [M], likewise.
      sure: float [M], the probability of what was said.
      names: what can be said.
      affirmative: which of the names are a yes; None if it makes no difference.
    """

    rows: np.ndarray
    truth: np.ndarray
    said: np.ndarray
    sure: np.ndarray
    names: tuple[str, ...]
    affirmative: list[int] | None

    @property
    def right(self) -> np.ndarray:
        """Whether what was said is true, bool [M]."""
        return self.truth == self.said


def claims_of(outcomes: Outcomes, names: tuple[str, ...]) -> Claims:
    """Returns the answers of a classification, of a binary or of a multi-label task.

    Args:
      outcomes: of any of them.
      names: of the classes or labels.
    """
    p, truth, said = outcomes.probabilities, outcomes.truth, outcomes.said
    count = len(p)
    if isinstance(outcomes.task, MultiLabel):  # "not cat" and "cat", "not dog" and "dog", …
        base = 2 * np.arange(len(names))
        both = tuple(word for name in names for word in (f"not {name}", name))
        rows = np.repeat(np.arange(count), len(names))
        true, claimed = ((base + x.astype(np.int64)).ravel() for x in (truth, said))
        sure = np.where(said, p, 1 - p).ravel()
        return Claims(rows, true, claimed, sure, both, list(range(1, len(both), 2)))
    if outcomes.sigmoids:
        sure = np.where(said == 1, p[:, 0], 1 - p[:, 0])
    else:
        sure = p[np.arange(count), said]
    return Claims(np.arange(count), truth, said, sure, names, None)


def worth_seeing(claims: Claims, many: int) -> np.ndarray:
    """Returns which answers are worth a picture, int, the worthiest first.

    Before all others those that answer three questions: what is it sure of and wrong, least sure
    of, sure of and right. Then, one after the other, the same of every class, and the surest
    mistakes of every kind.

    Args:
      claims: the answers.
      many: how many for each question, class and kind of mistake.
    """
    truth, said, right = claims.truth, claims.said, claims.right
    typical = right if claims.affirmative is None else right & np.isin(said, claims.affirmative)
    surest = np.argsort(-claims.sure, kind="stable")
    rank = np.full(len(truth), many)  # many: not worth it
    for order, among in ((surest, ~right), (surest[::-1], np.ones_like(right)), (surest, typical)):
        own = order[among[order]]
        for groups in (truth, said, truth * len(claims.names) + said):
            rank[own] = np.minimum(rank[own], ranks_within(groups[own]))
        rank[own[:many]] = -1
    order = np.lexsort((-claims.sure, right, rank))
    return order[rank[order] < many]


def ranks_within(groups: np.ndarray) -> np.ndarray:
    """Returns how many of the same group stand before each, int [N].

    Example:
      >>> ranks_within(np.array([7, 3, 7, 7, 3])).tolist()
      [0, 0, 1, 2, 1]
    """
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.diff(ordered, prepend=ordered[:1] - 1) != 0
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1]
    out = np.empty(len(groups), np.int64)
    out[order] = np.arange(len(groups)) - first
    return out
