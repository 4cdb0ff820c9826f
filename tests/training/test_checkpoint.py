"""Checkpoints: kept, found whole, found damaged, moved between topologies."""

import gc
from pathlib import Path
import random
import shutil

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.errors import CheckpointError, ConfigError
from zoo.tasks.task import Best
from zoo.training.checkpoint import Checkpoints, Damaged, digest
from zoo.training.mesh import make_mesh, replicated
from zoo.training.progress import Progress
from zoo.training.state import Skips, TrainState

# Reading a damaged checkpoint leaves futures of tensorstore behind that find Orbax's event
# loop closed; they complain when they are collected, which `tidy` makes happen here.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def tidy():
    yield
    gc.collect()


LARGEST = Best("val/top1", larger_is_better=True)


def make_state(step: int, devices=None) -> TrainState:
    sharding = replicated(make_mesh(devices))
    params = {
        "conv": {"kernel": jnp.arange(60.0).reshape(3, 4, 5) + step, "bias": jnp.ones(5) * step},
        "head": {"kernel": jnp.full((7, 3), 0.1, jnp.bfloat16)},
    }
    state = TrainState(
        step=jnp.array(step, jnp.int32),
        params=params,
        batch_stats={"bn": {"mean": jnp.arange(4.0)}},
        opt_state=optax.adam(0.1).init(params),
        skips=Skips.none(),
        ema={},
        swa={},
    )
    return jax.device_put(state, sharding)


def like(state: TrainState) -> TrainState:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def open_checkpoints(path: Path, keep: int = 2, best: int | None = None) -> Checkpoints:
    return Checkpoints(path / "checkpoints", keep=keep, best_step=lambda: best)


def save_steps(path: Path, steps=(1, 2, 3), keep: int = 5) -> None:
    checkpoints = open_checkpoints(path, keep)
    for step in steps:
        checkpoints.save(step, make_state(step), {"name": f"record {step}", "list": [1, 0.1]})
    checkpoints.close()


def assert_same(a: TrainState, b: TrainState) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert (np.asarray(x) == np.asarray(y)).all()


def restore(path: Path, devices=None):
    checkpoints = open_checkpoints(path, keep=5)
    try:
        return checkpoints.restore_newest(like(make_state(0, devices)))
    finally:
        checkpoints.close()


def test_what_is_saved_comes_back(tmp_path):
    save_steps(tmp_path)
    state, record = restore(tmp_path)
    assert_same(state, make_state(3))
    assert record == {"name": "record 3", "list": [1, 0.1]}


def test_nothing_saved_is_nothing_restored(tmp_path):
    assert restore(tmp_path) is None


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_any_number_of_devices_restores(tmp_path, devices, count):
    save_steps(tmp_path)
    state, _ = restore(tmp_path, devices[:count])
    assert_same(state, make_state(3, devices[:count]))
    assert state.params["conv"]["kernel"].sharding.device_set == set(devices[:count])


def test_the_newest_and_the_best_are_kept(tmp_path):
    progress = Progress(LARGEST)
    checkpoints = Checkpoints(tmp_path / "c", keep=2, best_step=lambda: progress.best_step)
    metrics = {1: 0.5, 2: 0.9, 3: 0.2, 4: float("nan"), 5: 0.9, 6: 0.1, 7: 0.3, 8: float("inf")}
    expected_best = {step: min(step, 2) for step in metrics}
    for step, value in metrics.items():
        checkpoints.save(step, make_state(step), {})
        checkpoints.wait()
        progress.validated(step, value)
        assert progress.best_step == expected_best[step]
        wanted = {max(1, step - 1), step, expected_best[max(1, step - 1)]}
        assert set(checkpoints.steps()) == wanted
    checkpoints.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30))
def test_best_is_the_first_of_the_largest_finite(values):
    progress = Progress(LARGEST)
    for step, value in enumerate(values):
        progress.validated(step, value)
    finite = [(v, -i) for i, v in enumerate(values) if np.isfinite(v)]
    assert progress.best_step == (-max(finite)[1] if finite else None)
    again = Progress(LARGEST, record=progress.record())
    assert (again.best_step, again.best_value) == (progress.best_step, progress.best_value)


def test_a_step_that_is_there_is_left_alone(tmp_path):
    save_steps(tmp_path)
    checkpoints = open_checkpoints(tmp_path, keep=5)
    checkpoints.save(2, make_state(99), {})
    state, _ = checkpoints.restore(2, like(make_state(0)))
    checkpoints.close()
    assert int(state.step) == 2


# -- damage -----------------------------------------------------------------------------------


def files_of(path: Path, step: int) -> list[Path]:
    return sorted(p for p in (path / "checkpoints" / str(step)).rglob("*") if p.is_file())


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    position = random.Random(str(file.name) + str(len(data))).randrange(len(data))
    data[position] ^= 1 << random.Random(len(data)).randrange(8)
    file.write_bytes(data)


DAMAGE = {
    "flipped bit": flip,
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "zeroed": lambda file: file.write_bytes(b"\0" * file.stat().st_size),
    "missing": lambda file: file.unlink(),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(k, marks=pytest.mark.slow) if k in ("half", "empty", "zeroed") else k
        for k in DAMAGE
    ],
)
def test_damage_to_any_file_is_found_or_harmless(tmp_path, kind, capsys):
    """Each file of the newest checkpoint in turn: never wrong weights, never step 0."""
    save_steps(tmp_path / "whole", (1, 2))
    found = []
    for number, file in enumerate(files_of(tmp_path / "whole", 2)):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "whole", copy)
        hurt = copy / file.relative_to(tmp_path / "whole")
        if hurt.stat().st_size == 0:
            continue
        DAMAGE[kind](hurt)
        state, record = restore(copy)
        assert_same(state, make_state(int(state.step)))
        assert record["name"] == f"record {int(state.step)}"
        if int(state.step) == 1:
            found.append(hurt.parent.name)
            assert (copy / "damaged" / "2.0").is_dir()  # moved aside, not deleted
            assert not (copy / "checkpoints" / "2").exists()
    assert "d" in found  # where the arrays are
    assert "checkpoint 2 is damaged" in capsys.readouterr().err


def test_a_flipped_bit_in_an_array_is_found_by_our_digest(tmp_path):
    """Orbax's own restore says nothing: this is the case that needs the digest."""
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.save(1, make_state(1), {})
    checkpoints.wait()
    wrong = make_state(1).replace(batch_stats={"bn": {"mean": jnp.array([0.0, 1, 2, 3.0000002])}})
    from zoo.training import checkpoint

    arrays = checkpoint._flatten(wrong)
    original = checkpoints._manager.restore

    def lying_restore(step, args):
        restored = original(step, args=args)
        if "state" in restored:
            restored = type(restored)(state=checkpoint._nest(arrays))
        return restored

    checkpoints._manager.restore = lying_restore
    with pytest.raises(Damaged, match="batch_stats/bn/mean differs from its digest"):
        checkpoints.restore(1, like(make_state(0)))
    checkpoints.close()


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
    save_steps(tmp_path)
    for step in (1, 2, 3):
        for file in files_of(tmp_path, step):
            file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of the checkpoints \[1, 2, 3\] is whole"):
        restore(tmp_path)
    assert sorted(p.name for p in (tmp_path / "damaged").iterdir()) == ["1.0", "2.0", "3.0"]


def test_junk_beside_the_checkpoints_is_not_the_newest(tmp_path):
    save_steps(tmp_path)
    root = tmp_path / "checkpoints"
    (root / "99").mkdir()
    (root / "100").write_text("a file")
    (root / "notes").mkdir()
    (root / "4.orbax-checkpoint-tmp-1").mkdir()
    state, _ = restore(tmp_path)
    assert int(state.step) == 3
    assert not (root / "4.orbax-checkpoint-tmp-1").exists()  # the leftover of a killed save


def test_what_cannot_be_read_is_not_called_damaged(tmp_path):
    save_steps(tmp_path)
    checkpoints = open_checkpoints(tmp_path, keep=5)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    checkpoints._manager.restore = forbidden
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.restore_newest(like(make_state(0)))
    checkpoints.close()
    assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p["head"].update(kernel=jnp.zeros((7, 4), jnp.bfloat16)),
            r"params/head/kernel: saved bfloat16 \[7, 3\], wanted bfloat16 \[7, 4\]",
        ),
        (
            lambda p: p["head"].update(kernel=jnp.zeros((7, 3), jnp.float32)),
            r"params/head/kernel: saved bfloat16 \[7, 3\], wanted float32 \[7, 3\]",
        ),
        (lambda p: p["conv"].pop("bias"), r"params/conv/bias: saved float32 \[5\], wanted nothing"),
        (lambda p: p.update(new=jnp.zeros(1)), r"params/new: saved nothing, wanted float32 \[1\]"),
    ],
)
def test_another_model_is_refused_never_cast(tmp_path, change, message):
    save_steps(tmp_path)
    state = make_state(0)
    params = {name: dict(layer) for name, layer in state.params.items()}
    change(params)
    state = jax.device_put(state.replace(params=params), replicated(make_mesh()))
    checkpoints = open_checkpoints(tmp_path, keep=5)
    with pytest.raises(ConfigError, match=message):
        checkpoints.restore_newest(like(state))
    assert checkpoints.steps() == [1, 2, 3]
    checkpoints.close()


# -- digests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.uint8, np.bool_])
def test_any_flipped_bit_changes_the_digest(dtype):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2, 64).astype(dtype)
    reference = digest(jnp.asarray(array)).tolist()
    raw = array.tobytes()
    bits = range(len(raw) * 8) if dtype != np.bool_ else range(0, len(raw) * 8, 8)
    compiled = jax.jit(digest)
    for bit in bits:
        data = bytearray(raw)
        data[bit // 8] ^= 1 << bit % 8
        changed = np.frombuffer(bytes(data), array.dtype)
        assert compiled(jnp.asarray(changed)).tolist() != reference


def test_swapped_values_and_moved_zeros_change_the_digest():
    seen = {
        tuple(digest(jnp.array(values, jnp.float32)).tolist())
        for values in ([1, 2, 0, 0], [2, 1, 0, 0], [0, 1, 2, 0], [1, 2, 0], [1, 0, 2, 0])
    }
    assert len(seen) == 4  # [1, 2, 0] and [1, 2, 0, 0] differ in shape, which is compared too


def test_the_digest_does_not_depend_on_the_sharding(devices):
    array = jnp.arange(64.0).reshape(8, 8)
    sharding = jax.sharding.NamedSharding(make_mesh(), jax.sharding.PartitionSpec("data"))
    assert jax.jit(digest)(jax.device_put(array, sharding)).tolist() == digest(array).tolist()
