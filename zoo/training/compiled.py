"""Compiled programs, kept from one start of a program to the next.

JAX knows by a digest which program is which: of the computation, of the compiler, its flags
and its devices. It can keep programs in a folder by itself, and does where the user has named
one (JAX_COMPILATION_CACHE_DIR). What `Store` does otherwise:

1. An entry appears whole or not at all, and carries a digest of its bytes. A damaged one is
   removed and made again; JAX's would stay and be tried at each start, and a changed bit in it
   may go unnoticed, to be run as machine code.
2. The folder does not grow without end, and no further package is needed for that.
3. A CPU that has other instructions has a folder of its own, where homes are shared.
4. Nothing that goes wrong here ends a run, or is said more than once.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import os
from pathlib import Path
import platform
import stat
import tempfile
import time
from typing import Any

import jax
from jax._src import compilation_cache  # where to put another store has no public name

from zoo.training.report import warn

MAX_BYTES = 4 * 2**30
_SUFFIX, _SCRATCH = ".program", ".tmp"
_STALE = 3600.0  # seconds after which what another process was writing is given up


def keep_programs(folder: str | None) -> str:
    """Makes JAX keep compiled programs, all of them, for the next start.

    Args:
      folder: where; "" for nowhere, None for the user's cache folder, `default_folder`. A
        folder that the user has told JAX goes before both, and is used as JAX does.

    Returns:
      Why they are not kept, for a person, or "".
    """
    if folder == "":
        jax.config.update("jax_enable_compilation_cache", False)
        return ""
    for name, value in (("min_compile_time_secs", 0), ("min_entry_size_bytes", -1)):
        if f"JAX_PERSISTENT_CACHE_{name.upper()}" not in os.environ:
            jax.config.update(f"jax_persistent_cache_{name}", value)
    if _configured():
        return ""
    place = Path(folder).expanduser() if folder else default_folder()
    try:
        own = _own_folder(place)
    except OSError as error:
        return f"compiled programs are not kept: {error}. {_WAY_OUT}"
    given = jax.config.jax_compilation_cache_max_size  # pyright: ignore[reportAttributeAccessIssue]
    limit = MAX_BYTES if given < 0 else given
    if hasattr(compilation_cache, "get_file_cache"):  # else JAX does it in its own way
        compilation_cache.get_file_cache = lambda path: (Store(Path(path), limit), path)  # pyright: ignore
    jax.config.update("jax_compilation_cache_dir", str(own))
    return ""


_WAY_OUT = "Name another folder by --config.compilation_cache, or '' for none"


def _configured() -> str | None:
    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def where_kept() -> str:
    """Returns where JAX keeps programs, for a person."""
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    return (_configured() if enabled else None) or "nowhere"


def default_folder() -> Path:
    """Returns where the user's caches are, `zoo/xla` in it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zoo" / "xla"


def _own_folder(place: Path) -> Path:
    """Returns this machine's folder in a place, made if need be.

    Raises:
      OSError: if there is none that this user alone can write to: programs are executed.
    """
    folder = place / _machine()
    for path in (place, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # whatever the umask is
        found = path.stat()
        if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"others than you can write to {path}, and it holds programs")
    return folder


def _machine() -> str:
    """Returns a digest of what code for this CPU may use."""
    features = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return hashlib.sha256("\n".join(features).encode()).hexdigest()[:12]


class Store:
    """Programs in a folder, by key; what JAX asks for a program before it compiles one.

    Args:
      folder: which exists.
      max_bytes: what is used least goes when there are more; one that alone is larger is not
        kept.
    """

    def __init__(self, folder: Path, max_bytes: int):
        self._path, self._max_bytes = folder, max_bytes
        self._writes = True
        self._bytes = self._tidy()

    def get(self, key: str) -> bytes | None:
        """Returns a program, None if it is not there, or is not what was written."""
        path = self._file(key)
        try:
            digest, value = _split(path.read_bytes())
        except OSError:
            return None
        if hashlib.sha256(value).digest() != digest:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it was used
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program, if that is possible."""
        if not self._writes or len(value) > self._max_bytes:
            return
        try:
            handle, scratch = tempfile.mkstemp(suffix=_SCRATCH, dir=self._path)
            try:
                with os.fdopen(handle, "wb") as file:
                    size = file.write(hashlib.sha256(value).digest() + value)
                os.replace(scratch, self._file(key))
            except OSError:
                os.unlink(scratch)
                raise
        except OSError as error:
            self._writes = False
            warn(f"no further programs are kept in {self._path}: {error.strerror}")
            return
        self._bytes += size
        if self._bytes > self._max_bytes:
            self._bytes = self._tidy()

    def _file(self, key: str) -> Path:
        name, _, digest = key.rpartition("-")
        return self._path / f"{name[:100]}-{digest}{_SUFFIX}"

    def _tidy(self) -> int:
        """Removes what is too much, what is used least first, and returns how much is left.

        Other processes may do the same at the same time, so any file may be gone.
        """
        found = []
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(self._path)):
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    age = time.time() - status.st_mtime
                    if entry.name.endswith(_SUFFIX):
                        found.append((status.st_mtime, status.st_size, entry.path))
                    elif entry.name.endswith(_SCRATCH) and age > _STALE:
                        os.unlink(entry.path)
        total = sum(size for _, size, _ in found)
        # A bit more than need be, or each further program would have the folder read.
        goal = self._max_bytes * 9 // 10 if total > self._max_bytes else total
        for _, size, path in sorted(found):
            if total <= goal:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size
        return total


def _split(data: bytes) -> tuple[bytes, bytes]:
    return data[:32], data[32:]


@dataclasses.dataclass
class Compilations:
    """How many programs were needed since the beginning of `count_compilations`.

    Attributes:
      needed: all.
      read: those that were kept from an earlier start.
    """

    needed: int = 0
    read: int = 0

    @property
    def compiled(self) -> int:
        """How many were compiled."""
        return self.needed - self.read

    def __str__(self) -> str:
        return f"{self.compiled} programs compiled, {self.read} kept from before"


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Counts, within the block, what JAX compiles and what it has kept."""
    counts = Compilations()

    def on_duration(event: str, duration_secs: float, **_: Any) -> None:
        # Once for each program, whether it is compiled or read.
        counts.needed += event == "/jax/core/compile/backend_compile_duration"

    def on_event(event: str, **_: Any) -> None:
        counts.read += event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
