"""Files of torch: exact bits of state dicts, and no way in for anything else."""

from collections import OrderedDict
import copy
import io
import logging
import os
import pickle
import re
import sys
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.errors import WeightsError
from zoo.weights import torch_files
from zoo.weights.safetensors_files import write_safetensors
from zoo.weights.torch_files import open_torch

MESSAGE_LIMIT = 450


def read_all(path, key=None) -> dict[str, np.ndarray]:
    with open_torch(path, key) as tensors:
        arrays = {name: tensor.read() for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            assert (tensor.shape, tensor.dtype) == (arrays[name].shape, arrays[name].dtype.name)
    return arrays


def refusal(path, key=None) -> str:
    """Returns the message, one line that names the file and never the dangerous way out."""
    with pytest.raises(WeightsError) as error:
        read_all(path, key)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert len(message) < MESSAGE_LIMIT + len(str(path))
    assert "weights_only" not in message
    return message


def zip_of(members, compression=zipfile.ZIP_STORED, twice: int = 0) -> bytes:
    """An archive, whose first member is listed again under other names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for i in range(twice):
            again = copy.copy(archive.filelist[0])
            again.filename = f"archive/data/{i}"
            archive.filelist.append(again)
    return file.getvalue()


PICKLE = pickle.dumps({"a": bytes(10_000)}, 2)
ARCHIVE = zip_of({"archive/data.pkl": PICKLE})
BOMB = {"archive/data.pkl": b"", "archive/data/0": bytes(10**6)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty, 0 bytes"),
        (b"<html>", "is a web page, not the file"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (PICKLE, "is a pickle that torch.save did not write"),
        (ARCHIVE[:-30], "is a damaged zip archive"),
        (b"PK\x03\x04" + bytes(100), "is a damaged zip archive"),
        (zip_of({"a": b""}), "is a zip archive that torch.save did not write"),
        (zip_of({"a/data.pkl": b"", "b/data.pkl": b""}), "that torch.save did not write"),
        (zip_of({"a/data.pkl": b"", "a/constants.pkl": b""}), "is a TorchScript program"),
        (zip_of(BOMB, zipfile.ZIP_DEFLATED), "members are compressed or overlap"),
        (zip_of({"a/data.pkl": os.urandom(99)}, zipfile.ZIP_DEFLATED), "are compressed or overlap"),
        (zip_of(BOMB, zipfile.ZIP_LZMA), "members are compressed or overlap"),
        (zip_of({"archive/data.pkl": PICKLE}, twice=3), "members are compressed or overlap"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives hold the time
)
def test_what_torch_does_not_write_is_refused_before_torch_sees_it(
    tmp_path, monkeypatch, data, message
):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pth").write_bytes(data)
    assert message in refusal(tmp_path / "a.pth")


def test_other_files_are_named(tmp_path):
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "a.pth")
    write_safetensors(tmp_path / "a.pth", {"x": np.ones(2)}, {})
    assert "is a safetensors file; give it that suffix" in refusal(tmp_path / "a.pth")
    os.truncate(tmp_path / "a.pth", 9 * 2**30)
    assert "has 9663676416 bytes, at most 8589934592" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1", "2.9.1+cu128", "unknown"])
def test_a_torch_that_could_run_the_file_is_refused(tmp_path, monkeypatch, version):
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__=version))
    (tmp_path / "a.pth").write_bytes(ARCHIVE)
    message = refusal(tmp_path / "a.pth")
    assert f"torch {version} can be made to run" in message
    assert "2.10 is needed: pip install 'zoo[torch]'" in message


def test_without_torch_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pth").write_bytes(ARCHIVE)
    assert "pip install 'zoo[torch]'" in refusal(tmp_path / "a.pth")


def test_every_version_from_the_oldest_is_let_in(tmp_path, monkeypatch):
    calls = []

    def load(file, **arguments):
        calls.append(arguments)
        return {}

    (tmp_path / "a.pth").write_bytes(ARCHIVE)
    for version in ("2.10.0", "2.13.0+cpu", "3.0"):
        torch = types.SimpleNamespace(__version__=version, load=load)
        monkeypatch.setitem(sys.modules, "torch", torch)
        assert "holds a dict, no state dict" in refusal(tmp_path / "a.pth")
    assert calls == [{"map_location": "cpu", "weights_only": True, "mmap": False}] * 3


# From here on with torch, which is installed where slow tests run.


def save(value, path, legacy=False):
    import torch

    torch.save(value, path, _use_new_zipfile_serialization=not legacy)


def weights() -> dict:
    """Of every dtype, with gaps in memory, shared memory and none."""
    import torch

    bits = torch.from_numpy(np.random.default_rng(0).integers(0, 2**15, (4, 6), np.int16))
    large = torch.arange(24.0).reshape(4, 6)
    return {
        "bfloat16": bits.view(torch.bfloat16),
        "bfloat16.T": bits.view(torch.bfloat16).T,
        "float16": bits.clone().view(torch.float16),
        "float64": large.double(),
        "view": large[1:3, ::2],
        "transposed": large.T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
        "counter": torch.tensor(7),
        "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
        "int8": torch.arange(3, dtype=torch.int8),
    }


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_is_read_bit_by_bit(tmp_path, legacy):
    import torch

    state = weights()
    save(OrderedDict(state), tmp_path / "a.pth", legacy)
    arrays = read_all(tmp_path / "a.pth")
    assert list(arrays) == list(state)
    for name, tensor in state.items():
        array = arrays[name]
        assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
        if tensor.dtype == torch.bfloat16:
            assert array.dtype == jnp.bfloat16
            array, tensor = array.view(np.int16), tensor.contiguous().view(torch.int16)
        expected = tensor.detach().numpy()
        assert (array.shape, array.tobytes()) == (expected.shape, expected.tobytes()), name


@pytest.mark.slow
def test_a_state_dict_is_found_in_a_checkpoint(tmp_path, caplog):
    import torch

    path, state = tmp_path / "a.pth", {"fc.weight": torch.ones(2)}
    caplog.set_level(logging.INFO)
    for key in torch_files.KEYS:
        save({key: state, "epoch": 3, "optimizer": {"state": {}}}, path)
        assert list(read_all(path)) == ["fc.weight"]
        assert caplog.messages[-1] == f"{path}: took the weights under {key!r}"
    save({"model": state, "model_ema": {"fc.bias": torch.ones(2)}, "mine": state}, path)
    assert "has weights under ['model', 'model_ema']; say which" in refusal(path)
    assert list(read_all(path, "model_ema")) == ["fc.bias"]
    assert list(read_all(path, "mine")) == ["fc.weight"]
    assert "has nothing under key='other'" in refusal(path, "other")


@pytest.mark.slow
def test_the_prefix_of_wrappers_is_taken_off(tmp_path):
    import torch

    network = torch.nn.Linear(2, 2)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    for wrapper in (torch.nn.DataParallel(network), averaged):
        save(wrapper.state_dict(), tmp_path / "a.pth")
        assert list(read_all(tmp_path / "a.pth")) == ["weight", "bias"]
    state = {"module.weight": torch.ones(2), "head": torch.ones(2)}
    save(state, tmp_path / "a.pth")
    assert list(read_all(tmp_path / "a.pth")) == list(state)  # not common to all


@pytest.mark.slow
def test_what_is_no_dense_tensor_is_named(tmp_path):
    import torch

    path, one = tmp_path / "a.pth", torch.ones(1)
    for value, message in [
        (torch.nn.Linear(2, 2), "holds torch.nn.modules.linear.Linear, which is no tensor"),
        ([one], "holds a list, no state dict"),
        (one, "holds a Tensor, no state dict"),
        ({}, "holds a dict, no state dict"),
        ({3: one}, "holds a dict, no state dict"),
        ({"a": one, "epoch": 3}, "'epoch' is of type int, no tensor"),
        ({"a": one, "more": {"b": one}}, "'more' is of type dict, no tensor"),
        ({"../a": one}, "'../a' is not allowed"),
        ({"a": one.to_sparse()}, "is torch.sparse_coo float32 on cpu"),
        ({"a": torch.ones(1, device="meta")}, "is torch.strided float32 on meta"),
        ({"a": torch._neg_view(one)}, "is torch.strided float32 on cpu, read are dense"),
        ({"a": one.bool()}, "is torch.strided bool on cpu"),
        ({"a": one.to(torch.complex64)}, "is torch.strided complex64"),
        ({"a": one.to(torch.float8_e4m3fn)}, "is torch.strided float8_e4m3fn"),
        ({"a": one.expand(10**12)}, "tensor 'a' [1000000000000] is larger than the file"),
        ({"state_dict": torch.nn.Linear(2, 2)}, "holds torch.nn.modules.linear.Linear"),
    ]:
        save(value, path)
        assert message in refusal(path)


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("forced", ["0", "1"])
def test_a_file_that_runs_a_program_is_refused(tmp_path, monkeypatch, legacy, forced):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)  # may not matter
    canary, path = tmp_path / "canary", tmp_path / "a.pth"

    class Program:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    save({"a": Program()}, path, legacy)
    assert "system, which is no tensor and could run anything" in refusal(path)
    assert not canary.exists()
    import torch

    torch.load(path, weights_only=False)  # the file does what it is said to do
    assert canary.exists()


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_file_is_refused_or_has_the_same_names(tmp_path, legacy):
    path, state = tmp_path / "a.pth", weights()
    save(state, path, legacy)
    whole = path.read_bytes()
    for size in [*range(0, len(whole) - 1, 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        refusal(path)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            read_all(path)
        except WeightsError as error:
            refused += 1
            assert re.match(r"[^\n]+$", str(error))
    assert 30 < refused < 300
