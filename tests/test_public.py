"""What a stranger meets first: the import, the names, the islands."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT
import zoo

# An island may import itself and those before it.
ISLAND_A = {
    "description",
    "errors",
    "folding",
    "images",
    "inference",
    "layers",
    "models",
    "ops",
    "registry",
    "weights",
}
ISLAND_B = {"data", "tasks", "training", "analysis", "commands"}
HEAVY = {"tensorflow", "tensorflow_datasets", "orbax", "grain", "ml_collections", "matplotlib"}


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_import_brings_nothing_along():
    run_python(f"import zoo, sys; assert not {HEAVY | {'absl'}} & set(sys.modules)")


def test_a_model_brings_nothing_heavy_along():
    # absl comes with flax.linen itself.
    run_python(
        "import zoo, sys; zoo.create_model('lenet5'); "
        f"found = {HEAVY | {'sklearn', 'torch', 'PIL'}} & set(sys.modules); assert not found, found"
    )


def test_trainer_never_loads_tensorflow():
    run_python("import train, sys; assert not {'tensorflow', 'torch'} & set(sys.modules)")


def test_without_pillow_it_says_what_to_install():
    run_python(
        "import sys; sys.modules['PIL'] = None\n"
        "from zoo.weights.preprocessing import Preprocessing\n"
        "try: Preprocessing(8)\n"
        "except ImportError as error: assert 'zoo[weights]' in str(error)\n"
        "else: raise SystemExit('no error')"
    )


def test_public_names_exist():
    assert all(hasattr(zoo, name) for name in zoo.__all__)
    assert dir(zoo) == zoo.__all__
    with pytest.raises(AttributeError, match="no attribute 'resnet'"):
        _ = zoo.resnet


def imports_of(path) -> set[str]:
    """Returns the rooms of zoo that a file imports, at any depth of the code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("zoo.")}
    return found


def test_models_do_not_know_the_trainer():
    for path in (ROOT / "zoo").rglob("*.py"):
        room = path.relative_to(ROOT / "zoo").parts[0].removesuffix(".py")
        if room in ISLAND_A:
            assert not imports_of(path) & ISLAND_B, path
        else:
            assert room in ISLAND_B | {"__init__", "__main__"}, f"{path} is in no known room"
        assert "tests" not in imports_of(path), path


def test_within_the_second_island_imports_point_down():
    order = ["data", "tasks", "training", "analysis", "commands"]
    for i, room in enumerate(order):
        for path in (ROOT / "zoo" / room).rglob("*.py"):
            assert not imports_of(path) & set(order[i + 1 :]), path
