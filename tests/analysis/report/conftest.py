"""Pages of runs that never were."""

import pytest

from zoo.analysis.report import page


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals are tested elsewhere (tests/analysis/test_measuring.py)."""
    monkeypatch.setattr(page, "RESAMPLES", {True: 20, False: 20})
