"""Compiled programs that are kept: whole, bounded, and never the end of a run."""

from concurrent.futures import ThreadPoolExecutor
import errno
import json
import os
import time

import jax
import numpy as np
import pytest

from tests.programs import train
from zoo.training import compiled
from zoo.training.compiled import Store, count_compilations, keep_programs

LARGE = 2**30


def damage(path, how) -> None:
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    path.write_bytes(
        {"empty": b"", "half": data[: len(data) // 2], "bit": bytes(flipped), "noise": b"?" * 99}[
            how
        ]
    )


@pytest.mark.parametrize("how", ["empty", "half", "bit", "noise"])
def test_a_damaged_entry_is_removed_and_can_be_written_again(tmp_path, how):
    Store(tmp_path, LARGE).put("jit_f-12ab", b"program" * 100)
    store = Store(tmp_path, LARGE)
    assert store.get("jit_f-12ab") == b"program" * 100
    (path,) = tmp_path.iterdir()
    damage(path, how)
    assert store.get("jit_f-12ab") is None
    assert not list(tmp_path.iterdir())
    store.put("jit_f-12ab", b"again")
    assert store.get("jit_f-12ab") == b"again"


def test_what_is_there_but_of_no_use_is_replaced(tmp_path):
    store = Store(tmp_path, LARGE)
    store.put("jit_f-12ab", b"cannot be loaded")
    store.put("jit_f-12ab", b"can be")
    assert store.get("jit_f-12ab") == b"can be"
    assert store.get("jit_f-12ac") is None


def test_what_is_used_least_goes_first(tmp_path):
    store = Store(tmp_path, 1000)
    for i in range(3):
        store.put(f"jit_f-{i}", bytes(300 + i))
    for i, path in enumerate(sorted(tmp_path.iterdir())):
        os.utime(path, (i, i))
    assert store.get("jit_f-0") is not None  # now used last
    store.put("jit_f-3", bytes(303))
    assert [len(store.get(f"jit_f-{i}") or b"") for i in range(4)] == [300, 0, 0, 303]
    store.put("jit_f-4", bytes(1001))  # larger than all may be together
    assert store.get("jit_f-4") is None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000


def test_what_a_killed_process_left_half_written_goes_after_a_while(tmp_path):
    for name, age in (("a.tmp", 7200), ("b.tmp", 1)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    Store(tmp_path, LARGE)
    assert [path.name for path in tmp_path.iterdir()] == ["b.tmp"]


def test_a_full_disk_is_said_once(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path, LARGE)
    monkeypatch.setattr(compiled.os, "replace", full)
    for key in ("jit_f-1", "jit_f-2"):
        store.put(key, b"program")
        assert store.get(key) is None
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_many_at_once_read_whole_entries_or_none(tmp_path):
    programs = [bytes([i]) * 50_000 for i in range(4)]

    def work(seed: int) -> None:
        store = Store(tmp_path, 160_000)  # so that all of them also remove
        for i in np.random.default_rng(seed).integers(4, size=50):
            assert store.get(f"jit_f-{i}") in (None, programs[i])
            store.put(f"jit_f-{i}", programs[i])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 400_000


@pytest.fixture
def no_setting():
    """Puts JAX's settings, which the tests share, back."""
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    factory = compiled.compilation_cache.get_file_cache
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    compiled.compilation_cache.get_file_cache = factory
    for name, value in before.items():
        jax.config.update(name, value)


def test_whose_folder_it_is_counts(tmp_path, no_setting, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert keep_programs(None) == ""
    assert compiled.where_kept().startswith(f"{tmp_path}/caches/zoo/xla/")
    assert (tmp_path / "caches/zoo/xla").stat().st_mode & 0o022 == 0
    jax.config.update("jax_compilation_cache_dir", "/the/users")
    assert keep_programs(str(tmp_path / "x")) == ""
    assert compiled.where_kept() == "/the/users"
    assert keep_programs("") == ""
    assert compiled.where_kept() == "nowhere"


def test_a_folder_that_cannot_be_used_is_said_and_is_no_error(tmp_path, no_setting):
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, text in (("file", "File exists"), ("open", "others than you can write")):
        problem = keep_programs(str(tmp_path / name))
        assert text in problem
        assert "--config.compilation_cache" in problem
        assert compiled.where_kept() == "nowhere"


def test_a_new_folder_is_the_users_alone_whatever_the_umask_is(tmp_path, no_setting):
    before = os.umask(0o002)
    try:
        assert keep_programs(str(tmp_path / "cache" / "xla")) == ""
    finally:
        os.umask(before)


def test_programs_are_counted():
    noise = np.random.default_rng().integers(2**31)  # no cache has this one
    with count_compilations() as counts:
        jax.jit(lambda x: x * noise)(np.float32(1))
    assert (counts.needed, counts.read, counts.compiled) == (1, 0, 1)
    jax.jit(lambda x: x * (noise + 1))(np.float32(1))
    assert counts.needed == 1


@pytest.mark.slow
def test_the_second_start_compiles_nothing_and_damage_changes_nothing(tmp_path):
    """Three starts of one recipe, each in a new workdir; before the third all is damaged."""
    kept = tmp_path / "kept"
    recipe = ["--config=configs/mlp_digits.py:smoke", f"--config.compilation_cache={kept}"]
    results, counts = [], []
    for i in range(3):
        if i == 2:
            for number, path in enumerate(sorted(kept.rglob("*.program"))):
                damage(path, ("empty", "half", "bit", "noise")[number % 4])
        workdir = tmp_path / str(i)
        done = train(recipe, workdir, JAX_COMPILATION_CACHE_DIR="")
        assert done.returncode == 0, done.stderr
        assert f"programs_kept_in={kept}" in done.stdout
        results.append(json.loads((workdir / "results.json").read_text())["metrics"])
        line = next(line for line in done.stdout.splitlines() if line.startswith("start-up"))
        counts.append([int(word) for word in line.split() if word.isdigit()])
        assert "Error" not in done.stderr + done.stdout
    programs = counts[0][0]
    assert programs > 10
    assert counts == [[programs, 0], [0, programs], [programs, 0]]
    assert results == results[:1] * 3
