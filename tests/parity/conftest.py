"""Memory back after each comparison: no two share a compiled function."""

import gc

import jax
import pytest


@pytest.fixture(autouse=True)
def forget():
    """Drops what was compiled for a case."""
    yield
    jax.clear_caches()
    gc.collect()
