import pytest

from benchmarks.topologies import HOP, SLICES, parse_slice
from zoo.errors import ConfigError


def test_names_are_understood():
    assert parse_slice("v5e:4x4").chips == 16
    assert parse_slice("V4:2x2x1").shape == (2, 2, 1)
    for name in ("7x:2x2x1", "tpu7x:2x2x1", "v7x:2x2x1"):
        where = parse_slice(name)
        assert (where.name, where.libtpu_name, where.devices) == ("7x:2x2x1", "tpu7x:2x2x1", 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "there are v5e:2x2, "),
        ("v5e:3x3", "there are v5e:2x2, v5e:2x4, .*v5e:16x16$"),
        ("v9:2x2", "there are v2, v3, v4, v5e, v5p, v6e, 7x"),
        ("", "GENERATION:SHAPE"),
    ],
)
def test_unknown_ones_are_refused_with_those_there_are(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_slice(name)


def test_every_slice_can_be_had_and_grows():
    for generation, shapes in SLICES.items():
        slices = [parse_slice(f"{generation}:{shape}") for shape in shapes.split()]
        assert all(len(s.shape) == s.accelerator.axes for s in slices)
        chips = [s.chips for s in slices]
        assert chips == sorted(set(chips))


def test_a_whole_pod_all_reduces_at_its_published_bandwidth():
    # docs.cloud.google.com/tpu/docs/v5e: 51.2 TB/s for 256 chips; v6e: 102.4.
    for name, published in (("v5e:16x16", 51.2e12), ("v6e:16x16", 102.4e12)):
        where = parse_slice(name)
        assert where.all_reduce_bandwidth * where.chips == pytest.approx(published)
    # Two rings of 16 have twice the links of two lines of 4.
    small, whole = parse_slice("v5e:4x4"), parse_slice("v5e:16x16")
    assert whole.all_reduce_bandwidth == 2 * small.all_reduce_bandwidth


def test_all_reduces_take_their_bytes_and_their_hops():
    where = parse_slice("v5e:16x16")
    # ResNet-50's gradients in float32, 1.02 ms, and 16 hops there and back.
    seconds = where.all_reduce_seconds(4 * 25.56e6, 1)
    assert seconds == pytest.approx(2 * 4 * 25.56e6 / 200e9 + 2 * HOP * 16)
    assert where.all_reduce_seconds(0, 99) == pytest.approx(99 * 32 * HOP)


def test_the_environment_names_the_accelerator(monkeypatch):
    names = {
        "v5e:4x4": "v5litepod-16",
        "v4:2x2x1": "v4-8",
        "v5p:4x4x4": "v5p-128",
        "v3:4x4": "v3-32",
        "v6e:2x2": "v6e-4",
        "7x:2x2x1": "tpu7x-8",
    }
    for name, wanted in names.items():
        for key in ("TPU_ACCELERATOR_TYPE", "JAX_PLATFORMS", "TPU_WORKER_HOSTNAMES"):
            monkeypatch.setenv(key, "x")
        for key in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD", "TF_CPP_MIN_LOG_LEVEL"):
            monkeypatch.setenv(key, "1")
        parse_slice(name).prepare()
        import os

        assert os.environ["TPU_ACCELERATOR_TYPE"] == wanted
        assert os.environ["JAX_PLATFORMS"] == "cpu"
