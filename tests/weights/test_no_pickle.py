"""Nothing that is loaded runs: not by what the code says, and not when hostile files come in."""

import ast
import io
import json
import os
from pathlib import Path
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.weights.files import random_variables, write_legacy_h5
from zoo.weights.safetensors_files import write_safetensors

TORCH_HOME = ROOT / "zoo/weights/torch_files.py"  # the only file that may know torch

FORBIDDEN_MODULES = {
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "pickle",
    "shelve",
}
FORBIDDEN_BUILTINS = {"__import__", "compile", "eval", "exec"}
FORBIDDEN_ATTRIBUTES = {"add_safe_globals", "load_model", "read_pickle", "safe_globals"}


def imported(node: ast.AST) -> set[str]:
    """Returns the packages that a statement or a call imports."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    elif isinstance(node, ast.Call):  # importlib.import_module and its like
        names = [a.value for a in node.args if isinstance(a, ast.Constant)]
    return {str(name).split(".")[0] for name in names}


def is_literally(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def unsafe_call(node: ast.Call, may_use_torch: bool) -> str | None:
    """Returns what is wrong with a call, by its name and arguments as they are written."""
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if "allow_pickle" in keywords and not is_literally(keywords["allow_pickle"], False):
        return "allow_pickle"
    if "weights_only" in keywords and not is_literally(keywords["weights_only"], True):
        return "weights_only"
    if not isinstance(node.func, ast.Attribute):
        return None
    called = ast.unparse(node.func)
    if called in ("np.load", "numpy.load") and (len(node.args) > 2 or None in keywords):
        return f"{called} with arguments that are not named"
    if called.startswith("yaml.") and "load" in node.func.attr and node.func.attr != "safe_load":
        return called
    reads = node.func.attr == "load" and (may_use_torch or called.startswith("torch."))
    if reads and not (may_use_torch and "weights_only" in keywords):
        return f"{called} without weights_only=True, or in another file than torch_files.py"
    return None


def offences(source: str, may_use_torch: bool = False) -> list[str]:
    """Returns whatever in a program could run what a file says."""
    forbidden = FORBIDDEN_MODULES | (set() if may_use_torch else {"torch"})
    found = []
    for node in ast.walk(ast.parse(source)):
        wrong = sorted(imported(node) & forbidden)
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_BUILTINS:
            wrong.append(node.id)
        if isinstance(node, ast.Attribute) and (
            node.attr in FORBIDDEN_ATTRIBUTES
            or ast.unparse(node) in {f"builtins.{name}" for name in FORBIDDEN_BUILTINS}
        ):
            wrong.append(node.attr)
        if isinstance(node, ast.Call):
            wrong.append(unsafe_call(node, may_use_torch))
        found += [f"line {getattr(node, 'lineno', 0)}: {text}" for text in wrong if text]
    return found


def test_no_line_of_the_package_runs_what_a_file_says():
    paths = [ROOT / "train.py", *(ROOT / "zoo").rglob("*.py")]
    assert TORCH_HOME in paths and len(paths) > 30
    found = {str(path): offences(path.read_text(), path == TORCH_HOME) for path in paths}
    assert not {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "def f():\n    from dill import load",
        "import joblib.numpy_pickle",
        "import importlib; importlib.import_module('_pickle')",
        "import importlib; importlib.import_module('torch.serialization')",
        "import torch",
        "import torch.nn",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "anything.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "numpy.load(path, None, True)",
        "np.load(path, **arguments)",
        "np.lib.format.read_array(file, allow_pickle=True)",
        "eval('1')",
        "run = exec",
        "compile(text, 'x', 'exec')",
        "__import__('os')",
        "import builtins; builtins.eval('1')",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "keras.models.load_model(path)",
        "pandas.read_pickle(path)",
    ],
)
def test_the_scan_finds(source):
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.load(file, weights_only=flag)",
        "torch.load(file, **arguments)",
        "torch.jit.load(file)",
        "from torch import serialization as s; s.load(file)",
        "torch.serialization.add_safe_globals([f])",
        "import torch, pickle",
    ],
)
def test_the_scan_finds_where_torch_is_allowed(source):
    assert offences(source, may_use_torch=True)


def test_the_scan_lets_pass_what_is_safe():
    assert not offences("import re; re.compile('a'); f.lower(x).compile(); m.eval()")
    assert not offences("np.load(p); np.load(p, allow_pickle=False); json.load(f)")
    assert not offences("yaml.safe_load(text)")
    assert not offences("import torch; torch.load(f, weights_only=True)", may_use_torch=True)


# Every way in for a file. `everything` reads all tensors of what a context manager yields.
DOORS = [
    "everything(safetensors_files.open_safetensors([path]))",
    "safetensors_files.read_metadata(path)",
    "everything(keras_files.open_keras(path))",
    "zoo.load('lenet5', path, num_classes=10)",
]
TORCH_DOORS = ["everything(torch_files.open_torch(path))"]

CHILD = """
import encodings.cp437, json, pickle, sys  # the first is zipfile's, of names
import zoo
from zoo.errors import WeightsError
from zoo.weights import keras_files, safetensors_files, torch_files

def everything(opened):
    with opened as tensors:
        return [tensor.read() for tensor in tensors.values()]

def refuses(door, path):
    try:
        door(path)
    except WeightsError:
        return True
    return False

good, hostile, (control,) = json.loads(sys.argv[1])
doors = [DOORS]
# What is imported when needed is imported by now; every good file fits some door.
assert all(not all([refuses(door, path) for door in doors]) for path in good)

SHELLS = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
seen = []
def watch(event, args):
    if event == "exec":
        seen.append("exec " + args[0].co_filename)
    elif event in ("pickle.find_class", *SHELLS) or event.startswith(("subprocess", "socket")):
        seen.append(event)

sys.addaudithook(watch)
refused = 0
for door in doors:
    for path in good:
        refuses(door, path)
    refused += sum(refuses(door, path) for path in hostile)
by_doors = list(seen)
with open(control, "rb") as file:
    pickle.load(file)
print(json.dumps([refused, by_doors, seen[len(by_doors):]]))
"""


class Program:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def assert_nothing_runs(doors: list[str], good: list[Path], hostile: list[Path]) -> None:
    """Opens files in a program of its own, which also shows that running would be seen."""
    folder = hostile[0].parent
    control = write_all(folder, {"control": pickle.dumps(Program(folder / "seen"))})
    files = json.dumps([[str(path) for path in group] for group in (good, hostile, control)])
    lambdas = ", ".join(f"lambda path: {door}" for door in doors)
    done = subprocess.run(
        [sys.executable, "-c", CHILD.replace("DOORS", lambdas), files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    refused, by_doors, by_control = json.loads(done.stdout)
    assert by_doors == []
    assert refused == len(doors) * len(hostile)
    assert not (folder / "canary").exists()
    assert by_control == ["pickle.find_class", "os.system"]
    assert (folder / "seen").exists()


def write_all(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def hostile_files(folder: Path) -> list[Path]:
    """Pickles that run a program, as such and inside of other formats."""
    program = Program(folder / "canary")
    files = {f"protocol{i}": pickle.dumps({"a": program}, i) for i in range(6)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("archive/data.pkl", files["protocol2"])
        members.writestr("archive/version", "3\n")
    array = io.BytesIO()
    np.save(array, np.array([program, None]), allow_pickle=True)
    header = json.dumps({"a": 0}).encode()
    files |= {"zip": archive.getvalue(), "npy": array.getvalue()}
    files["behind"] = len(header).to_bytes(8, "little") + header + files["protocol4"]
    return write_all(folder, {f"{name}.safetensors": data for name, data in files.items()})


def good_files(folder: Path) -> list[Path]:
    """Numbers that happen to be a pickle; a network; Keras's layers."""
    data = np.frombuffer(pickle.dumps(Program(folder / "canary")), np.uint8)
    write_safetensors(folder / "good", {"data": data}, {"data": "import os"})
    _, lenet = random_variables("lenet5", (32, 32, 1), num_classes=10)
    arrays = {"/".join(path): array for path, array in lenet.items()}
    write_safetensors(folder / "lenet", arrays, {})
    write_legacy_h5(folder / "keras", {"conv/kernel": np.ones(3), "conv/bias": np.ones(3)})
    return [folder / "good", folder / "lenet", folder / "keras"]


def test_hostile_files_run_nothing(tmp_path):
    assert_nothing_runs(DOORS, good_files(tmp_path), hostile_files(tmp_path))


@pytest.mark.slow
def test_hostile_files_of_torch_run_nothing(tmp_path):
    import torch

    good, hostile = [], hostile_files(tmp_path)
    for modern in (True, False):
        for value, paths in [(torch.ones(2), good), (Program(tmp_path / "canary"), hostile)]:
            path = tmp_path / f"{modern}{len(paths)}.pth"
            torch.save({"a": value}, path, _use_new_zipfile_serialization=modern)
            paths.append(path)
    assert_nothing_runs(TORCH_DOORS, good, hostile)
