"""No model comes in without another implementation that it was compared with."""

import importlib
from pathlib import Path

from tests.parity.compare import Case
from tests.parity.table import ELSEWHERE
from tests.parity.test_resnet import DEPTHS
import zoo


def test_every_model_is_compared_in_float32_and_every_file_in_float64():
    compared = {*ELSEWHERE, *(f"resnet{depth}" for depth in DEPTHS)}
    for path in Path(__file__).parent.glob("test_*.py"):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        cases = [case for case in getattr(module, "CASES", []) if isinstance(case, Case)]
        assert all("float32" in case.precisions for case in cases)
        assert not cases or any("float64" in case.precisions for case in cases), path
        compared |= {case.name for case in cases}
    assert compared == set(zoo.list_models())
