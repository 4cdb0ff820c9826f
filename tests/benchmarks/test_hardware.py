import pytest

from benchmarks.hardware import ACCELERATORS, find_accelerator, named_accelerator
from zoo.errors import ConfigError


def test_every_kind_of_device_is_of_one_chip_only():
    kinds = [kind.lower() for a in ACCELERATORS.values() for kind in a.kinds]
    assert len(kinds) == len(set(kinds))
    assert all(find_accelerator(k) is a for a in ACCELERATORS.values() for k in a.kinds)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "7x"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H200", "H200"),
        ("Tesla T4", "T4"),
    ],
)
def test_jax_names_find_their_chip(kind: str, name: str):
    found = find_accelerator(kind)
    assert found is not None and found.name == name


def test_an_unknown_device_is_none_and_an_unknown_name_an_error():
    assert find_accelerator("cpu") is None
    assert find_accelerator("") is None
    with pytest.raises(ConfigError, match=r"'v5'.*v5e, v5p.*Add a row"):
        named_accelerator("v5")
    assert named_accelerator("V5E").name == "v5e"


@pytest.mark.parametrize(("name", "pod", "all_reduce"), [("v5e", 256, 51.2), ("v6e", 256, 102.4)])
def test_the_network_is_a_pods_all_reduce_bandwidth_by_its_chips(name, pod, all_reduce):
    # https://docs.cloud.google.com/tpu/docs/v5e and v6e: per pod, in TB/s.
    assert ACCELERATORS[name].network * pod == pytest.approx(all_reduce * 1e12)


def test_every_row_is_of_the_right_order():
    # A misplaced unit or a sparse peak does not stay in these ranges.
    for a in ACCELERATORS.values():
        assert 4e13 < a.half < 2.5e15 and a.half == a.peak("bfloat16"), a.name
        assert 8e12 < a.peak("float32") <= a.half, a.name
        assert 16 * 2**30 <= a.memory <= 192 * 2**30, a.name
        assert 3e11 <= a.bandwidth <= 8e12 and 1.6e10 <= a.network <= 9e11, a.name
        # FLOP per byte of a balanced program; 66 (v2) to 560 (v6e), 440 of L4 and T4's 203.
        assert 60 < a.half / a.bandwidth < 600, a.name
        assert a.source and (a.axes in (2, 3)) == a.kinds[0].startswith("TPU"), a.name


def test_there_is_no_peak_of_other_types():
    with pytest.raises(ConfigError, match=r"'int8'.*bfloat16"):
        ACCELERATORS["v5e"].peak("int8")
