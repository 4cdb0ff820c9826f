import jax
import pytest

from zoo.ops import onednn


@pytest.fixture
def use_onednn():
    """oneDNN for the length of a test: others are compared bit by bit with earlier results."""
    onednn.enable()
    yield
    onednn._state["enabled"] = False
    jax.clear_caches()
