"""Weights from the Hugging Face hub: of one commit, safetensors only, every byte verified.

The hub states a digest of every file: the SHA-256 of a large one, git's SHA-1 of a small one. Its
client, `huggingface_hub`, compares sizes only, waits as long as a server tells it to, and never
gives up on one that sends a byte now and then. So the client's session, settings and cache are
used here, but not its download: a file enters the cache under its digest once its bytes have that
digest. Wrong bytes are in the cache at no moment, for us or for programs that share it.
"""

from collections.abc import Callable, Collection, Mapping
import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
from pathlib import Path
import re
import shutil
import time
from typing import Any, BinaryIO, NamedTuple
import uuid

from zoo.errors import WeightsError
from zoo.weights.repository import CONFIG, INDEX, MAX_JSON_BYTES, WEIGHTS, shards

# A name that ends like this is meant as a file.
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
ARRAYS = (".h5", ".keras", ".msgpack", ".npy", ".npz", ".onnx", ".safetensors")
FILE_SUFFIXES = (*PICKLES, *ARRAYS, ".gz", ".json", ".tar", ".zip")


# A request that failed for a passing reason is repeated after these seconds.
WAITS = (1.0, 2.0, 4.0)
BUSY = (408, 429, 500, 502, 503, 504)
# A megabyte more than before means that repeating helps: the waits begin anew.
PROGRESS_BYTES = 2**20
# Slower than this, after a minute, is a server that stalls.
SLOWEST_BYTES_PER_SECOND, PATIENCE_SECONDS = 8192, 60.0

_COMMIT = re.compile("[0-9a-f]{40}")
_DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_WORD = r"\w(?:[\w.-]{0,94}\w)?"
_ID = re.compile(rf"(?P<repo>{_WORD}/{_WORD})(?:@(?P<revision>{_WORD}))?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class HubFiles:
    """Verified files of one commit of a repository, in the cache of the hub's client.

    Attributes:
      repo: "org/name".
      commit: the commit that was used, 40 hex digits, whatever the revision was called.
      config: config.json, if the repository has one.
      weights: model.safetensors, or the shards that the index names.
      index: model.safetensors.index.json of a repository with shards.
      sha256: of each file's content, by the file's name.
    """

    repo: str
    commit: str
    config: Path | None
    weights: tuple[Path, ...]
    index: Path | None
    sha256: Mapping[str, str]


class _Entry(NamedTuple):
    """What the hub states of a file."""

    digest: str | None
    size: int | None


class _Unreachable(Exception):
    """The hub says nothing about the repository; what is cached may be used."""


class _NotCached(Exception):
    """The cache lacks a file."""


class _Unverified(WeightsError):
    """A cached file is damaged, or nothing says what its digest must be."""


def is_hub_id(source: str) -> bool:
    """Returns whether a string can name a repository on the hub.

    That is "org/name" or "org/name@revision", perhaps behind "hf-hub:" or "hf://". A folder of the
    same name may exist; that is for the caller to see.

    Example:
      >>> is_hub_id("timm/resnet50.a1_in1k"), is_hub_id("hf-hub:timm/vgg11.tv_in1k@main")
      (True, True)
      >>> is_hub_id("weights/model.safetensors"), is_hub_id("resnet50"), is_hub_id("./a/b")
      (False, False, False)
    """
    return _parse(source) is not None


def fetch(source: str) -> HubFiles:
    """Returns the config and weights of a repository, from the cache or else downloaded.

    Without "@revision" it is the newest commit of "main". If the hub cannot be reached, it is the
    one that was fetched last. A commit of 40 hex digits that is cached needs no network.

    The client's variables hold: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE,
    HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_DISABLE_PROGRESS_BARS.

    Args:
      source: see `is_hub_id`.

    Raises:
      WeightsError: if there is no such repository or revision, it has no safetensors, it can
        neither be reached nor is cached, its bytes are wrong, or the cache cannot be written.
    """
    parsed = _parse(source)
    if parsed is None:
        raise WeightsError(
            f"{source!r} names no repository on the hub: write 'org/name' or 'org/name@revision'"
        )
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise WeightsError(
            f"{source} needs huggingface_hub: pip install 'zoo[weights]', or download the files "
            f"and give their folder's path"
        ) from error
    repo, revision = parsed
    cache = Path(constants.HF_HUB_CACHE)
    try:
        return _fetch(repo, revision, cache / f"models--{repo.replace('/', '--')}")
    except OSError as error:
        way_out = "set HF_HOME to a folder that can be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            way_out = "free some space, or set HF_HOME to a folder with more"
        raise WeightsError(
            f"{repo} cannot use the cache {cache} ({_one_line(error)}): {way_out}"
        ) from error


def _parse(source: str) -> tuple[str, str] | None:
    """Returns repository and revision, or None if it cannot be one."""
    match = _ID.fullmatch(source.removeprefix("hf-hub:").removeprefix("hf://"))
    if match is None:
        return None
    repo = match["repo"]
    # The hub allows neither; "--" stands for the slash in the cache.
    if "--" in repo or ".." in repo or repo.lower().endswith(FILE_SUFFIXES):
        return None
    return repo, match["revision"] or "main"


def _fetch(repo: str, revision: str, folder: Path) -> HubFiles:
    """Does what `fetch` does, with the repository's folder in the cache."""
    if _COMMIT.fullmatch(revision):
        with contextlib.suppress(_NotCached, _Unverified):
            return _fetch_cached(repo, revision, folder)
    try:
        commit, listing = _list_files(repo, revision)
    except _Unreachable as unreachable:
        try:
            return _fetch_cached(repo, _cached_commit(folder, revision), folder)
        except _NotCached:
            raise WeightsError(_by_hand(repo, revision, unreachable)) from unreachable
    files = _gather(
        repo, commit, listing, functools.partial(_obtain, repo, commit, folder, listing)
    )
    _remember(folder, revision, commit, has_config=files.config is not None)
    return files


def _gather(
    repo: str, commit: str, names: Collection[str], get: Callable[[str], tuple[Path, str]]
) -> HubFiles:
    """Returns the files of a commit.

    Args:
      repo: "org/name".
      commit: 40 hex digits.
      names: of all files of the commit.
      get: returns path and SHA-256 of a file, verified.
    """
    sha256: dict[str, str] = {}

    def take(name: str) -> Path:
        path, sha256[name] = get(name)
        return path

    if WEIGHTS not in names and INDEX not in names:
        raise WeightsError(_no_safetensors(repo, commit, names))
    config = take(CONFIG) if CONFIG in names else None
    if WEIGHTS in names:
        return HubFiles(repo, commit, config, (take(WEIGHTS),), None, sha256)
    index = take(INDEX)
    weights = tuple(take(shard) for shard in shards(index, repo))
    return HubFiles(repo, commit, config, weights, index, sha256)


def _fetch_cached(repo: str, commit: str, folder: Path) -> HubFiles:
    """Returns the files of a commit if all of them are cached."""
    names = _names(folder / "snapshots" / commit)
    # The client notes here which files it asked for in vain.
    absent = _names(folder / ".no_exist" / commit)
    if CONFIG not in names | absent or not names & {WEIGHTS, INDEX}:
        raise _NotCached
    return _gather(repo, commit, names, functools.partial(_read_cached, repo, commit, folder))


def _names(folder: Path) -> set[str]:
    """Returns the names in a folder that need not exist."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _cached_commit(folder: Path, revision: str) -> str:
    """Returns the commit that a revision was when it was fetched last."""
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (folder / "refs" / revision).read_text(errors="replace").strip()
    except FileNotFoundError:
        raise _NotCached from None
    if not _COMMIT.fullmatch(commit):
        raise _NotCached
    return commit


def _read_cached(repo: str, commit: str, folder: Path, name: str) -> tuple[Path, str]:
    """Returns path and SHA-256 of a cached file, verified."""
    path = folder / "snapshots" / commit / name
    try:
        expected = _expected_digest(path, _names(folder / "blobs"))
        if expected is None:
            raise _Unverified(
                f"{repo}: nothing in the cache says what the digest of {name} must be: fetch it "
                f"with network once, or give the path {path.parent} to use it unverified"
            )
        found = _digest(path, len(expected))
        if found != expected:
            raise _Unverified(
                f"{repo}: {name} is damaged in the cache: its digest must be {expected}, is "
                f"{found}. With network it is downloaded again"
            )
        return path, _digest(path, 64) if len(found) == 40 else found
    except FileNotFoundError:
        raise _NotCached from None


def _expected_digest(path: Path, blobs: Collection[str]) -> str | None:
    """Returns the digest that a cached file must have, or None if nothing says it.

    Args:
      path: of a link to a blob; or of a copy, where links cannot be.
      blobs: the names, which are digests, of all contents the cache has of the repository.
    """
    if path.is_symlink():
        name = Path(os.readlink(path)).name
        return name if _DIGEST.fullmatch(name) else None
    return next((found for n in (64, 40) if (found := _digest(path, n)) in blobs), None)


def _digest(path: Path, length: int) -> str:
    """Returns the digest by which the hub calls a content: SHA-256 (64), or git's SHA-1 (40)."""
    with path.open("rb") as file:
        if length == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        header = b"blob %d\0" % os.fstat(file.fileno()).st_size
        return hashlib.file_digest(
            file, lambda: hashlib.sha1(header, usedforsecurity=False)
        ).hexdigest()


def _remember(folder: Path, revision: str, commit: str, *, has_config: bool) -> None:
    """Notes in the cache what has to be known without network."""
    with contextlib.suppress(OSError):  # a cache that is shared may be for reading only
        if revision != commit:
            ref = folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            partial = _unique(ref)
            partial.write_text(commit)
            os.replace(partial, ref)
        if not has_config:
            absent = folder / ".no_exist" / commit / CONFIG
            absent.parent.mkdir(parents=True, exist_ok=True)
            absent.touch()


def _unique(path: Path) -> Path:
    """Returns a name beside a path that no other process uses."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.incomplete")


def _list_files(repo: str, revision: str) -> tuple[str, dict[str, _Entry]]:
    """Returns the commit that a revision is now, and what the hub states of its files."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _Unreachable("HF_HUB_OFFLINE is set")
    for wait in (*WAITS, None):
        try:
            return _ask(repo, revision)
        except _http_error() as error:
            status = _status(error)
            if status and status not in BUSY:
                raise WeightsError(_refusal(repo, revision, error)) from error
            # A server that does not answer at all is not asked again: the cache may do.
            if wait is None or not status:
                raise _Unreachable(_reason(error)) from error
            time.sleep(wait)
        except OSError as error:
            raise _Unreachable(_one_line(error)) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _Unreachable(f"{constants.ENDPOINT} does not answer as a hub does") from error
    raise AssertionError("the last round returns or raises")


def _ask(repo: str, revision: str) -> tuple[str, dict[str, _Entry]]:
    """Asks the hub once for a revision's commit and files."""
    from huggingface_hub import HfApi, constants

    info = HfApi().model_info(
        repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    commit = info.sha or ""
    if not _COMMIT.fullmatch(commit) or info.siblings is None:
        raise ValueError("the answer names no commit")
    if _COMMIT.fullmatch(revision) and commit != revision:
        raise ValueError("the answer is of another commit")
    return commit, {
        file.rfilename: _Entry(file.lfs.sha256 if file.lfs else file.blob_id, file.size)
        for file in info.siblings
    }


def _obtain(
    repo: str, commit: str, folder: Path, listing: Mapping[str, _Entry], name: str
) -> tuple[Path, str]:
    """Returns path and SHA-256 of a file, cached or else downloaded, with the stated digest."""
    if name not in listing:
        raise WeightsError(f"{repo}@{commit} lacks {name}, which its {INDEX} names")
    digest, size = listing[name]
    if not digest or not _DIGEST.fullmatch(digest) or not isinstance(size, int):
        raise WeightsError(
            f"{repo}: the hub states no digest and size of {name}; without one it cannot be "
            f"verified. Download it by hand and give its path"
        )
    if name.endswith(".json") and size > MAX_JSON_BYTES:
        raise WeightsError(
            f"{repo}: {name} has {size:,} bytes; at most {MAX_JSON_BYTES:,} are read"
        )
    path, blob = folder / "snapshots" / commit / name, folder / "blobs" / digest
    if not _has_digest(path, digest):
        if not _has_digest(blob, digest):
            path.unlink(missing_ok=True)
            blob.unlink(missing_ok=True)
            _download(repo, commit, name, digest, size, blob)
        _link(blob, path)
    return path, digest if len(digest) == 64 else _digest(path, 64)


def _has_digest(path: Path, digest: str) -> bool:
    """Returns whether a file exists and has a digest."""
    return path.is_file() and _digest(path, len(digest)) == digest


def _link(blob: Path, path: Path) -> None:
    """Gives a commit its file, in place of what has that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _unique(path)
    try:
        try:
            partial.symlink_to(os.path.relpath(blob, path.parent))
        except (OSError, NotImplementedError):  # as on Windows, unless it is allowed
            shutil.copyfile(blob, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _download(repo: str, commit: str, name: str, digest: str, size: int, blob: Path) -> None:
    """Downloads a file, once more if its bytes are wrong."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repo, name, revision=commit)
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = _unique(blob)
    found = ""
    try:
        for _ in range(2):
            with partial.open("wb") as file:
                _receive(url, file, size, f"{repo}: {name}")
            found = _digest(partial, len(digest))
            if found == digest:
                os.replace(partial, blob)
                return
    finally:
        partial.unlink(missing_ok=True)
    raise WeightsError(
        f"{repo}: {name} arrived with wrong bytes, twice: its digest must be {digest}, is {found}. "
        f"Try another network, or download it by hand and give its path"
    )


def _receive(url: str, file: BinaryIO, size: int, what: str) -> None:
    """Downloads a file of a known size, and goes on where a connection breaks."""
    from huggingface_hub.utils import tqdm

    waits, reached, reason = list(WAITS), 0, "the hub sends less"
    with tqdm(total=size, unit="B", unit_scale=True, desc=what, disable=None) as bar:
        while True:
            try:
                _receive_once(url, file, size, bar.update)
            except _http_error() as error:
                if _status(error) not in (0, *BUSY):
                    raise WeightsError(
                        f"{what} cannot be downloaded ({_reason(error)}): try again later, or "
                        f"download it by hand and give its path"
                    ) from error
                reason = _reason(error)
            if file.tell() >= size:
                return
            if file.tell() >= reached + PROGRESS_BYTES:
                waits, reached = list(WAITS), file.tell()
            if not waits:
                raise WeightsError(
                    f"{what} broke off after {file.tell():,} of {size:,} bytes ({reason}): try "
                    f"again later, or download it by hand and give its path"
                )
            time.sleep(waits.pop(0))


def _receive_once(url: str, file: BinaryIO, size: int, count: Callable[[int], Any]) -> None:
    """Appends to a file what the server sends in one answer."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    start, began = file.tell(), time.monotonic()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if start and response.status_code != 206:  # the server begins anew
            count(-start)
            file.seek(0)
            file.truncate()
        received = 0
        for chunk in response.iter_bytes():
            file.write(chunk)
            count(len(chunk))
            received += len(chunk)
            seconds = time.monotonic() - began
            if seconds > PATIENCE_SECONDS + received / SLOWEST_BYTES_PER_SECOND:
                raise WeightsError(
                    f"{url} sent {received:,} bytes in {seconds:.0f} seconds: try again later, or "
                    f"download it by hand and give its path"
                )
            if file.tell() > size:  # it may go on for ever; the digest is wrong already
                return


def _http_error() -> type[Exception]:
    """Returns the base of all errors of the client's transport: httpx or httpx2, by version."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _status(error: Exception) -> int:
    """Returns the status with which a server refused, or 0 if there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _reason(error: Exception) -> str:
    """Returns in a few words why a request failed."""
    status = _status(error)
    if status:
        return f"the server answers {status}"
    return f"{type(error).__name__}: {_one_line(error)}".rstrip(": ")


def _one_line(error: Exception) -> str:
    """Returns a message of somebody else's so that it fits into one of ours."""
    return " ".join(str(error).split())[:200]


def _refusal(repo: str, revision: str, error: Exception) -> str:
    """Returns the message for a repository that the hub does not give."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RevisionNotFoundError

    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}: {page}/tree/main shows those it has"
    if _status(error) in (401, 403, 404):
        return (
            f"{repo} does not exist, or is private or gated ({_reason(error)}): check the name; "
            f"if it is right, accept the conditions at {page} and log in with `hf auth login`"
        )
    return f"{repo} cannot be fetched ({_reason(error)}): try again later, or see {page}"


def _by_hand(repo: str, revision: str, reason: Exception) -> str:
    """Returns the message for a repository that is neither reached nor cached."""
    folder = repo.partition("/")[2]
    at = "" if revision == "main" else f" --revision {revision}"
    return (
        f"{repo} cannot be reached ({reason}), and the cache lacks it. On a machine with network "
        f"run: hf download {repo} {CONFIG} {WEIGHTS}{at} --local-dir {folder}; copy the folder "
        f"here and give its path as weights"
    )


def _no_safetensors(repo: str, commit: str, names: Collection[str]) -> str:
    """Returns the message for a repository without weights that can be read safely."""
    pickles = [name for name in names if name.endswith(PICKLES)]
    if not pickles:
        return f"{repo}@{commit} has no {WEIGHTS}: choose a repository of an image model that has"
    return (
        f"{repo}@{commit} has no {WEIGHTS}, only {pickles[0]!r}, which is never fetched because a "
        f"pickle can run any program: if you trust it, download it by hand, pip install "
        f"'zoo[torch]' and python -m zoo convert NAME FILE OUT"
    )
