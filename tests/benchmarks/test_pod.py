import jax
import jax.numpy as jnp
import pytest

from benchmarks.hardware import ACCELERATORS
from benchmarks.pod import project, rows_of
from benchmarks.pod_compile import Program, memory_of_error
from benchmarks.pod_peers import plain_flax
from benchmarks.topologies import parse_slice

FACTS = {
    "memory_total": 2**32,
    "bytes_accessed": 48.96e9,
    "hbm_bytes": 28e9,
    "flops": 3e12,
    "collectives": {"all-reduce": (99, 51_400_000)},
    "cycles": None,
}


def test_roofs_are_peak_and_bandwidth_by_what_an_image_takes():
    where, program = parse_slice("v5e:4x4"), Program("jit", 128)
    found = project(FACTS, program, where, 24.5e9)
    v5e = ACCELERATORS["v5e"]
    assert found["bytes_accessed_per_image"] == pytest.approx(382.5e6)
    assert found["roof_of_bytes_accessed"] == pytest.approx(v5e.bandwidth / 382.5e6)
    assert found["roof_of_flops"] == pytest.approx(v5e.half / 24.5e9)
    assert found["expected_images_per_second_per_chip"] == found["roof_of_bytes_accessed"]
    assert project(FACTS, program, where, 1e12)[
        "expected_images_per_second_per_chip"
    ] == pytest.approx(v5e.half / 1e12)


def test_chips_of_two_devices_count_both():
    one = project(FACTS, Program("jit", 128), parse_slice("v5e:4x4"), 1e9)
    two = project(FACTS, Program("jit", 128), parse_slice("v3:4x4"), 1e9)
    for key in ("memory_bytes_per_chip", "bytes_accessed_per_image", "compiler_flops_per_image"):
        assert two[key] == 2 * one[key]


def test_scaling_lies_between_hidden_and_open_communication():
    rate = project(FACTS, Program("jit", 128), parse_slice("v5e:4x4"), 24.5e9)
    chips = [s["chips"] for s in rate["scaling"]]
    assert chips == [4, 8, 16, 32, 64, 128, 256]
    for s in rate["scaling"]:
        full = s["chips"] * rate["expected_images_per_second_per_chip"]
        assert s["images_per_second_in_the_open"] < s["images_per_second_hidden"]
        assert s["images_per_second_hidden"] == pytest.approx(full)
        assert 0.8 < s["efficiency_in_the_open"] < 1


def test_what_does_not_fit_is_said():
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 29.64G of 15.75G hbm. "
        "Exceeded hbm capacity by 13.89G."
    )
    sizes = memory_of_error(message)
    assert sizes == {"need": 29.64 * 2**30, "have": 15.75 * 2**30}
    column = rows_of({"does_not_fit": sizes})
    assert column == {"memory": "does not fit: needs 29.64 GiB, has 15.75 GiB"}
    assert memory_of_error("other") == {"need": None, "have": None}
    assert rows_of({"does_not_fit": memory_of_error("")})["memory"].startswith("does not fit")


def test_the_plain_network_is_resnet50_and_its_step_keeps_its_state():
    peer = plain_flax()
    # torchvision's count of ResNet-50, and one running mean and variance for each scale and bias.
    assert peer.parameters == 25_557_032
    assert sum(s.size for s in jax.tree.leaves(peer.state_like["variables"])) == 25_610_152
    batch = {
        "image": jax.ShapeDtypeStruct((4, 224, 224, 3), jnp.bfloat16),
        "label": jax.ShapeDtypeStruct((4,), jnp.int32),
    }
    state, loss = jax.eval_shape(peer.step, peer.state_like, batch)
    assert loss.shape == ()
    kinds, wanted = (
        jax.tree.map(lambda s: (s.shape, s.dtype), like) for like in (state, peer.state_like)
    )
    assert kinds == wanted
