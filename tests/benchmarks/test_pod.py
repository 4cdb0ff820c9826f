import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.hardware import ACCELERATORS
from benchmarks.pod import project, rows_of
from benchmarks.pod_compile import Program, memory_of_error
from benchmarks.pod_peers import PlainResNet, plain_flax
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


def test_the_plain_network_is_resnet50():
    peer = plain_flax()
    # torchvision's count of ResNet-50, and one running mean and variance for each scale and bias.
    assert peer.parameters == 25_557_032
    assert sum(s.size for s in jax.tree.leaves(peer.state_like["variables"])) == 25_610_152


def test_the_plain_step_trains():
    class Small(PlainResNet):
        pass

    model = Small(stage_sizes=(1,), num_classes=3, dtype=jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    variables = jax.eval_shape(lambda k: model.init(k, x, train=False), jax.random.key(0))
    logits = jax.eval_shape(lambda v: model.apply(v, x, train=False), variables)
    assert logits.shape == (2, 3) and logits.dtype == jnp.float32
    shapes = jax.eval_shape(
        plain_flax().step,
        plain_flax().state_like,
        {
            "image": jax.ShapeDtypeStruct((4, 224, 224, 3), jnp.bfloat16),
            "label": jax.ShapeDtypeStruct((4,), jnp.int32),
        },
    )
    state, loss = shapes
    assert loss.shape == ()
    assert jax.tree.structure(state) == jax.tree.structure(plain_flax().state_like)
    wanted = jax.tree.map(lambda s: (s.shape, s.dtype), plain_flax().state_like)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), state) == wanted
