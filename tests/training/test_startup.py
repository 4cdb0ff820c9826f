"""How programs start JAX: which flags of XLA are set, and by whom."""

import subprocess
import sys

import jax
import pytest

from tests.conftest import ROOT
from tests.programs import environment
from zoo.ops.onednn import OneDNNError
from zoo.training import startup
from zoo.training.startup import FLAGS, find_platforms, start, with_flags

NOW = (0, 10)
CPU, GPU = (next(f.text for f in FLAGS if f.platform == p) for p in ("cpu", "gpu"))


@pytest.mark.parametrize(
    ("configured", "plugins", "platforms"),
    [
        (None, [], {"cpu"}),
        (None, ["xla_cuda12"], {"cpu", "gpu"}),
        (None, ["rocm7"], {"cpu", "gpu"}),
        (None, ["metal"], set()),
        (None, ["xla_cuda12", "metal"], set()),
        ("cpu", ["xla_cuda12"], {"cpu"}),
        ("cuda,cpu", [], {"gpu"}),
        ("tpu,cpu", ["xla_cuda12"], {"tpu"}),
        ("metal", [], set()),
    ],
)
def test_the_platform_is_known_without_starting_jax(configured, plugins, platforms):
    assert find_platforms(configured, plugins) == platforms


def test_flags_go_to_their_platform_and_behind_those_given():
    assert with_flags("", {"cpu"}, NOW) == CPU
    assert with_flags("--xla_a=1  --xla_b", {"gpu", "cpu"}, NOW) == f"--xla_a=1 --xla_b {CPU} {GPU}"
    for platforms in ({"tpu"}, set()):
        assert with_flags(" --xla_a=1", platforms, NOW) == " --xla_a=1"


def test_what_the_user_gives_is_what_holds():
    given = f"{CPU.split('=')[0]}=-reduce"
    assert with_flags(given, {"cpu"}, NOW) == given
    assert with_flags("flags.txt", {"cpu"}, NOW) == "flags.txt"  # a file, which XLA reads


def test_a_jaxlib_that_nobody_tried_gets_none():
    for release in ((0, 9), (0, 99), (1, 0)):
        assert with_flags("", {"cpu", "gpu"}, release) == ""


def test_all_are_known_to_this_jaxlib_and_import_sets_none():
    """XLA ends the process for a flag it does not know, on whatever platform."""
    flags = " ".join(flag.text for flag in FLAGS)
    code = (
        "import os, zoo; assert 'XLA_FLAGS' not in os.environ\n"
        f"os.environ['XLA_FLAGS'] = {flags!r}\n"
        "import jax; print(jax.jit(lambda x: x + 1)(1))"
    )
    variables = environment()
    del variables["XLA_FLAGS"]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_start_sets_them_for_what_will_be_used(monkeypatch):
    monkeypatch.setattr(startup, "keep_programs", lambda folder: "")
    monkeypatch.setattr(startup.metadata, "version", lambda name: "0.10.2.dev1")
    monkeypatch.setattr(startup, "_plugins", lambda: {"xla_cuda12"})
    monkeypatch.setenv("XLA_FLAGS", "")
    done = []
    monkeypatch.setattr(startup, "keep_memory", lambda: done.append("memory"))
    monkeypatch.setattr(startup, "use_onednn", lambda: done.append("oneDNN"))
    monkeypatch.setattr(startup.convolutions, "installed", lambda: True)
    assert jax.devices()
    start(None, on_cpu=True)
    assert startup.os.environ["XLA_FLAGS"] == "" and not done  # it is too late
    monkeypatch.setattr(startup.xla_bridge, "backends_are_initialized", lambda: False)
    start(None, on_cpu=True)
    assert startup.os.environ["XLA_FLAGS"] == CPU and done == ["memory", "oneDNN"]
    start(None, on_cpu=True, onednn=False)
    assert done == ["memory", "oneDNN", "memory"]
    done.clear()
    monkeypatch.setenv("XLA_FLAGS", "")
    platforms = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", "cuda")
        start(None)
    finally:
        jax.config.update("jax_platforms", platforms)
    assert startup.os.environ["XLA_FLAGS"] == GPU and not done
    assert startup.describe_compiler()["xla_flags"] == GPU


def test_without_onednn_a_run_says_so_and_goes_on(monkeypatch, capsys):
    def fail():
        raise OneDNNError("no libimf.so here")

    monkeypatch.setattr(startup.convolutions, "enable", fail)
    startup.use_onednn()
    assert "no libimf.so here; XLA computes all convolutions" in capsys.readouterr().err
    assert startup.describe_compiler()["convolutions_on_cpu"] == "XLA"
