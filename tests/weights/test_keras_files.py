"""Weight files of Keras: every format gives the same arrays, and no hostile file is read."""

import functools
import io
import json
import os
from pathlib import Path
import sys
import tempfile
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pytest

from zoo.errors import WeightsError
from zoo.weights import keras_files
from zoo.weights.hdf5_headers import HeapStrings
from zoo.weights.keras_files import keras_positions, open_keras

# A network of Keras: class, name, and the layer's arrays in its order.
SHAPES = {
    ("Conv2D", "stem"): {"kernel": (3, 3, 3, 4), "bias": (4,)},
    ("Conv2D", "conv2d_96"): {"kernel": (1, 1, 4, 4)},
    ("Conv2D", "conv2d_100"): {"kernel": (1, 1, 4, 2)},
    ("BatchNormalization", "batch_normalization_7"): {
        "gamma": (4,),
        "beta": (4,),
        "moving_mean": (4,),
        "moving_variance": (4,),
    },
    ("ReLU", "re_lu"): {},
    ("SeparableConv2D", "block_sepconv"): {
        "depthwise_kernel": (3, 3, 4, 1),
        "pointwise_kernel": (1, 1, 4, 5),
    },
    ("Dense", "predictions"): {"kernel": (5, 2), "bias": (2,)},
}
_rng = np.random.default_rng(0)
NETWORK = {
    layer: {name: _rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    for layer, shapes in SHAPES.items()
}
RENUMBERED = {
    "conv2d_96": "conv2d",
    "conv2d_100": "conv2d_1",
    "batch_normalization_7": "batch_normalization",
}
EXPECTED = {
    f"{RENUMBERED.get(layer, layer)}/{name}": array
    for (_, layer), arrays in NETWORK.items()
    for name, array in arrays.items()
}


def snake_groups() -> list[tuple[str, str, dict[str, np.ndarray]]]:
    names = {"Conv2D": "conv2d", "ReLU": "re_lu", "BatchNormalization": "batch_normalization"}
    names |= {"SeparableConv2D": "separable_conv2d", "Dense": "dense"}
    groups, used = [], {}
    for (kind, layer), arrays in NETWORK.items():
        number = used[kind] = used.get(kind, -1) + 1
        groups.append((names[kind] + (f"_{number}" if number else ""), layer, arrays))
    return groups


def write_weights_h5(path, names=True):
    with h5py.File(path, "w") as file:
        for group, layer, arrays in snake_groups():
            kept = file.create_group(f"layers/{group}/vars")
            if names:
                kept.attrs["name"] = layer
            for i, array in enumerate(arrays.values()):
                kept[str(i)] = array
        state = file.create_group("layers/dropout/seed_generator/vars")
        state.attrs["name"] = "seed_generator_3"
        state["0"] = np.array([1, 2], np.uint32)
        file["optimizer/vars/0"] = np.ones(3, np.float32)


def write_keras(path, names=True, compression=zipfile.ZIP_STORED):
    layers = [{"class_name": kind, "config": {"name": name}} for kind, name in NETWORK]
    layers.append({"class_name": "Dropout", "config": {"name": "dropout"}})
    config = {"class_name": "Functional", "config": {"layers": layers}}
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder, "weights")
        write_weights_h5(inner, names)
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", json.dumps(config))
            archive.write(inner, "model.weights.h5")


def write_legacy(path, root="/", name="{layer}/{weight}:0", names=list, chunks=1):
    with h5py.File(path, "w") as file:
        top = file.require_group(root)
        layers = names([layer for _, layer in NETWORK])
        for i, part in enumerate(np.array_split(layers, chunks)):
            top.attrs["layer_names" + (str(i) if chunks > 1 else "")] = part.tolist()
        top.create_group("top_level_model_weights").attrs["weight_names"] = []
        for (_, layer), arrays in NETWORK.items():
            group = top.create_group(layer)
            paths = [name.format(layer=layer, weight=weight) for weight in arrays]
            for i, part in enumerate(np.array_split(paths, chunks)):
                key = "weight_names" + (str(i) if chunks > 1 else "")
                group.attrs[key] = names(part.tolist()) if len(part) else []
            for weight, array in zip(paths, arrays.values(), strict=True):
                group[weight] = array
        file.require_group("optimizer_weights")["x"] = np.ones(2)


def as_bytes(texts):
    return [text.encode() for text in texts]


FORMATS = {
    "weights.h5": write_weights_h5,
    "keras": write_keras,
    "keras, deflated": lambda path: write_keras(path, compression=zipfile.ZIP_DEFLATED),
    "keras, without names": lambda path: write_keras(path, names=False),
    "h5": lambda path: write_legacy(path, "model_weights", "{layer}/{weight}"),
    "h5, weights alone": write_legacy,
    "h5, bytes": lambda path: write_legacy(path, names=as_bytes),
    "h5, Keras 1": lambda path: write_legacy(path, name="{layer}_{weight}_1:0", names=as_bytes),
    "h5, lists in parts": lambda path: write_legacy(path, chunks=3),
}


def read_all(path):
    with open_keras(path) as tensors:
        return {name: tensor.read() for name, tensor in tensors.items()}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_arrays_by_the_names_of_the_layers(write, tmp_path):
    path = tmp_path / "weights.bin"  # the suffix says nothing
    write(path)
    positions = keras_positions(EXPECTED)
    arrays = read_all(path)
    assert set(arrays) == set(positions.values())
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(arrays[positions[name]], expected, strict=True)
        assert arrays[positions[name]].flags.c_contiguous


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
@pytest.mark.parametrize("track_order", [False, True])
@pytest.mark.parametrize("write", [write_weights_h5, write_legacy])
def test_every_version_of_hdf5_gives_the_same(write, libver, track_order, tmp_path, monkeypatch):
    write(tmp_path / "a.h5")
    kwargs = {"libver": libver, "track_order": track_order}
    monkeypatch.setattr(h5py, "File", functools.partial(h5py.File, **kwargs))
    write(tmp_path / "b.h5")
    monkeypatch.undo()
    before, after = read_all(tmp_path / "a.h5"), read_all(tmp_path / "b.h5")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_strings_are_found_in_every_block_of_a_header(libver, tmp_path):
    texts = {f"list{i}": ["", *("ä" * (i * j) for j in range(20))] for i in range(7)}
    texts["list4"][2] = "x" * 10_000  # for which a heap is made
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        for name, values in texts.items():
            file.attrs[name] = values
            file.create_group(name)
        address = h5py.h5o.get_info(file.id).addr
    with (tmp_path / "a.h5").open("rb") as raw:
        strings = HeapStrings(raw)
        for name, values in texts.items():
            size = sum(len(value.encode()) for value in values)
            assert strings.read(address, name, 21, size) == values
            assert strings.read(address, name, 21, size - 1) is None
        assert strings.read(address, "list1", 22, 10**6) is None
        assert strings.read(address, "list", 21, 10**6) is None


def test_positions_follow_the_order_of_keras_whatever_is_absent():
    assert keras_positions(["a/bias", "a/kernel", "b/moving_variance", "b/beta"]) == {
        "a/kernel": "a/0",
        "a/bias": "a/1",
        "b/beta": "b/0",
        "b/moving_variance": "b/1",
    }
    with pytest.raises(ValueError, match="'a/scale' is no weight of Keras"):
        keras_positions(["a/scale"])


def test_layers_of_a_model_inside_come_by_their_own_names(tmp_path):
    legacy, keras3 = tmp_path / "a.h5", tmp_path / "b.h5"
    arrays = {f"inner/{layer}/{w}": np.full(2, float(i)) for i, (layer, w) in enumerate(NESTED)}
    with h5py.File(legacy, "w") as file:
        file.attrs["layer_names"] = ["inner"]
        file.create_group("inner").attrs["weight_names"] = list(arrays)
        for name, array in arrays.items():
            file[f"inner/{name}"] = array
    with h5py.File(keras3, "w") as file:
        for path, (name, keys) in {
            "conv2d": ("conv", ["inner/conv/kernel", "inner/conv/bias"]),
            "batch_normalization": ("bn", ["inner/bn/gamma", "inner/bn/moving_mean"]),
        }.items():
            group = file.create_group(f"layers/functional/layers/{path}/vars")
            group.attrs["name"] = name
            for i, key in enumerate(keys):
                group[str(i)] = arrays[key]
    expected = {"conv/0": 0.0, "bn/0": 1.0, "conv/1": 2.0, "bn/1": 3.0}
    for path in (legacy, keras3):
        assert {name: array[0] for name, array in read_all(path).items()} == expected


# Trainable arrays of all layers are in front of the others.
NESTED = [("conv", "kernel"), ("bn", "gamma"), ("conv", "bias"), ("bn", "moving_mean")]


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("packing", [{}, {"chunks": (2, 3)}, {"compression": "gzip"}], ids=str)
def test_floats_of_every_width_order_and_packing_are_read(dtype, packing, tmp_path):
    array = np.random.default_rng(1).normal(size=(5, 4)).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        shuffle = {"shuffle": True} if packing else {}
        file.create_dataset("layers/dense/vars/0", data=array, **packing, **shuffle)
        file["layers/dense/vars"].attrs["name"] = "fc"
    with open_keras(tmp_path / "a.h5") as tensors:
        assert tensors["fc/0"][:2] == ((5, 4), np.dtype(dtype).newbyteorder("=").name)
        np.testing.assert_array_equal(tensors["fc/0"].read(), array)


def test_files_are_closed_and_copies_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_keras(tmp_path / "a.keras")
    with open_keras(tmp_path / "a.keras") as tensors:
        assert os.listdir(tempfile.tempdir)
        tensor = tensors["stem/0"]
    assert not os.listdir(tempfile.tempdir)
    with pytest.raises(WeightsError, match="cannot be read"):
        tensor.read()


def test_errors_of_the_one_who_reads_are_left_alone(tmp_path):
    write_weights_h5(tmp_path / "a.h5")
    with pytest.raises(KeyError, match="nothing"), open_keras(tmp_path / "a.h5") as tensors:
        tensors["nothing"]


# Hostile files. Each writer puts what it is about where "layers/dense/vars/0" should be.

CANARY = b"canary__" * 64


def layer(file):
    group = file.create_group("layers/dense/vars")
    group.attrs["name"] = "fc"
    return group


def hostile(write):
    """Makes a writer of a whole file of one for the group of a layer."""

    def whole(path):
        with h5py.File(path, "w") as file:
            write(layer(file), path)

    return whole


def other_file(path):
    with h5py.File(path.parent / "other.h5", "w") as file:
        file["a"] = np.frombuffer(CANARY, np.float32)
    (path.parent / "canary").write_bytes(CANARY)
    return path.parent


@hostile
def soft_link(group, path):
    group.file["elsewhere"] = np.ones(3, np.float32)
    group["0"] = h5py.SoftLink("/elsewhere")


@hostile
def external_link(group, path):
    group["0"] = h5py.ExternalLink(str(other_file(path) / "other.h5"), "/a")


def external_group(path):
    other = path.parent / "other.h5"
    write_weights_h5(other)
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink(str(other), "/layers")


@hostile
def external_storage(group, path):
    files = [(str(other_file(path) / "canary"), 0, len(CANARY))]
    group.create_dataset("0", (len(CANARY) // 4,), "f4", external=files)


@hostile
def virtual(group, path):
    layout = h5py.VirtualLayout((len(CANARY) // 4,), "f4")
    layout[:] = h5py.VirtualSource(other_file(path) / "other.h5", "a", layout.shape)
    group.create_virtual_dataset("0", layout)


@hostile
def cycle(group, path):
    group.parent["layers"] = group.file["layers"]


@hostile
def linked_twice(group, path):
    group.file["layers/dense_1"] = group.parent


@hostile
def deep(group, path):
    group.create_group("/layers/" + "a/" * 200 + "vars")["0"] = np.ones(2)


@hostile
def many_groups(group, path):
    for i in range(200):
        group.file.create_group(f"layers/a{i}/b")
    # Twenty thousand would take as many calls; a group can also be linked cheaply.
    one = group.file.create_group("one")
    for i in range(20_000):
        group[f"a{i}"] = one


@hostile
def huge(group, path):
    group.create_dataset("0", (2**20, 2**20), "f4")


@hostile
def no_values(group, path):
    group.create_dataset("0", (1000,), "f4")


@hostile
def some_chunks(group, path):
    group.create_dataset("0", (1000,), "f4", chunks=(10,))[:500] = 1


@hostile
def tiny_chunks(group, path):
    group.create_dataset("0", (2**29,), "f4", chunks=(1,))[0] = 1


@hostile
def no_shape(group, path):
    group["0"] = h5py.Empty("f4")


def typed(array, **kwargs):
    return hostile(lambda group, path: group.create_dataset("0", data=array, **kwargs))


@hostile
def references(group, path):
    group.create_dataset("0", data=[group.ref], dtype=h5py.ref_dtype)


@hostile
def lists(group, path):
    group.create_dataset("0", (2,), h5py.vlen_dtype(np.float32))


@hostile
def odd_float(group, path):
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 23, 8, 0, 23)
    kind.set_ebias(100)
    h5py.h5d.create(group.id, b"0", kind, h5py.h5s.create_simple((4,)))


@hostile
def unknown_filter(group, path):
    storage = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    storage.set_chunk((4,))
    storage.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, storage)


@hostile
def gzip_of_gzip(group, path):
    storage = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    storage.set_chunk((4,))
    storage.set_deflate(9)
    storage.set_deflate(9)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, storage)


@hostile
def group_as_array(group, path):
    group.create_group("0")


@hostile
def type_as_array(group, path):
    group["0"] = np.dtype("f4")


@hostile
def odd_number(group, path):
    group["7"] = np.ones(2)


@hostile
def name_of_numbers(group, path):
    group["0"] = np.ones(2)
    group.attrs["name"] = np.arange(3.0)


@hostile
def huge_name(group, path):
    group["0"] = np.ones(2)
    group.attrs["name"] = "x" * 60_000


def no_names(path):
    write_weights_h5(path, names=False)


def same_names(path):
    with h5py.File(path, "w") as file:
        layer(file)["0"] = np.ones(2)
        group = file.create_group("layers/dense_1/vars")
        group.attrs["name"], group["0"] = "fc", np.ones(2)


def long_string(data):
    """Writes 3 GiB as the length of the layer's name, which is in the heap."""
    start = data.index((11).to_bytes(4, "little"), data.index(b"name\0"))
    return data[:start] + (3 * 2**30).to_bytes(4, "little") + data[start + 4 :]


def same_string(data):
    """Makes all names of a list the same one, of half a megabyte."""
    start = data.index((543_217).to_bytes(4, "little"), data.index(b"weight_names\0"))
    one = data[start : start + 16]
    return data[:start] + 64 * one + data[start + 64 * 16 :]


def endless_heap(data):
    """Gives the heap's first object the size at which a search by HDF5 does not end."""
    start = data.index(b"GCOL") + 16
    return data[: start + 8] + (2**64 - 16).to_bytes(8, "little") + data[start + 16 :]


def no_heap(data):
    return data.replace(b"GCOL", b"POOL")


def named_in_heap(path):
    with h5py.File(path, "w") as file:
        group = layer(file)
        group.attrs["name"], group["0"] = "eleven_long", np.ones(2)


def half_a_megabyte(path):
    listed(["a" * 543_217] + ["b"] * 63)(path)


def changed(write, change):
    def whole(path):
        write(path)
        path.write_bytes(change(path.read_bytes()))

    return whole


def huge_list(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layer_names"] = ["fc"]
        file.create_group("fc").attrs["weight_names"] = ["fc/kernel"] * 100_000


def listed(weights, write=lambda group, path: None):
    weights = [weights] if isinstance(weights, str) else weights

    def whole(path):
        with h5py.File(path, "w") as file:
            file["secret"] = np.ones(3)
            file.attrs["layer_names"] = ["fc"]
            file.create_group("fc").attrs["weight_names"] = weights
            write(file["fc"], path)

    return whole


def link_in_path(group, path):
    group["fc"] = h5py.ExternalLink(str(other_file(path) / "other.h5"), "/")


def zipped(members, change=None, compression=zipfile.ZIP_DEFLATED):
    def whole(path):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in members:
                archive.writestr(name, content)
        path.write_bytes((change or bytes)(buffer.getvalue()))

    return whole


def patched(offset_local, offset_central, value):
    """Writes a field into all headers of a zip file."""

    def change(data):
        data = bytearray(data)
        for mark, offset in ((b"PK\x03\x04", offset_local), (b"PK\x01\x02", offset_central)):
            start = data.find(mark)
            while start >= 0:
                data[start + offset : start + offset + len(value)] = value
                start = data.find(mark, start + 1)
        return bytes(data)

    return change


ZEROS = bytes(40 * 2**20)
CONFIG, WEIGHTS = ("config.json", b"{}"), ("model.weights.h5", b"\x89HDF\r\n\x1a\n")


def truncated(write, part):
    def whole(path):
        write(path)
        os.truncate(path, int(path.stat().st_size * part))

    return whole


def content(data):
    return lambda path: path.write_bytes(data)


HOSTILE = {
    "soft link": (soft_link, "soft or external link '0'"),
    "external link": (external_link, "soft or external link '0'"),
    "external group": (external_group, "soft or external link 'layers'"),
    "link in a listed path": (listed("fc/a", link_in_path), "soft or external link 'fc'"),
    "external storage": (external_storage, "in other files"),
    "virtual": (virtual, "in other files"),
    "cycle": (cycle, "inside itself"),
    "linked twice": (linked_twice, "linked twice"),
    "deep": (deep, "too deep"),
    "many objects": (many_groups, "more than 20000 groups"),
    "4 TiB": (huge, "declares more than 4294967296 bytes"),
    "no values": (no_values, "without all of its values"),
    "half the chunks": (some_chunks, "without all of its values"),
    "a chunk per value": (tiny_chunks, "without all of its values"),
    "null": (no_shape, "another type"),
    "integers": (typed(np.ones(100, np.int8)), "another type"),
    "strings": (typed("text"), "another type"),
    "compound": (typed(np.zeros(2, [("a", "f4"), ("b", "f4")])), "another type"),
    "complex": (typed(np.ones(3, np.complex64)), "another type"),
    "objects": (typed(np.array(["a", "b"], object), dtype=h5py.string_dtype()), "another type"),
    "lists": (lists, "another type"),
    "references": (references, "another type"),
    "opaque": (typed(np.zeros(3, "V2")), "another type"),
    "odd float": (odd_float, "another type"),
    "unknown filter": (unknown_filter, r"filters \[32015\]"),
    "lzf": (typed(np.ones(99), compression="lzf"), r"filters \[32000\]"),
    "scale-offset": (typed(np.ones(99), scaleoffset=1), r"filters \[6\]"),
    "gzip of gzip": (gzip_of_gzip, r"filters \[1, 1\]"),
    "group as array": (group_as_array, "where Keras has an array"),
    "type as array": (type_as_array, "where Keras has an array"),
    "odd number": (odd_number, r"arrays \['7'\]"),
    "name of numbers": (name_of_numbers, "not of strings"),
    "huge name": (huge_name, "does not say how layer 'layers/dense' is called"),
    "no names": (no_names, "save it as .keras, or with a newer Keras"),
    "same names": (same_names, "two layers called 'fc'"),
    "huge list": (huge_list, "'weight_names' of '/fc' too large"),
    "string of 3 GiB": (changed(named_in_heap, long_string), "'name' of '/layers/dense/vars' too"),
    "endless heap": (changed(named_in_heap, endless_heap), "cannot be read"),
    "no heap": (changed(named_in_heap, no_heap), "cannot be read .no heap"),
    "one string often": (
        changed(half_a_megabyte, same_string),
        "'weight_names' of '/fc' too large",
    ),
    "path upwards": (listed("../secret"), "no path below '/fc'"),
    "absolute path": (listed("/secret"), "no path below '/fc'"),
    "long path": (listed("a/" * 1000 + "b"), "no path below '/fc'"),
    "missing array": (listed("fc/a"), "nothing called 'fc'"),
    "array as group": (listed("fc/a", lambda g, _: g.update(fc=[1.0])), "where Keras has a group"),
    "other HDF5": (lambda path: h5py.File(path, "w").close(), "holds none of 'layers'"),
    "truncated": (truncated(write_weights_h5, 0.5), "cannot be read"),
    "truncated by little": (truncated(write_legacy, 0.99), "cannot be read"),
    "signature alone": (content(b"\x89HDF\r\n\x1a\n"), "cannot be read"),
    "empty": (content(b""), "no weight file of Keras"),
    "pickle": (content(b"\x80\x04cos\nsystem\n."), "no weight file of Keras"),
    "text": (content(b"<html>404"), "no weight file of Keras"),
    "folder": (lambda path: path.mkdir(), "is no file"),
    "pipe": (os.mkfifo, "is no file"),
    "nothing": (lambda path: None, "is no file"),
    "truncated zip": (truncated(write_keras, 0.9), "cannot be read"),
    "zip without weights": (zipped([CONFIG]), "0 files 'model.weights.h5'"),
    "zip with two": (zipped([("./model.weights.h5", b""), CONFIG]), "0 files 'model.weights.h5'"),
    "weights bomb": (
        zipped([CONFIG, (WEIGHTS[0], ZEROS)]),
        "'model.weights.h5' unpack from 40",
    ),
    "config bomb": (zipped([(CONFIG[0], ZEROS), WEIGHTS]), "to more than 16777216"),
    "bomb of small declared size": (
        zipped([CONFIG, (WEIGHTS[0], ZEROS)], patched(22, 24, (99).to_bytes(4, "little"))),
        "cannot be read",
    ),
    "bomb of large packed size": (
        zipped([CONFIG, (WEIGHTS[0], ZEROS)], patched(18, 20, (2**30).to_bytes(4, "little"))),
        "unpack from|cannot be read",
    ),
    "encrypted": (zipped([CONFIG, WEIGHTS], patched(6, 8, b"\x01")), "encrypted"),
    "lzma": (zipped([CONFIG, WEIGHTS], compression=zipfile.ZIP_LZMA), "neither stored nor"),
    "huge directory": (
        zipped([(str(i) + "n" * 60_000, b"") for i in range(20)]),
        "too large a zip directory",
    ),
    "config no JSON": (zipped([("config.json", b"\x80\x04."), WEIGHTS]), "cannot be read"),
    "config too deep": (zipped([("config.json", b"[" * 10**5), WEIGHTS]), "cannot be read"),
    "config a list": (zipped([("config.json", b"[]"), WEIGHTS]), "cannot be read"),
    "damaged weights in zip": (zipped([("config.json", b'{"config": {}}'), WEIGHTS]), "cannot be"),
}


@pytest.mark.parametrize(("write", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_before_anything_large_is_read(
    write, message, tmp_path, monkeypatch
):
    path = tmp_path / "hostile.h5"
    write(path)

    def no_reading(*args):
        raise AssertionError("values were read")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", no_reading)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=message) as caught, open_keras(path):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "canary" not in str(caught.value)


def test_the_sizes_of_all_arrays_are_added_up(tmp_path, monkeypatch):
    write_weights_h5(tmp_path / "a.h5")
    size = sum(array.nbytes for array in EXPECTED.values())
    monkeypatch.setattr(keras_files, "MAX_ARRAY_BYTES", size)
    assert len(read_all(tmp_path / "a.h5")) == len(EXPECTED)
    monkeypatch.setattr(keras_files, "MAX_ARRAY_BYTES", size - 1)
    with pytest.raises(WeightsError, match="declares more than"), open_keras(tmp_path / "a.h5"):
        pass


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_chunk_that_unpacks_to_more_than_declared_is_not_unpacked(shuffle, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        packed = layer(file).create_dataset(
            "0", (1000,), "f4", chunks=(1000,), compression="gzip", shuffle=shuffle
        )
        packed.id.write_direct_chunk((0,), zlib.compress(ZEROS))
    with open_keras(tmp_path / "a.h5") as tensors:
        tracemalloc.start()
        with pytest.raises(WeightsError, match="a chunk of another size than 4000 bytes"):
            tensors["fc/0"].read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match=r"pip install 'zoo\[weights\]'"), open_keras("a.h5"):
        pass
