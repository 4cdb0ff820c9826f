"""Reads the weight files of Keras: `.h5` of all ages, `.weights.h5` and `.keras`.

The files are read as data only. Nothing in them is run or looked up, no other file is
opened on their behalf, and what they declare is checked before anything is read.
"""

import collections
from collections.abc import Iterable, Iterator
import contextlib
import functools
import itertools
import json
import math
from pathlib import Path, PurePosixPath
import re
import tempfile
from typing import Any, BinaryIO
import zipfile
import zlib

import numpy as np

from zoo.errors import WeightsError
from zoo.weights.hdf5_headers import HeapStrings
from zoo.weights.tensors import Tensor, Tensors

MIB = 2**20
MAX_ARRAY_BYTES = 4096 * MIB  # of all arrays together
MAX_CONFIG_BYTES = 16 * MIB
MAX_ATTRIBUTE_BYTES = MIB
MAX_READ_BYTES = MIB  # of a zip file at once, its directory included
MAX_OBJECTS = 20_000  # groups and arrays; published networks have a few thousand
MAX_DEPTH = 32
MAX_CHUNKS = 2**17
MAX_COUNTER_SIZE = 16
MAX_NAME_LENGTH = 1024

# In the order in which Keras's layers keep them.
WEIGHT_ORDER = (
    "depthwise_kernel",
    "pointwise_kernel",
    "kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
)

FLOATS = ("float16", "float32", "float64")

# HDF5's numbers: 1 is gzip, 2 shuffles bytes. Gzip of gzip could unpack to any size, and
# what LZF unpacks to cannot be bounded.
FILTERS = ([], [1], [2], [2, 1])

AUTOMATIC_NAME = re.compile(
    r"(conv2d|batch_normalization|depthwise_conv2d|separable_conv2d|dense|normalization"
    r"|convolution2d|batchnormalization|separableconvolution2d)(?:_([0-9]+))?"
)
KERAS_1_NAMES = {
    "convolution2d": "conv2d",
    "batchnormalization": "batch_normalization",
    "separableconvolution2d": "separable_conv2d",
}

# Groups beside those of the layers in a `.h5` file.
NOT_LAYERS = ("top_level_model_weights", "optimizer_weights")


@contextlib.contextmanager
def open_keras(path: str | Path) -> Iterator[Tensors]:
    """Opens a weight file of Keras, of any of its formats: `.h5`, `.weights.h5`, `.keras`.

    Yields the arrays as `layer/i`: Keras's name of the layer and the position among its
    weights, see `keras_positions`. Layers of a model inside the model come by their own
    names. Keras numbers layers without a name through everything that was built in the
    process, so the number that such a layer has in a file is an accident; they are
    numbered anew, in the same order: `conv2d_95`, `conv2d_96` become `conv2d`, `conv2d_1`.
    Counters (a few integers, such as the state of a random generator) are left out.

    Args:
      path: the file; its content tells the format, not its suffix.

    Raises:
      WeightsError: if it is missing, damaged, of another format, or holds anything that
        weights have no use for: links, arrays in other files, unusual types or filters,
        more than 4 GiB.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with _explained(path):
            tensors = _open(path, stack)
        yield tensors


def keras_positions(names: Iterable[str]) -> dict[str, str]:
    """Returns `layer/i` for each `layer/kernel` and the like, as `open_keras` calls it.

    Args:
      names: of all arrays of a model, see `layouts.keras_name`; a layer without some of
        its weights has the others further in front.

    Raises:
      ValueError: if an array is called otherwise than in `WEIGHT_ORDER`.

    Example:
      >>> keras_positions(["bn/moving_mean", "bn/beta", "conv/bias", "conv/kernel"])
      {'bn/beta': 'bn/0', 'bn/moving_mean': 'bn/1', 'conv/kernel': 'conv/0', 'conv/bias': 'conv/1'}
    """
    layers: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        layer, _, weight = name.rpartition("/")
        if weight not in WEIGHT_ORDER:
            raise ValueError(f"{name!r} is no weight of Keras; they are {', '.join(WEIGHT_ORDER)}")
        layers[layer].append(weight)
    return {
        f"{layer}/{weight}": f"{layer}/{i}"
        for layer, weights in layers.items()
        for i, weight in enumerate(sorted(weights, key=WEIGHT_ORDER.index))
    }


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns whatever the libraries raise into one line about the file."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # damaged bytes make HDF5 and zipfile raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"{path} cannot be read ({reason}); if it is damaged or cut short, get it again"
        ) from error


def _open(path: Path, stack: contextlib.ExitStack) -> Tensors:
    try:
        import h5py
    except ImportError:
        raise WeightsError(f"{path} needs h5py to be read: pip install 'zoo[weights]'") from None
    if not path.is_file():
        raise WeightsError(f"{path} is no file; give the path of a .h5, .weights.h5 or .keras file")
    with path.open("rb") as file:
        signature = file.read(8)
    layer_names: dict[str, str] = {}
    source = path
    if signature.startswith(b"PK\x03\x04"):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="zoo-weights-"))
        source = Path(folder, "model.weights.h5")
        layer_names = _layer_names(_unpack(path, source))
    elif signature != b"\x89HDF\r\n\x1a\n":
        raise WeightsError(
            f"{path} is no weight file of Keras: it begins neither as HDF5 nor as a zip file;"
            " give a .h5, .weights.h5 or .keras file"
        )
    file = stack.enter_context(h5py.File(source, "r"))
    return _Reader(h5py, path, stack.enter_context(source.open("rb")), layer_names).read(file)


class _SmallReads:
    """A file for zipfile, which would read a directory of any declared size at once."""

    def __init__(self, file: Any, path: Path):
        self.file = file
        self.path = path
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MAX_READ_BYTES:
            raise WeightsError(f"{self.path} declares too large a zip directory; get it again")
        return self.file.read(MAX_READ_BYTES if size < 0 else size)


def _unpack(path: Path, target: Path) -> bytes:
    """Writes the weights of a `.keras` file to a file of their own; returns `config.json`."""
    with path.open("rb") as file:
        small: Any = _SmallReads(file, path)
        with zipfile.ZipFile(small) as archive:
            config = b"".join(_member(path, archive, "config.json", MAX_CONFIG_BYTES))
            with target.open("wb") as weights:
                for piece in _member(path, archive, "model.weights.h5", MAX_ARRAY_BYTES):
                    weights.write(piece)
    return config


def _member(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> Iterator[bytes]:
    """Yields the pieces of a file in a zip file, whatever sizes are declared there."""
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise WeightsError(
            f"{path} holds {len(found)} files {name!r}, a .keras file has one; save it again"
        )
    info = found[0]
    if info.flag_bits & 1:
        raise WeightsError(f"{path} has {name!r} encrypted; unpack it and pack it without")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightsError(f"{path} has {name!r} neither stored nor deflated; save it again")
    # A file cannot hold more packed bytes than it has, whatever it declares.
    packed = min(info.compress_size, path.stat().st_size)
    limit = min(limit, 100 * packed + 16 * MIB)
    unpacked = 0
    with archive.open(info) as member:
        while piece := member.read(MAX_READ_BYTES):
            unpacked += len(piece)
            if max(unpacked, info.file_size) > limit:
                raise WeightsError(
                    f"{path} has {name!r} unpack from {packed} bytes to more than {limit}; get"
                    " the file from somewhere else"
                )
            yield piece


def _layer_names(config: bytes) -> dict[str, str]:
    """Returns the names of the layers by their groups' paths, from a model's `config.json`.

    A group is called after the layer's class, numbered among the layers of its model.
    """
    names: dict[str, str] = {}
    pending = [("layers", json.loads(config))]
    while pending:
        path, model = pending.pop()
        settings = model["config"]
        used: collections.Counter[str] = collections.Counter()
        for layer in settings.get("layers", []) if isinstance(settings, dict) else []:
            kind = _snake_case(layer["class_name"])
            group = f"{path}/{kind}_{used[kind]}" if used[kind] else f"{path}/{kind}"
            used[kind] += 1
            names[group] = str(layer["config"]["name"])
            pending.append((f"{group}/layers", layer))
    return names


def _snake_case(name: str) -> str:
    """Returns a class's name as Keras spells it in paths.

    Example:
      >>> [_snake_case(name) for name in ("Conv2D", "SeparableConv2D", "BatchNormalization")]
      ['conv2d', 'separable_conv2d', 'batch_normalization']
    """
    name = re.sub(r"\W", "", name)
    name = re.sub(r"(?<=.)(?=[A-Z][a-z])", "_", name)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _renumbered(layers: Iterable[str]) -> dict[str, str]:
    """Returns the names of the layers, with numbers from 0 where Keras gave the name.

    Example:
      >>> _renumbered(["stem", "conv2d_10", "conv2d_9", "dense_3"])
      {'stem': 'stem', 'conv2d_10': 'conv2d_1', 'conv2d_9': 'conv2d', 'dense_3': 'dense'}
    """
    names = {layer: layer for layer in layers}
    kinds: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    for layer in names:
        if match := AUTOMATIC_NAME.fullmatch(layer):
            kind, number = match.groups()
            kinds[KERAS_1_NAMES.get(kind, kind)].append((int(number or 0), layer))
    for kind, found in kinds.items():
        for i, (_, layer) in enumerate(sorted(found)):
            names[layer] = f"{kind}_{i}" if i else kind
    return names


class _Reader:
    """Walks an HDF5 file that may be hostile.

    Args:
      h5py: the module.
      path: of the file, for messages.
      raw: the file's bytes.
      layer_names: by their groups' paths, for files that do not have them.
    """

    def __init__(self, h5py: Any, path: Path, raw: BinaryIO, layer_names: dict[str, str]):
        self.h5py = h5py
        self.path = path
        self.heap_strings = HeapStrings(raw)
        self.layer_names = layer_names
        self.objects = 0
        self.array_bytes = 0

    def read(self, file: Any) -> Tensors:
        """Returns the arrays of an open file."""
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise WeightsError(f"{self.path} has unusual addresses; write it with h5py")
        if "layer_names" in file.attrs or "layer_names0" in file.attrs:
            found = self.legacy_layers(file)
        elif self.has(file, "model_weights"):
            found = self.legacy_layers(self.group(file, "model_weights"))
        elif self.has(file, "layers"):
            found = self.layers(self.group(file, "layers"))
        else:
            raise WeightsError(
                f"{self.path} is HDF5, but holds none of 'layers', 'model_weights' and an"
                " attribute 'layer_names'; write it with Keras's save or save_weights"
            )
        layers: dict[str, list[Tensor | None]] = {}
        for layer, tensors in found:
            if layer in layers:
                raise WeightsError(
                    f"{self.path} has two layers called {layer!r}; give them other names"
                )
            layers[layer] = tensors
        names = _renumbered(layers)
        return {
            f"{names[layer]}/{i}": tensor
            for layer, tensors in layers.items()
            for i, tensor in enumerate(tensors)
            if tensor is not None
        }

    def layers(self, root: Any) -> Iterator[tuple[str, list[Tensor | None]]]:
        """Yields the layers of Keras 3: groups `vars` at any depth, arrays by number."""
        pending = [("layers", root)]
        seen = {self.address(root)}
        while pending:
            path, group = pending.pop()
            for name in self.names(group):
                child = self.group(group, name)
                if self.address(child) in seen or path.count("/") > MAX_DEPTH:
                    raise WeightsError(
                        f"{self.path} has group {path + '/' + name!r} inside itself, linked"
                        " twice or too deep; get the file from somewhere else"
                    )
                seen.add(self.address(child))
                if name != "vars":
                    pending.append((f"{path}/{name}", child))
                elif len(child):
                    yield self.layer_name(path, child), self.numbered(path, child)

    def layer_name(self, path: str, group: Any) -> str:
        """Returns the name of the layer that keeps its arrays in a group `vars`."""
        names = [self.layer_names[path]] if path in self.layer_names else []
        if "name" in group.attrs:
            names = self.strings(group, "name")
        if len(names) != 1 or not 0 < len(names[0]) <= MAX_NAME_LENGTH:
            raise WeightsError(
                f"{self.path} does not say how layer {path!r} is called, as older versions of"
                " Keras 3 left it out; load the model there and save it as .keras, or with a"
                " newer Keras"
            )
        return names[0]

    def numbered(self, path: str, group: Any) -> list[Tensor | None]:
        """Returns the arrays of a group `vars`, which are called 0, 1 and so on."""
        names = self.names(group)
        expected = [str(i) for i in range(len(names))]
        if set(names) != set(expected):
            raise WeightsError(
                f"{self.path} has arrays {sorted(names)[:5]} in layer {path!r}, expected are"
                " 0, 1, …; quantized and custom layers are not read"
            )
        return [self.tensor(self.child(group, name), f"{path}/{name}") for name in expected]

    def legacy_layers(self, root: Any) -> Iterator[tuple[str, list[Tensor | None]]]:
        """Yields the layers of a `.h5` file: groups that list their arrays by path.

        The arrays of a model inside the model lie in one group, and their paths say of
        which layer they are.
        """
        for name in self.names(root):
            if name in NOT_LAYERS:
                continue
            group = self.group(root, name)
            paths = self.strings(group, "weight_names")
            tensors = [self.tensor(self.at(group, path), f"{name}/{path}") for path in paths]
            parents = [PurePosixPath(path).parent for path in paths]
            several = len(set(parents)) > 1
            for parent in dict.fromkeys(parents):
                layer = parent.name if several and parent.name else name
                yield layer, [t for p, t in zip(parents, tensors, strict=True) if p == parent]

    def strings(self, group: Any, name: str) -> list[str]:
        """Returns an attribute of strings, which may be split into name0, name1 and so on."""
        if name in group.attrs:
            return self.attribute(group, name)
        parts = itertools.takewhile(group.attrs.__contains__, (f"{name}{i}" for i in range(1000)))
        found = [self.attribute(group, part) for part in parts]
        if not found:
            raise WeightsError(
                f"{self.path} has group {group.name!r} without {name!r}; write the file with"
                " Keras's save or save_weights"
            )
        return list(itertools.chain.from_iterable(found))

    def attribute(self, group: Any, name: str) -> list[str]:
        attribute = self.h5py.h5a.open(group.id, name.encode())
        size = attribute.get_space().get_simple_extent_npoints()
        if not size:  # an empty list is one of floats
            return []
        if attribute.get_type().get_class() != self.h5py.h5t.STRING:
            raise WeightsError(
                f"{self.path} has attribute {name!r} of {group.name!r} not of strings; write"
                " the file with Keras's save or save_weights"
            )
        values: list[Any] | None = None
        if attribute.get_type().is_variable_str():
            address = self.address(group)
            values = self.heap_strings.read(address, name, size, MAX_ATTRIBUTE_BYTES)
        elif attribute.get_storage_size() <= MAX_ATTRIBUTE_BYTES:
            values = np.atleast_1d(group.attrs[name]).tolist()
        if values is None:
            raise WeightsError(
                f"{self.path} has attribute {name!r} of {group.name!r} too large, at most"
                f" {MAX_ATTRIBUTE_BYTES} bytes in the group's header are read; get the file"
                " from somewhere else"
            )
        return [value.decode() if isinstance(value, bytes) else value for value in values]

    def names(self, group: Any) -> list[str]:
        """Returns the names of what is linked into a group."""
        self.count(len(group))
        return list(group)

    def count(self, objects: int) -> None:
        self.objects += objects
        if self.objects > MAX_OBJECTS:
            raise WeightsError(
                f"{self.path} has more than {MAX_OBJECTS} groups and arrays; get the file"
                " from somewhere else"
            )

    def at(self, group: Any, path: str) -> Any:
        """Returns what a path below a group leads to, link by link."""
        parts = path.split("/")
        if len(path) > MAX_NAME_LENGTH or not {"", ".", ".."}.isdisjoint(parts):
            raise WeightsError(
                f"{self.path} lists the array {path[:100]!r}, which is no path below"
                f" {group.name!r}; get the file from somewhere else"
            )
        self.count(len(parts))
        for part in parts[:-1]:
            group = self.group(group, part)
        return self.child(group, parts[-1])

    def group(self, group: Any, name: str) -> Any:
        child = self.child(group, name)
        if not isinstance(child, self.h5py.Group):
            raise WeightsError(
                f"{self.path} has {child.name!r} where Keras has a group; write the file with"
                " Keras's save or save_weights"
            )
        return child

    def child(self, group: Any, name: str) -> Any:
        """Returns what a hard link in a group leads to; other links may lead anywhere."""
        if not self.has(group, name):
            raise WeightsError(
                f"{self.path} has nothing called {name[:100]!r} in {group.name!r}, which it"
                " announces; get the file again"
            )
        if group.id.links.get_info(name.encode()).type != self.h5py.h5l.TYPE_HARD:
            raise WeightsError(
                f"{self.path} has a soft or external link {name[:100]!r} in {group.name!r},"
                " and only what is in the file itself is read; copy the arrays into it"
            )
        return group[name]

    def has(self, group: Any, name: str) -> bool:
        return group.id.links.exists(name.encode())  # `name in group` would follow the link

    def address(self, group: Any) -> int:
        return self.h5py.h5o.get_info(group.id).addr

    def tensor(self, dataset: Any, name: str) -> Tensor | None:
        """Returns an array, all that is declared of it checked, or None for a counter."""
        if not isinstance(dataset, self.h5py.Dataset):
            raise WeightsError(
                f"{self.path} has {name!r} where Keras has an array; write the file with"
                " Keras's save or save_weights"
            )
        # Before anything else is asked: the shape of a virtual array may be in other files.
        self.check_storage(dataset, name)
        shape, dtype = dataset.shape, self.float_type(dataset)
        integer = dataset.id.get_type().get_class() == self.h5py.h5t.INTEGER
        if dtype is None and integer and shape is not None and math.prod(shape) <= MAX_COUNTER_SIZE:
            return None
        if dtype is None or shape is None:
            raise WeightsError(
                f"{self.path} has array {name!r} of another type than {', '.join(FLOATS)};"
                " save the model in one of these"
            )
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.array_bytes += size
        if self.array_bytes > MAX_ARRAY_BYTES:
            raise WeightsError(
                f"{self.path} declares more than {MAX_ARRAY_BYTES} bytes of arrays, at"
                f" {name!r} of shape {list(shape)}; get the file from somewhere else"
            )
        starts = self.chunk_starts(dataset, name, size)
        return Tensor(shape, dtype, functools.partial(self.values, dataset, name, dtype, starts))

    def float_type(self, dataset: Any) -> str | None:
        """Returns NumPy's name of the dataset's type if it is an IEEE float."""
        kind, types = dataset.id.get_type(), self.h5py.h5t
        for bits in (16, 32, 64):
            for order in ("LE", "BE"):
                if kind.equal(getattr(types, f"IEEE_F{bits}{order}")):
                    return f"float{bits}"
        return None

    def check_storage(self, dataset: Any, name: str) -> None:
        """Refuses arrays that are kept in other files, or packed in a way of their own."""
        storage = dataset.id.get_create_plist()
        if storage.get_external_count() or storage.get_layout() == self.h5py.h5d.VIRTUAL:
            raise WeightsError(
                f"{self.path} keeps array {name!r} in other files, and only what is in the"
                " file itself is read; copy the arrays into it"
            )
        filters = [storage.get_filter(i)[0] for i in range(storage.get_nfilters())]
        if filters not in FILTERS:
            raise WeightsError(
                f"{self.path} has array {name!r} packed with HDF5's filters {filters}, known"
                " are gzip and shuffle; write it without compression"
            )

    def chunk_starts(self, dataset: Any, name: str, size: int) -> list[range]:
        """Returns where the chunks of an array begin along each axis, [] if it has none.

        All of them have to be there: HDF5 gives zeros where a file has no values.
        """
        starts: list[range] = []
        if dataset.chunks is None:
            whole = dataset.id.get_storage_size() == size
        else:
            sides = zip(dataset.shape, dataset.chunks, strict=True)
            starts = [range(0, side, step) for side, step in sides]
            count = math.prod(len(steps) for steps in starts)
            believable = self.chunk_bytes(dataset) <= max(size, 16 * MIB) and count <= MAX_CHUNKS
            whole = believable and dataset.id.get_num_chunks() == count
        if not whole:
            raise WeightsError(
                f"{self.path} has array {name!r} of shape {list(dataset.shape)} without all"
                " of its values; get the file again"
            )
        return starts

    def chunk_bytes(self, dataset: Any) -> int:
        return math.prod(dataset.chunks) * dataset.id.get_type().get_size()

    def values(self, dataset: Any, name: str, dtype: str, starts: list[range]) -> np.ndarray:
        """Reads an array, after a look at its chunks."""
        with _explained(self.path):
            if starts:
                self.check_chunks(dataset, name, starts)
            return np.asarray(dataset[()], dtype=dtype, order="C")

    def check_chunks(self, dataset: Any, name: str, starts: list[range]) -> None:
        """Refuses chunks of another size than declared, which HDF5 would unpack all the same."""
        size = self.chunk_bytes(dataset)
        for start in itertools.product(*starts):
            skipped, data = dataset.id.read_direct_chunk(start)
            if dataset.compression == "gzip":
                data = zlib.decompressobj().decompress(data, size + 1)
            if skipped or len(data) != size:
                raise WeightsError(
                    f"{self.path} has array {name!r} with a chunk of another size than"
                    f" {size} bytes; get the file from somewhere else"
                )
