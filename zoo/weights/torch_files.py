"""Reads the files that `torch.save` writes, which are pickles.

A pickle is a program. torch runs it with an unpickler of its own that makes tensors and
refuses everything else; versions in which that could be got around are refused here. What is
left is a parser in C++ that reads hostile bytes: convert files of strangers in a sandbox.
"""

from collections.abc import Iterator, Mapping
import contextlib
import functools
import logging
import os
from pathlib import Path
import re
from typing import Any, BinaryIO
import zipfile

import jax.numpy as jnp
import numpy as np

from zoo.errors import WeightsError
from zoo.weights.safetensors_files import DTYPES, check_name, open_regular, what_it_is
from zoo.weights.tensors import Tensor, Tensors

# CVE-2025-32434 (before 2.6) ran code, CVE-2026-24747 (before 2.10) damaged memory.
OLDEST_TORCH = (2, 10)
SIZE_LIMIT = 8 * 2**30
ENTRY_LIMIT = 100_000

# torch.save's magic number, as it begins the files of torch before 1.6.
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ZIP = b"PK\x03\x04"

# Under what checkpoints hold a state dict, beside the optimizer's and the epoch.
KEYS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "ema")

SAVE_IT = "save it again with torch.save(model.state_dict(), ...)"


@contextlib.contextmanager
def open_torch(path: str | Path, key: str | None = None) -> Iterator[Tensors]:
    """Yields the tensors of a state dict that `torch.save` wrote, all of them in memory.

    The prefix that DataParallel and AveragedModel give every name, "module.", is taken off.

    Args:
      path: a file of torch, of the present format or the one before 1.6.
      key: under which a checkpoint holds the state dict. If it is None, the file is a state
        dict itself, or has one under exactly one of `KEYS`, which is then logged.

    Raises:
      WeightsError: if the file is missing, damaged, too large, has anything but tensors,
        holds several state dicts and no key says which, or if torch is missing or too old.
    """
    path = Path(path)
    with open_regular(path) as file:
        _check_container(path, file)
        torch = _import_torch(path)
        loaded = _load(path, file, torch)
        size = os.fstat(file.fileno()).st_size
    state = _without_prefix(_state_dict(path, loaded, key))
    yield {name: _tensor(path, name, value, size, torch) for name, value in state.items()}


def _check_container(path: Path, file: BinaryIO) -> None:
    """Refuses what `torch.save` does not write, and archives that grow when unpacked."""
    start = file.read(64)
    size = os.fstat(file.fileno()).st_size
    if size > SIZE_LIMIT:
        raise WeightsError(f"{path}: has {size} bytes, at most {SIZE_LIMIT} are read; {SAVE_IT}")
    if start.startswith(ZIP):
        _check_archive(path, file, size)
    elif start[8:9] == b"{":
        raise WeightsError(f"{path}: is a safetensors file; give it that suffix")
    elif start[:1] != LEGACY[:1]:
        raise WeightsError(f"{path}: is {what_it_is(start)}")
    elif not start.startswith(LEGACY):
        raise WeightsError(f"{path}: is a pickle that torch.save did not write; {SAVE_IT}")
    file.seek(0)


def _check_archive(path: Path, file: BinaryIO, size: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except Exception as error:  # on hostile bytes nearly any
        raise WeightsError(
            f"{path}: is a damaged zip archive ({error}); download or save it again"
        ) from error
    names = [member.filename.rpartition("/")[2] for member in members]
    if len(members) > ENTRY_LIMIT or names.count("data.pkl") != 1:
        raise WeightsError(f"{path}: is a zip archive that torch.save did not write; {SAVE_IT}")
    if "constants.pkl" in names:
        raise WeightsError(f"{path}: is a TorchScript program, which is not run; {SAVE_IT}")
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > size:
        raise WeightsError(
            f"{path}: its members are compressed or overlap, as torch.save never writes them; "
            f"{SAVE_IT}"
        )


def _import_torch(path: Path) -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise WeightsError(
            f"{path}: files of torch need torch to be read: pip install 'zoo[torch]' ({error})"
        ) from error
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if not version or tuple(map(int, version.groups())) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise WeightsError(
            f"{path}: torch {torch.__version__} can be made to run what a file says; at least "
            f"{oldest} is needed: pip install 'zoo[torch]'"
        )
    return torch


def _load(path: Path, file: BinaryIO, torch: Any) -> Any:
    """Returns what a file holds, made of tensors, numbers, strings and containers only."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # on hostile bytes nearly any
        # Only the reason: torch's own messages recommend to switch the protection off.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise WeightsError(
                f"{path}: holds {found[1]}, which is no tensor and could run anything; {SAVE_IT}"
            ) from None
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise WeightsError(
            f"{path}: is damaged or no state dict ({reason}); download it or {SAVE_IT}"
        ) from None


def _state_dict(path: Path, loaded: Any, key: str | None) -> Mapping[str, Any]:
    """Returns the state dict that a file is, or has under a key."""
    inside = loaded if isinstance(loaded, dict) else {}
    found = [name for name in KEYS if isinstance(inside.get(name), dict)]
    if key is None and len(found) > 1:
        raise WeightsError(f"{path}: has weights under {found}; say which with key={found[0]!r}")
    if key is None and found:
        key = found[0]
        logging.getLogger(__name__).info("%s: took the weights under %r", path, key)
    if key is not None and key not in inside:
        raise WeightsError(f"{path}: has nothing under key={key!r}, weights under {found}")
    state = loaded if key is None else inside[key]
    if not isinstance(state, dict) or not state or not all(isinstance(n, str) for n in state):
        raise WeightsError(f"{path}: holds a {type(state).__name__}, no state dict; {SAVE_IT}")
    if len(state) > ENTRY_LIMIT:
        raise WeightsError(f"{path}: has {len(state)} tensors, at most {ENTRY_LIMIT} are read")
    return state


def _without_prefix(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Takes "module." off all names, and AveragedModel's counter out."""
    wrapped = {name: value for name, value in state.items() if name != "n_averaged"}
    if not all(name.startswith("module.") for name in wrapped):
        return state
    return {name.removeprefix("module."): value for name, value in wrapped.items()}


def _tensor(path: Path, name: str, value: Any, size: int, torch: Any) -> Tensor:
    """Returns a plain tensor of the file, which has no more numbers than the file has room for."""
    try:
        check_name(name)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    if not isinstance(value, torch.Tensor):
        raise WeightsError(
            f"{path}: {name!r} is of type {type(value).__name__}, no tensor; {SAVE_IT}"
        )
    dtype = str(value.dtype).removeprefix("torch.")
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_neg()
    if not plain or dtype not in DTYPES.values():
        raise WeightsError(
            f"{path}: tensor {name!r} is {value.layout} {dtype} on {value.device.type}, read are "
            f"dense ones of {', '.join(DTYPES.values())}; {SAVE_IT}"
        )
    if value.numel() * value.element_size() > size:
        raise WeightsError(
            f"{path}: tensor {name!r} {list(value.shape)} is larger than the file; {SAVE_IT}"
        )
    return Tensor(tuple(value.shape), dtype, functools.partial(_read, value.detach(), torch))


def _read(value: Any, torch: Any) -> np.ndarray:
    """Returns the numbers of a tensor, whose memory the array shares if it can."""
    if value.dtype == torch.bfloat16:  # NumPy has it from JAX, torch does not know that
        return value.view(torch.int16).numpy().view(jnp.bfloat16)
    return value.numpy()
