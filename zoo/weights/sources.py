"""Where weights are: a file, a folder, or a repository of the hub, and what is known of them."""

from collections.abc import Iterator
import contextlib
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from zoo.errors import WeightsError
from zoo.weights.catalogue import Published, by_file_name, find_published
from zoo.weights.hub import fetch, is_hub_id
from zoo.weights.keras_files import open_keras
from zoo.weights.repository import CONFIG, INDEX, WEIGHTS, Config, read_config, shards
from zoo.weights.safetensors_files import open_regular, open_safetensors
from zoo.weights.tensors import Tensors
from zoo.weights.torch_files import open_torch

HUB = "https://huggingface.co/"
MAX_BYTES = 2**32


class Origin(NamedTuple):
    """Where weights are, before anything of them is read.

    Attributes:
      label: for messages and the report: the path, or the repository and its commit.
      files: of the tensors: one, or the shards of one set.
      config: what the `config.json` beside them says; None without one.
      row: of the catalogue, if it knows them.
      notes: what there is to know.
      pickles: whether torch's may be opened, to convert them.
      key: of the state dict in such a file, if it holds several.
    """

    label: str
    files: tuple[Path, ...]
    config: Config | None
    row: Published | None
    notes: tuple[str, ...] = ()
    pickles: bool = False
    key: str | None = None


def find(name: str, source: str | os.PathLike) -> Origin:
    """Returns where weights are; a repository of the hub is fetched and verified.

    Raises:
      WeightsError: if there is nothing, or not what the catalogue says there should be.
    """
    path, text = Path(source), os.fspath(source)
    if not text:
        raise WeightsError("weights='': give a file, a folder or a repository of the hub")
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return _in_file(path, name)
    text = text.removeprefix("hf-hub:").removeprefix("hf://")
    id_, _, revision = text.partition("@")
    row = find_published(id_)
    if row is not None:  # perhaps by its short name
        text = row.weights + (f"@{revision}" if revision else "")
    check_model(row, name)
    if row is not None and not row.url.startswith(HUB):
        how = f"give the path of {row.file} as weights"
        if row.file.endswith(".pth"):
            how = (
                f"`python -m zoo convert {row.model} {row.file} FOLDER` and give FOLDER as weights"
            )
        raise WeightsError(f"{text} is no repository of the hub: download {row.url}, then {how}")
    if is_hub_id(text):
        files = fetch(text)
        config = read_config(files.config) if files.config else None
        digests = "".join(f", sha256 {files.sha256[p.name]}" for p in files.weights)
        label = f"{files.repo}@{files.commit}{digests}"
        return Origin(label, files.weights, config, row)
    raise WeightsError(
        f"{text!r}: no such file or folder, and no repository of the hub (org/name); "
        "python -m zoo list --pretrained has what is known"
    )


def _in_folder(folder: Path) -> Origin:
    config, index, whole = folder / CONFIG, folder / INDEX, folder / WEIGHTS
    if whole.exists():
        files = (whole,)
    elif index.exists():
        files = tuple(folder / name for name in shards(index, str(folder)))
    else:
        raise WeightsError(
            f"{folder}: has neither {WEIGHTS} nor {INDEX}; give the "
            "file itself if it is called otherwise"
        )
    says = read_config(config) if config.exists() else None
    if says is not None and says.sha256 is not None:
        _verify(files[0], f"sha256:{says.sha256}", f"save it, or copy {folder}, again")
    return Origin(str(folder), files, says, None)


def _in_file(path: Path, name: str) -> Origin:
    """Returns a bare file; a `config.json` beside it counts if it is one of a network."""
    if path.name == WEIGHTS:
        return _in_folder(path.parent)
    beside = path.parent / CONFIG
    config = read_config(beside) if path.suffix == ".safetensors" and beside.exists() else None
    if config is not None and config.architecture is None:
        config = None
    row = by_file_name(path.name)
    check_model(row, name)
    notes = ()
    if row is not None and row.digest:
        _verify(path, row.digest, f"get {row.url} again, or rename the file if it is another")
        notes = (f"its digest is that of {row.weights}",)
    return Origin(str(path), (path,), config, row, notes)


def check_model(row: Published | None, name: str) -> None:
    """Refuses weights that the catalogue lists under another model.

    Raises:
      WeightsError: if it does.
    """
    if row is not None and row.model != name:
        raise WeightsError(f"{row.weights} are weights of {row.model!r}, not {name!r}: load that")


def _verify(path: Path, digest: str, way_out: str) -> None:
    """Refuses a file whose digest does not begin as expected."""
    kind, _, expected = digest.partition(":")
    if path.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{path}: is over {MAX_BYTES:,} bytes, which no network here needs")
    with open_regular(path) as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if not found.startswith(expected):
        raise WeightsError(
            f"{path}: its {kind} is {found[: len(expected)]}…, and {expected} was expected: it was "
            f"cut short or altered; {way_out}"
        )


def kind_of(path: Path) -> str:
    """Returns "keras", "torch" or "safetensors" by a file's first bytes, not by its name."""
    with open_regular(path) as file:
        start = file.read(64)
    if start[8:9] == b"{":  # a length in front of it may look like any of the others
        return "safetensors"
    if start.startswith(b"PK\x03\x04"):  # an archive; its first member's name is at 30
        return "keras" if start[30:].startswith((b"metadata", b"config", b"model.w")) else "torch"
    if start.startswith(b"\x89HDF"):
        return "keras"
    return "torch" if start.startswith((b"PK", b"\x80")) else "safetensors"


@contextlib.contextmanager
def open_tensors(origin: Origin) -> Iterator[Tensors]:
    """Opens the files of some weights, whatever their kind.

    Raises:
      WeightsError: for a pickle, unless it is to be converted.
    """
    first = origin.files[0]
    kind = kind_of(first)
    if kind == "torch" and not origin.pickles:
        raise WeightsError(
            f"{first}: is a pickle of torch, which can run code, and is not opened here; "
            "`python -m zoo convert NAME FILE FOLDER` makes safetensors of its weights "
            "(pip install 'zoo[torch]')"
        )
    if kind == "torch":
        opened = open_torch(first, origin.key)
    elif kind == "keras":
        opened = open_keras(first)
    else:
        opened = open_safetensors(origin.files)
    with opened as tensors:
        yield tensors
