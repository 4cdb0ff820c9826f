"""Safetensors files: exact bits both ways, and a header that says one thing to every reader."""

import io
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import zipfile

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors import numpy as library

from tests.conftest import ROOT
from zoo.errors import WeightsError
from zoo.weights import safetensors_files
from zoo.weights.safetensors_files import (
    HEADER_LIMIT,
    NAME_LIMIT,
    TENSOR_LIMIT,
    open_safetensors,
    read_metadata,
    write_safetensors,
)

BFLOAT16 = np.dtype(jnp.bfloat16)
DTYPES = ["float64", "float32", "float16", BFLOAT16, "int64", "int32", "int16", "int8", "uint8"]


def raw_array(dtype, shape) -> np.ndarray:
    """Every pattern of bits, NaNs with payloads and subnormal numbers included."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    return data.view(dtype).reshape(shape)


def every_array() -> dict[str, np.ndarray]:
    arrays = {f"a.{np.dtype(d).name}": raw_array(d, (3, 5)) for d in DTYPES}
    return arrays | {
        "counter": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": raw_array("float32", (4, 6)).T,
        "half/scalar": raw_array(BFLOAT16, ()),
        "ünï": np.ones(1, np.float16),
    }


def assert_same(found, arrays):
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name


def read_all(*paths) -> dict[str, np.ndarray]:
    with open_safetensors(paths) as tensors:
        arrays = {name: tensor.read() for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            assert (tensor.shape, tensor.dtype) == (arrays[name].shape, arrays[name].dtype.name)
    return arrays


def header(**entries) -> bytes:
    return json.dumps(entries).encode()


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def file_of(text: bytes, data: bytes = bytes(8)) -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def refusal(path) -> str:
    """Returns the message, which is one line that names the file."""
    with pytest.raises(WeightsError) as error:
        read_all(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert len(message) < 500 + len(str(path))
    return message


def test_what_is_written_is_read_bit_by_bit(tmp_path):
    path, arrays, metadata = tmp_path / "a.safetensors", every_array(), {"format": "zoo", "é": "\n"}
    write_safetensors(path, arrays, metadata)
    assert_same(read_all(path), arrays)
    assert read_metadata(path) == metadata
    write_safetensors(path, {}, {})  # over the other file
    assert read_all(path) == {} and read_metadata(path) == {}
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_the_library_reads_ours_and_we_read_the_library_s(tmp_path):
    arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in every_array().items()}
    write_safetensors(tmp_path / "ours", arrays, {"a": "b"})
    assert_same(library.load_file(tmp_path / "ours"), arrays)
    library.save_file(arrays, tmp_path / "theirs", {"a": "b"})
    assert_same(read_all(tmp_path / "theirs"), arrays)
    assert read_metadata(tmp_path / "theirs") == {"a": "b"}


def test_the_same_arrays_are_the_same_bytes(tmp_path):
    arrays, metadata = every_array(), {str(i): "x" for i in range(9)}
    write_safetensors(tmp_path / "a", arrays, metadata)
    write_safetensors(
        tmp_path / "b", dict(reversed(arrays.items())), dict(reversed(metadata.items()))
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_array_is_aligned(tmp_path):
    for length in range(8):  # of the header
        write_safetensors(tmp_path / "a", every_array(), {"x": "x" * length})
        text = (tmp_path / "a").read_bytes()
        start = 8 + int.from_bytes(text[:8], "little")
        for name, entry in safetensors_files.read_header(tmp_path / "a").entries.items():
            assert (start + entry.start) % every_array()[name].itemsize == 0


def test_the_other_byte_order_is_the_same_numbers(tmp_path):
    write_safetensors(tmp_path / "a", {"x": np.arange(3, dtype=">f4")}, {})
    np.testing.assert_array_equal(read_all(tmp_path / "a")["x"], np.arange(3, dtype=np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"../x": np.ones(1)}, "'../x' is not allowed"),
        ({"x": np.ones(1, bool)}, "dtype 'bool'"),
        ({"x": np.ones(1, jnp.float8_e4m3fn)}, "dtype 'float8_e4m3fn'"),
        ({"x": np.array(["text"])}, "dtype 'str"),
        ({"x": np.array([None])}, "dtype 'object'"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, arrays, message):
    with pytest.raises(WeightsError, match=re.escape(message)):
        write_safetensors(tmp_path / "a", arrays, {})
    assert not os.listdir(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_safetensors(path, {"x": np.ones(2)}, {})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_safetensors(path, {"x": np.zeros(2)}, {})
    np.testing.assert_array_equal(read_all(path)["x"], np.ones(2))
    assert os.listdir(tmp_path) == ["a"]


def test_shards_are_one_set(tmp_path):
    write_safetensors(tmp_path / "1", {"a": np.ones(2), "b": np.ones(3)}, {})
    write_safetensors(tmp_path / "2", {"c": np.zeros(2)}, {})
    assert sorted(read_all(tmp_path / "1", str(tmp_path / "2"))) == ["a", "b", "c"]
    write_safetensors(tmp_path / "2", {"b": np.zeros(2)}, {})
    with pytest.raises(WeightsError, match=re.escape(f"{tmp_path / '2'}: tensor 'b' is in anoth")):
        read_all(tmp_path / "1", tmp_path / "2")


def torch_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    return file.getvalue()


def hdf5() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as group:
        group["x"] = np.ones(3)
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 102469840\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty, 0 bytes"),
        (b"\x08", "no file of weights that is known here (it begins with 08)"),
        (pickle.dumps({"a": 1}, 2), "is a torch pickle: python -m zoo convert"),
        (pickle.dumps({"a": [1] * 999}), "is a torch pickle: python -m zoo convert"),
        (torch_zip(), "is a zip archive, as of torch: python -m zoo convert"),
        (hdf5(), "is an HDF5 file"),
        (b"<!DOCTYPE html>\n<html>", "is a web page, not the file"),
        (b"\n  <html lang='en'>", "is a web page, not the file"),
        (LFS, "is a Git LFS pointer, not the file: fetch it with `git lfs pull`"),
        (b'{"weight_map": {"a": "model-1.safetensors"}}', "JSON text: if it is the index"),
        (bytes(64), "no file of weights that is known here"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives hold the time
)
def test_other_files_under_its_name_are_recognised(tmp_path, data, message):
    (tmp_path / "model.safetensors").write_bytes(data)
    assert message in refusal(tmp_path / "model.safetensors")


def deep(brackets: int) -> bytes:
    return b'{"a":' + b"[" * brackets + b"]" * brackets + b"}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":1', "the header is no JSON"),
        (b'{"\xff":1}', "the header is no JSON ('utf-8' codec"),
        (deep(200_000), "nests too deep"),
        (deep(100), "must have dtype, shape and data_offsets"),
        (b'{"a":' + b"9" * 5000 + b"}", "the header is no JSON (Exceeds the limit"),
        (header(a=None), "must have dtype, shape and data_offsets"),
        (header(a={"dtype": "F32", "shape": [2]}), "must have dtype, shape and data_offsets"),
        (header(a=entry() | {"more": 1}), "must have dtype, shape and data_offsets"),
        (b'{"a":{},"a":{}}', "has 'a' twice"),
        (header(a=entry())[:-2] + b',"dtype":"F32"}}', "has 'dtype' twice"),
        (header(__metadata__=[]), "'__metadata__' may hold strings only"),
        (header(__metadata__={"a": 1}), "'__metadata__' may hold strings only"),
        (header(__metadata__=None), "'__metadata__' may hold strings only"),
        (header(a=entry("BOOL", [8])), "dtype 'BOOL'"),
        (header(a=entry("F8_E4M3", [8])), "dtype 'F8_E4M3', read are F64, F32"),
        (header(a=entry(["F32"])), "has dtype"),
        (header(a=entry(shape=[2.0])), "has shape [2.0]"),
        (header(a=entry(shape=[True, 2])), "has shape [True, 2]"),
        (header(a=entry(shape=[-1, -2])), "has shape [-1, -2]"),
        (header(a=entry(shape=[2**63, 0], offsets=[0, 0])), "has shape [9223372036854775808"),
        (header(a=entry(shape=[2] + [1] * 32)), "has shape [2, 1"),
        (header(a=entry(shape=[2**40])), "takes 4398046511104 bytes"),
        (header(a=entry(shape=[2**40], offsets=[0, 2**42])), "has 8 bytes of 4398046511104"),
        (header(a=entry(shape=[2**32, 2**32])), "takes 73786976294838206464 bytes"),
        (header(a=entry(shape=[3])), "takes 12 bytes, its data_offsets [0, 8] are 8"),
        (header(a=entry(offsets=[8, 0])), "data_offsets [8, 0]"),
        (header(a=entry(offsets=[-8, 0])), "data_offsets [-8, 0]"),
        (header(a=entry(offsets=[0, 8, 9])), "data_offsets [0, 8, 9]"),
        (header(a=entry(offsets=["0", "8"])), "data_offsets ['0', '8']"),
        (header(a=entry(), b=entry()), "tensor 'b' overlaps another"),
        (header(a=entry(shape=[1], offsets=[4, 8])), "tensor 'a' leaves a hole"),
        (header(a=entry(shape=[1], offsets=[0, 4])), "has 4 bytes behind the last tensor"),
        (header(a=entry(shape=[4], offsets=[0, 16])), "has 8 bytes of 16 and was cut short"),
        (b"{}", "has 8 bytes behind the last tensor"),
        *(
            (header(**{name: entry()}), "is not allowed")
            for name in ("..", "a/../b", "/a", "\\a", "", "a\0", "\x1b[2J", "a" * (NAME_LIMIT + 1))
        ),
        (header(**{str(i): 0 for i in range(TENSOR_LIMIT + 1)}), "declares 10001 tensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # some texts are long
)
def test_a_header_that_is_wrong_is_refused(tmp_path, text, message):
    (tmp_path / "model.safetensors").write_bytes(file_of(text))
    assert message in refusal(tmp_path / "model.safetensors")


def test_a_header_may_not_be_large(tmp_path):
    path = tmp_path / "a"
    text = header(a=entry())
    path.write_bytes(file_of(text.ljust(HEADER_LIMIT)))
    assert list(read_all(path)) == ["a"]
    path.write_bytes(file_of(text.ljust(HEADER_LIMIT + 1)))
    assert "declares a header of 4194305 bytes, at most 4194304" in refusal(path)
    with pytest.raises(WeightsError, match="needs a header of"):
        write_safetensors(tmp_path / "b", {}, {"a": "b" * HEADER_LIMIT})


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a"
    write_safetensors(path, {"x": np.ones(2), "y": np.ones(3, np.int8)}, {})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        message = refusal(path)
        assert "was cut short" in message or size < 9  # no header begins before
    path.write_bytes(whole + b"\0")
    assert "has 1 bytes behind the last tensor" in refusal(path)


def test_every_file_that_is_read_is_read_alike_by_the_library(tmp_path):
    path = tmp_path / "a"
    write_safetensors(path, {"x": np.ones(2), "y": np.ones((2, 3), np.int8)}, {"k": "v"})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(600):
        data = bytearray(whole)
        for place in rng.integers(0, len(data) - 22, rng.integers(1, 4)):  # of the header
            data[place] = rng.choice(list(b'{}[]",:0123456789FIxy \\\xff'))
        path.write_bytes(data)
        try:
            arrays = read_all(path)
        except WeightsError:
            continue
        accepted += 1
        assert_same(library.load_file(path), arrays)
        with safe_open(path, "np") as file:
            assert (file.metadata() or {}) == read_metadata(path)
    assert 3 < accepted < 300


def test_missing_files_and_folders_are_named(tmp_path):
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "a")
    assert "is no regular file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    assert "is no regular file" in refusal(tmp_path / "pipe")


def test_a_file_that_changes_while_it_is_open_is_an_error(tmp_path):
    path = tmp_path / "a"
    write_safetensors(path, {"x": np.ones(1000), "y": np.ones(1000)}, {})
    with open_safetensors([path]) as tensors:
        tensors["x"].read()
        os.truncate(path, 9000)  # a mapped file would end the process here
        with pytest.raises(WeightsError, match=r"tensor 'y' cannot be read .* changed since"):
            tensors["y"].read()
    with pytest.raises(WeightsError, match=r"tensor 'x' cannot be read .* the file was closed"):
        tensors["x"].read()


def test_a_file_replaced_between_check_and_reading_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_safetensors(path, {"x": np.ones(8)}, {})
    checked = safetensors_files.read_header(path)
    write_safetensors(path, {"x": np.ones(9)}, {})
    monkeypatch.setattr(safetensors_files, "read_header", lambda path: checked)
    with pytest.raises(WeightsError, match="was replaced while it was read"):
        read_all(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="is no safetensors file") as error:
        read_all(path)
    assert isinstance(error.value.__cause__, SafetensorError)


def test_only_the_tensors_asked_for_are_read(tmp_path):
    path, size = tmp_path / "a", 2**32
    text = header(small=entry(), large=entry("U8", [size], [8, 8 + size]))
    path.write_bytes(file_of(text))
    os.truncate(path, 8 + len(text) + 8 + size)  # 4 GiB of nothing
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_safetensors([path]) as tensors:
        assert tensors["large"].shape == (size,)
        np.testing.assert_array_equal(tensors["small"].read(), np.zeros(2))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_without_the_library_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(WeightsError, match=re.escape("pip install 'zoo[weights]'")):
        read_all(tmp_path / "a")


def test_bfloat16_is_read_where_nothing_else_brought_it(tmp_path):
    # NumPy knows it only once ml_dtypes is imported, and the library does not do that.
    arrays = {"x": raw_array(BFLOAT16, (2, 3))}
    write_safetensors(tmp_path / "a", arrays, {})
    code = (
        "from zoo.weights.safetensors_files import open_safetensors as open\n"
        f"with open([{str(tmp_path / 'a')!r}]) as tensors: print(tensors['x'].read().tobytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(arrays["x"].tobytes())
