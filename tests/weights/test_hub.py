"""Files from the hub: of one commit, with the right bytes or an error, whatever the server does."""

import errno
import hashlib
import json
import os
from pathlib import Path
import shutil
import sys

import huggingface_hub
from huggingface_hub import constants
import pytest

from tests.weights.fake_hub import FakeHub, digest_of
from tests.weights.files import assert_filled, their_arrays, write_safetensors
import zoo
from zoo.errors import WeightsError
from zoo.weights import hub, repository
from zoo.weights.hub import fetch, is_hub_id
from zoo.weights.repository import read_json

REPO = "timm/resnet18.a1_in1k"
WEIGHTS = bytes(range(256)) * 400
CONFIG = json.dumps({"architecture": "resnet18", "pretrained_cfg": {"crop_pct": 0.95}}).encode()
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "pytorch_model.bin": WEIGHTS[::-1]}

SHARDS = {f"model-0000{i}-of-00002.safetensors": WEIGHTS * i for i in (1, 2)}
WEIGHT_MAP = {f"layer{i}.{kind}": name for i, name in enumerate(SHARDS) for kind in ("w", "b")}
INDEX = json.dumps({"metadata": {}, "weight_map": WEIGHT_MAP}).encode()


@pytest.fixture(scope="module")
def running():
    """A server for all tests: another one would be another client, which takes time to start."""
    server = FakeHub()
    huggingface_hub.close_session()
    yield server
    huggingface_hub.close_session()
    server.stop()


@pytest.fixture
def server(running, tmp_path, monkeypatch):
    """The hub, which has REPO, as the client sees it; the cache is empty."""
    running.reset()
    running.push(REPO, FILES)
    template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", running.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "WAITS", (0.01, 0.01))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return running


@pytest.fixture
def fail(server, monkeypatch):
    """Lets requests with a part of the path fail."""

    def fail(part, fault, times=10**9):
        if fault == "stall":
            timeout = "HF_HUB_ETAG_TIMEOUT" if part == "/api/" else "HF_HUB_DOWNLOAD_TIMEOUT"
            monkeypatch.setattr(constants, timeout, 0.15)
        if fault == "gone":
            monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        else:
            server.fail(part, fault, times)

    return fail


@pytest.fixture
def offline(monkeypatch):
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def contents(files):
    """Bytes by name of all that was fetched; what it says of itself must be true."""
    paths = [path for path in (files.config, files.index, *files.weights) if path]
    by_name = {path.name: path.read_bytes() for path in paths}
    assert files.sha256 == {
        name: hashlib.sha256(content).hexdigest() for name, content in by_name.items()
    }
    assert all(path.parent.name == files.commit for path in paths)
    return by_name


def without_pickle(files):
    return {name: content for name, content in files.items() if not name.endswith(".bin")}


def cached_blobs():
    """All files of the cache that hold a content."""
    blobs = Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*")
    return {blob.name: blob.read_bytes() for blob in blobs}


def error_of(source=REPO):
    """The message of the error with which fetching ends: a line with a way out."""
    with pytest.raises(WeightsError) as info:
        fetch(source)
    message = str(info.value)
    assert "\n" not in message
    # Whatever happened, no content is in the cache under a name that is not its digest.
    assert all(digest_of(content) == name for name, content in cached_blobs().items())
    return message


@pytest.mark.parametrize(
    "source",
    [REPO, f"{REPO}@main", f"hf-hub:{REPO}", f"hf://{REPO}@v1.0", f"a/b@{'0' * 40}", "A_1/b-c.d"],
)
def test_names_of_repositories(source):
    assert is_hub_id(source)


@pytest.mark.parametrize(
    "source",
    [
        *("resnet18", "", "/", "a/", "/b", "a/b/c", "hf-hub:a", "./a", "../a", "~/a", "/a/b"),
        *(
            "a/b.safetensors",
            "a/B.PTH",
            "a/model.h5",
            "a\\b",
            "C:/b",
            "a/b@",
            "a/b@c/d",
            "a/b@../c",
        ),
        *("a/..", "a/.b", "a/b.", "a/b..c", "a--b/c", "a/b c", "a/b\n", "ä/b", "a/" + "b" * 97),
        *("https://huggingface.co/a/b", "hf-hub:hf-hub:a/b", "a/b?c", "a/b%2e"),
    ],
)
def test_other_strings_name_no_repository(source):
    assert not is_hub_id(source)
    with pytest.raises(WeightsError, match="org/name"):
        fetch(source)


def test_config_and_weights_are_of_the_commit(server):
    files = fetch(REPO)
    assert contents(files) == without_pickle(FILES)
    assert (files.repo, files.commit) == (REPO, server.refs[REPO, "main"])
    assert files.index is None
    assert server.count(".bin") == 0


def test_config_may_be_absent(server, offline):
    server.push("org/bare", {"model.safetensors": WEIGHTS})
    assert fetch("org/bare").config is None
    offline()
    files = fetch("org/bare")
    assert files.config is None
    assert contents(files) == {"model.safetensors": WEIGHTS}


def test_token_goes_to_the_hub_only(server):
    fetch(REPO)
    tokens = {path.startswith("/cdn"): token for path, token in server.tokens.items()}
    assert tokens == {False: "Bearer hf_secret", True: None}


def test_what_is_cached_is_not_downloaded_again(server):
    first = fetch(REPO)
    requests = server.count("/resolve/")
    assert fetch(REPO) == first
    assert server.count("/resolve/") == requests


def test_shards_are_those_of_the_index(server, offline):
    server.push("org/large", {"config.json": CONFIG, hub.INDEX: INDEX, **SHARDS, "x.bin": WEIGHTS})
    files = fetch("org/large")
    assert contents(files) == {"config.json": CONFIG, hub.INDEX: INDEX, **SHARDS}
    assert [path.name for path in files.weights] == sorted(SHARDS)
    offline()
    assert fetch("org/large") == files


def test_offline_gives_what_was_fetched_last(server, offline):
    old = fetch(REPO)
    server.push(REPO, {**FILES, "model.safetensors": WEIGHTS[::-1]})
    new = fetch(REPO)
    assert new.commit != old.commit
    requests = len(server.requests)
    offline()
    assert fetch(REPO) == fetch(f"{REPO}@main") == new
    assert len(server.requests) == requests


@pytest.mark.parametrize("fault", ["gone", "stall", "portal", 429, 500, 503, "loop"])
def test_hub_that_does_not_answer_leaves_the_cache(server, fail, fault):
    files = fetch(REPO)
    fail("/api/", fault)
    assert fetch(REPO) == files


@pytest.mark.parametrize("fault", ["offline", "gone", "stall", "portal", 429, 500, "loop"])
def test_unreachable_and_not_cached_says_what_to_bring(server, fail, offline, fault):
    if fault == "offline":
        offline()
    else:
        fail("/api/", fault)
    command = (
        f"hf download {REPO} config.json model.safetensors --local-dir resnet18.a1_in1k; copy the "
        f"folder here and give its path as weights"
    )
    assert command in error_of()


def test_busy_hub_is_asked_again(server, fail):
    fail("/api/", 503, times=2)
    fail("/cdn/", 429, times=2)
    assert contents(fetch(REPO)) == without_pickle(FILES)


def test_pinned_commit_keeps_its_bytes(server, offline):
    pinned = f"{REPO}@{server.refs[REPO, 'main']}"
    server.push(REPO, {name: content + b"2" for name, content in FILES.items()})
    files = fetch(pinned)
    assert contents(files) == without_pickle(FILES)
    assert contents(fetch(REPO))["model.safetensors"] == WEIGHTS + b"2"
    requests = len(server.requests)
    assert fetch(pinned) == files
    assert len(server.requests) == requests  # nothing was asked
    offline()
    assert fetch(pinned) == files


def test_answer_of_another_commit_is_not_believed(server):
    commit = "1" * 40
    server.refs[REPO, commit] = server.refs[REPO, "main"]
    assert "does not answer as a hub does" in error_of(f"{REPO}@{commit}")


def test_revision_has_its_own_place_in_the_cache(server, offline):
    server.push(REPO, {**FILES, "model.safetensors": WEIGHTS[::-1]}, revision="v1.0")
    main, tagged = fetch(REPO), fetch(f"{REPO}@v1.0")
    assert contents(tagged)["model.safetensors"] == WEIGHTS[::-1]
    offline()
    assert (fetch(REPO), fetch(f"{REPO}@v1.0")) == (main, tagged)
    assert "--revision v2" in error_of(f"{REPO}@v2")


@pytest.mark.parametrize("part", ["/cdn/", "config.json"])
def test_wrong_bytes_are_fetched_again(server, fail, part):
    fail(part, "wrong bytes", times=1)
    assert contents(fetch(REPO)) == without_pickle(FILES)


@pytest.mark.parametrize("part", ["/cdn/", "config.json"])
@pytest.mark.parametrize("fault", ["wrong bytes", "endless"])
def test_wrong_bytes_never_enter_the_cache(server, fail, offline, part, fault):
    fail(part, fault)
    message = error_of()
    content = CONFIG if part == "config.json" else WEIGHTS
    assert REPO in message
    assert digest_of(content) in message  # expected; what was found is there too
    if fault == "wrong bytes":
        assert digest_of(content[:-1] + bytes([content[-1] ^ 1])) in message
    assert digest_of(content) not in cached_blobs()
    offline()
    assert "cannot be reached" in error_of()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damage_in_the_cache_is_found(server, fail, offline, monkeypatch, name):
    files = fetch(REPO)
    pinned = f"{REPO}@{files.commit}"
    path = files.weights[0].with_name(name)

    def damage():
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    for source in (REPO, pinned):
        damage()
        assert contents(fetch(source)) == without_pickle(FILES)
    damage()
    fail(name, "wrong bytes")
    assert "wrong bytes" in error_of()
    assert not path.exists()
    server.faults.clear()
    fetch(REPO)
    damage()
    offline()
    for source in (REPO, pinned):
        with pytest.raises(WeightsError, match=f"{name} is damaged") as info:
            fetch(source)
        assert digest_of(FILES[name]) in str(info.value)
        assert digest_of(path.read_bytes()) in str(info.value)


def test_cache_without_links_is_verified_too(server, offline, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refuse)
    files = fetch(REPO)
    assert not files.weights[0].is_symlink()
    assert contents(fetch(f"{REPO}@{files.commit}")) == without_pickle(FILES)
    files.weights[0].write_bytes(WEIGHTS[:-1] + b"!")
    assert contents(fetch(REPO)) == without_pickle(FILES)
    offline()
    assert fetch(REPO) == files
    # As the client leaves it there: copies only.
    shutil.rmtree(Path(constants.HF_HUB_CACHE, f"models--{REPO.replace('/', '--')}", "blobs"))
    assert "nothing in the cache says" in error_of()


def test_cache_that_the_client_filled_is_read(server, offline):
    """It knows `hf_hub_download` as the one that timm uses."""
    commit = server.refs[REPO, "main"]
    for name in without_pickle(FILES):
        huggingface_hub.hf_hub_download(REPO, name)
    offline()
    assert contents(fetch(REPO)) == without_pickle(FILES)
    assert fetch(REPO).commit == commit
    # Newer clients share contents among repositories: the blob is a link too.
    blob = fetch(REPO).weights[0].resolve()
    shared = blob.rename(Path(constants.HF_HUB_CACHE, "shared"))
    blob.symlink_to(shared)
    assert contents(fetch(REPO)) == without_pickle(FILES)
    shared.write_bytes(WEIGHTS[::-1])
    with pytest.raises(WeightsError, match="damaged"):
        fetch(REPO)


def test_client_reads_the_cache_that_we_filled(server, offline):
    files = fetch(REPO)
    offline()
    for path in (files.config, *files.weights):
        assert path == Path(huggingface_hub.hf_hub_download(REPO, path.name))


def test_cache_that_lacks_the_config_is_not_complete(server, offline):
    huggingface_hub.hf_hub_download(REPO, "model.safetensors")
    offline()
    assert "config.json" in error_of()


@pytest.mark.parametrize("fault", ["truncated", "short", 500, 429])
@pytest.mark.parametrize("resumes", [True, False])
def test_download_goes_on_where_it_broke_off(server, fail, fault, resumes):
    server.resumes = resumes
    fail("/cdn/", fault, times=1)
    assert contents(fetch(REPO)) == without_pickle(FILES)
    assert server.count("/cdn/") == 2


def test_stalled_download_is_asked_for_again(server, fail):
    fail("/cdn/", "stall", times=1)
    assert contents(fetch(REPO)) == without_pickle(FILES)


def test_download_that_breaks_off_often_but_goes_on_ends_well(server, fail, monkeypatch):
    monkeypatch.setattr(hub, "PROGRESS_BYTES", 1000)
    fail("/cdn/", "truncated", times=len(hub.WAITS) + 3)
    assert contents(fetch(REPO)) == without_pickle(FILES)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("stall", "ReadTimeout"), (500, "answers 500"), (429, "answers 429"), (403, "answers 403")],
)
def test_download_that_never_ends_well_ends(server, fail, fault, reason):
    fail("/cdn/", fault)
    message = error_of()
    assert "model.safetensors" in message
    assert reason in message


def test_body_that_is_always_too_short_ends(server, fail):
    server.push(REPO, {"config.json": CONFIG, "model.safetensors": WEIGHTS[:3000]})
    fail("/cdn/", "truncated")
    assert "broke off after" in error_of()


def test_no_more_is_taken_than_the_size(server, fail):
    fail("/cdn/", "endless")
    assert digest_of(WEIGHTS) in error_of()
    assert not any("/cdn/" in path for path in server.finished)


def test_server_that_sends_a_byte_now_and_then_is_left(server, fail, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.1)
    fail("/cdn/", "drip")
    assert "try again later" in error_of()


def test_what_the_hub_does_not_have(server, fail):
    assert "does not exist" in error_of("org/nothing")
    assert "has no revision 'v9'" in error_of(f"{REPO}@v9")
    assert "has no revision" in error_of(f"{REPO}@{'0' * 40}")
    server.gated.add(REPO)
    assert "hf auth login" in error_of()
    server.gated.clear()
    fail("config.json", 404)
    assert "config.json" in error_of()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": CONFIG, "pytorch_model.bin": WEIGHTS}, "python -m zoo convert NAME"),
        ({"config.json": CONFIG, "resnet.pth": WEIGHTS}, "'resnet.pth'"),
        ({"config.json": CONFIG}, "has no model.safetensors"),
    ],
)
def test_without_safetensors_nothing_is_fetched(server, files, message):
    server.push("org/pickles", files)
    assert message in error_of("org/pickles")
    assert server.count("/resolve/") == 0


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "..", "x.bin", "", 3, None]
)
def test_index_names_files_beside_it_only(server, shard):
    index = json.dumps({"weight_map": {"a": "x.safetensors", "b": shard}}).encode()
    server.push("org/large", {hub.INDEX: index, "x.safetensors": WEIGHTS, "x.bin": WEIGHTS})
    assert "Do not use" in error_of("org/large")
    assert server.count("/resolve/") == 1


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 10**5, "nested too deep"),
        (b"[]", "must hold an object"),
        (b"{}", "no 'weight_map'"),
        (b'{"weight_map": []}', "no 'weight_map'"),
        (b'{"weight_map": {"a": "x.safetensors"}}', "lacks x.safetensors"),
        (b"1" * 5000, "not JSON"),
    ],
)
def test_index_that_cannot_be_used(server, index, message):
    server.push("org/large", {hub.INDEX: index})
    assert message in error_of("org/large")


def test_json_has_a_limit(server, monkeypatch, tmp_path):
    for module in (hub, repository):
        monkeypatch.setattr(module, "MAX_JSON_BYTES", len(CONFIG) - 1)
    assert "config.json" in error_of()
    assert server.count("/resolve/") == 0
    path = tmp_path / "config.json"
    path.write_bytes(CONFIG)
    with pytest.raises(WeightsError, match="at most"):
        read_json(path)
    monkeypatch.undo()
    assert read_json(path) == json.loads(CONFIG)


@pytest.mark.parametrize("digest", [None, "", "abc", "../../x", "g" * 64])
def test_file_without_a_digest_is_refused(server, monkeypatch, digest):
    ask = hub._ask

    def without_digest(*args):
        commit, listing = ask(*args)
        return commit, {name: entry._replace(digest=digest) for name, entry in listing.items()}

    monkeypatch.setattr(hub, "_ask", without_digest)
    assert "no digest" in error_of()


def test_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    assert "set HF_HOME" in error_of()


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'zoo\[weights\]'"):
        fetch(REPO)


def test_full_disk(server, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, "_receive", full)
    assert "free some space" in error_of()
    assert cached_blobs() == {}  # no partial files either


TINY = {"stages": ((1, 16, 1, 1), (6, 24, 1, 2))}  # of a network that is quick to trace
TINY_REPO = "timm/mobilenetv2_100.ra_in1k"


def tiny_repository(folder, *, nested=True, shards=False):
    """Files of a repository as timm writes them, and our arrays of the same numbers."""
    arrays, ours = their_arrays("mobilenet_v2", "timm", **TINY)
    about = {"input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bicubic"}
    about = {"pretrained_cfg": about} if nested else about
    config = {"architecture": "mobilenetv2_100", "num_classes": 1000, **about}
    files = {"config.json": json.dumps(config).encode()}
    parts = {"model.safetensors": list(arrays)}
    if shards:
        names = sorted(arrays)
        parts = dict(zip(SHARDS, (names[::2], names[1::2]), strict=True))
        weight_map = {name: file for file, inside in parts.items() for name in inside}
        files[hub.INDEX] = json.dumps({"weight_map": weight_map}).encode()
    for file, inside in parts.items():
        write_safetensors(folder / file, {name: arrays[name] for name in inside})
        files[file] = (folder / file).read_bytes()
    return files, ours


@pytest.mark.parametrize(("nested", "shards"), [(True, False), (False, True)])
def test_a_repository_is_loaded_and_loaded_again_offline(server, offline, tmp_path, nested, shards):
    files, ours = tiny_repository(tmp_path, nested=nested, shards=shards)
    commit = server.push(TINY_REPO, files)
    for _ in range(2):
        loaded = zoo.load_weights("mobilenet_v2", TINY_REPO, **TINY)
        assert_filled(loaded.variables, ours)
        preprocessing = loaded.preprocessing
        assert (preprocessing.image_size, preprocessing.interpolation) == (96, "bicubic")
        assert loaded.report.layout == "timm"
        assert loaded.report.source.startswith(f"{TINY_REPO}@{commit}, sha256 ")
        offline()
    # What the catalogue knows needs no file at all.
    server.push(TINY_REPO, {})
    assert zoo.preprocessing("mobilenet_v2", TINY_REPO).image_size == 224


def test_wrong_bytes_never_become_weights(server, tmp_path):
    files, _ = tiny_repository(tmp_path)
    server.push(TINY_REPO, files)
    server.fail("model.safetensors", "wrong bytes")
    with pytest.raises(WeightsError, match=r"sha256|digest"):
        zoo.load_weights("mobilenet_v2", TINY_REPO, **TINY)


def test_without_network_it_says_which_files_to_put_where(offline, server):
    offline()
    with pytest.raises(WeightsError, match=r"hf download timm/resnet50.a1_in1k .*--local-dir"):
        zoo.load("resnet50", weights="timm/resnet50.a1_in1k")
