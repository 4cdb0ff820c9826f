"""Saving and restoring, on top of Orbax; the one file that knows Orbax.

What this file adds to Orbax, and promises:

1. A checkpoint is one atomic commit of the state's arrays, of a record (config, classes,
   data position, …) and of a digest of every array. Orbax alone restores a flipped bit
   without a word; here it is found.
2. The newest `keep` and the best are always kept, whatever the metric does.
3. A damaged checkpoint is moved aside, never deleted, and the next older one is used. If
   there are checkpoints and none is whole, that is an error, not a fresh start.
4. A checkpoint of other shapes or types than the run's is refused, never cast.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from flax import serialization, traverse_util
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from zoo.errors import CheckpointError, ConfigError, TemporaryError
from zoo.training.report import warn

policies = ocp.checkpoint_managers
Record = dict[str, Any]


class Damaged(Exception):
    """A checkpoint is not what was saved; the message says how it shows."""


@dataclasses.dataclass
class KeepBest:
    """Orbax policy: preserve the one step that `best_step` names."""

    best_step: Callable[[], int | None]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        return [checkpoint.step == self.best_step() for checkpoint in checkpoints]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: where they are; made if need be.
      keep: how many of the newest to keep.
      best_step: tells the step to keep beside them, None for none.
      read_only: whether the run may be going on elsewhere.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        best_step: Callable[[], int | None],
        read_only: bool = False,
    ):
        self._directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            save_decision_policy=policies.AnySavePolicy([]),  # the loop decides: force=True
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(keep), KeepBest(best_step)]
            ),
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=True,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    @classmethod
    def to_read(cls, directory: Path) -> "Checkpoints":
        """Returns the checkpoints of a run that may be going on, without touching them."""
        return cls(directory, keep=0, best_step=lambda: None, read_only=True)

    def steps(self) -> list[int]:
        """Returns the steps there are, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, record: Record) -> None:
        """Starts saving; returns as soon as the state may be changed.

        Args:
          step: its number. A step that is already there is left as it is.
          state: a tree of arrays.
          record: JSON values to go with it.

        Raises:
          TemporaryError: if this or an earlier save failed; what was there before is whole.
        """
        if step in self._manager.all_steps():
            return
        arrays = _flatten(state)
        digests = {name: digest.tolist() for name, digest in _fetch_digests(arrays).items()}
        layout = {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()}
        body = {"record": record, "digests": digests, "layout": layout}
        sealed = {**body, "seal": _seal(body)}
        try:
            self._manager.check_for_errors()
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_nest(arrays)),
                    record=ocp.args.JsonSave(sealed),
                ),
                force=True,
            )
        except OSError as error:
            raise _save_failed(step, error) from error

    def wait(self) -> None:
        """Returns when every save is on disk.

        Raises:
          TemporaryError: if one failed.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError, RuntimeError) as error:
            raise _save_failed(None, error) from error

    def close(self) -> None:
        """Waits and lets go of the directory."""
        self.wait()
        self._manager.close()

    def restore_newest(self, like: Any) -> tuple[Any, Record] | None:
        """Returns the newest whole checkpoint's state and record, None if there is none.

        Args:
          like: the state as `jax.ShapeDtypeStruct`s with the shardings wanted, which need
            not be those it was saved with.

        Raises:
          CheckpointError: if there are checkpoints but none is whole.
          ConfigError: if the newest whole one is of another model or optimiser.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, like)
            except Damaged as damage:
                aside = self._set_aside(step)
                warn(f"checkpoint {step} is damaged ({damage}); moved to {aside}")
        if steps:
            raise CheckpointError(
                f"{self._directory}: none of the checkpoints {steps} is whole; they are in "
                f"{self._aside}. Bring back a copy, or start afresh in another --workdir"
            )
        return None

    def restore(self, step: int, like: Any) -> tuple[Any, Record]:
        """Returns one checkpoint's state and record, verified.

        Raises:
          Damaged: if it is not what was saved.
          ConfigError: if it is whole but of another model or optimiser.
        """
        sealed = self._agree(lambda: self._read_record(step))
        wanted = _flatten(like)
        layout = {name: [str(a.dtype), list(a.shape)] for name, a in wanted.items()}
        if layout != sealed["layout"]:
            raise ConfigError(_difference(step, sealed["layout"], layout))
        return _unflatten(like, self._read_arrays(step, wanted, sealed)), sealed["record"]

    def restore_variables(self, step: int) -> tuple[Any, Record]:
        """Returns one checkpoint's raw `params` and `batch_stats`, verified, and its record.

        Whatever optimiser it was made with, whose arrays are read and dropped.

        Raises:
          Damaged: if it is not what was saved.
        """
        sealed = self._agree(lambda: self._read_record(step))
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = {
            name: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype), sharding=here)
            for name, (dtype, shape) in sealed["layout"].items()
        }
        arrays = self._read_arrays(step, wanted, sealed)
        tree = _nest(arrays)
        kept = {name: tree[name] for name in ("params", "batch_stats") if tree.get(name)}
        return kept, sealed["record"]

    def _read_arrays(self, step: int, wanted: Any, sealed: Any) -> dict[str, jax.Array]:
        """Returns arrays by path, verified by their digests."""

        def read() -> dict[str, jax.Array]:
            target = ocp.args.StandardRestore(_nest(wanted))
            restored: Any = self._manager.restore(step, args=ocp.args.Composite(state=target))
            flat: Any = traverse_util.flatten_dict(restored.state, sep="/")
            return flat

        arrays = self._agree(read)
        found = {name: digest.tolist() for name, digest in _fetch_digests(arrays).items()}
        wrong = [name for name in wanted if found[name] != sealed["digests"][name]]
        if wrong:
            raise Damaged(f"{wrong[0]} differs from its digest")
        return arrays

    def _read_record(self, step: int) -> dict[str, Any]:
        item = ocp.args.JsonRestore()
        restored: Any = self._manager.restore(step, args=ocp.args.Composite(record=item))
        sealed = dict(restored.record)
        if sealed.pop("seal", None) != _seal(sealed):
            raise Damaged("the record differs from its seal")
        return sealed

    def _agree(self, read: Callable[[], Any]) -> Any:
        """Calls `read` on all processes; if it fails on one, the checkpoint is damaged on all."""
        try:
            result, problem = read(), None
        except (PermissionError, MemoryError) as error:
            raise CheckpointError(f"{self._directory}: cannot be read ({error})") from error
        except Exception as error:  # Orbax and tensorstore raise nearly everything here
            result, problem = None, error
        if jax.process_count() > 1:
            failed = multihost_utils.process_allgather(np.asarray(problem is not None))
            if failed.any() and problem is None:
                problem = Damaged("another process cannot read it")
        if problem is not None:
            first_line = str(problem).strip().split("\n")[0][:200]
            raise Damaged(first_line or type(problem).__name__) from problem
        return result

    @property
    def _aside(self) -> Path:
        return self._directory.with_name("damaged")

    def _set_aside(self, step: int) -> Path:
        """Moves a checkpoint out of the way and returns where to."""
        self._aside.mkdir(exist_ok=True)
        number = 0
        while (target := self._aside / f"{step}.{number}").exists():
            number += 1
        if jax.process_index() == 0:
            (self._directory / str(step)).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()
        return target


def _save_failed(step: int | None, error: Exception) -> TemporaryError:
    what = "a checkpoint" if step is None else f"checkpoint {step}"
    return TemporaryError(
        f"{what} could not be saved ({error}); the earlier ones are whole. Make room, then "
        "run the same command again"
    )


def _flatten(state: Any) -> dict[str, Any]:
    """Returns the arrays of a state by path; what is empty has no place in a checkpoint."""
    tree = serialization.to_state_dict(state)
    return traverse_util.flatten_dict(tree, sep="/")


def _nest(arrays: dict[str, Any]) -> Any:
    return traverse_util.unflatten_dict(arrays, sep="/")


def _unflatten(like: Any, arrays: dict[str, Any]) -> Any:
    tree = traverse_util.flatten_dict(serialization.to_state_dict(like), keep_empty_nodes=True)
    filled = {
        path: arrays.get("/".join(path), leaf if leaf is traverse_util.empty_node else None)
        for path, leaf in tree.items()
    }
    return serialization.from_state_dict(like, traverse_util.unflatten_dict(filled))


def _seal(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _difference(step: int, saved: dict[str, Any], wanted: dict[str, Any]) -> str:
    def show(layout: dict[str, Any], name: str) -> str:
        if name not in layout:
            return "nothing"
        dtype, shape = layout[name]
        return f"{dtype} {shape}"

    names = sorted(name for name in {*saved, *wanted} if saved.get(name) != wanted.get(name))
    lines = [f"{n}: saved {show(saved, n)}, wanted {show(wanted, n)}" for n in names[:3]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    if all(name.partition("/")[0] in ("skips", "ema", "swa") for name in names):
        return (
            f"checkpoint {step} is of an older version of zoo, or of a run with other averages "
            f"({'; '.join(lines)}{more}); use the version and the config.average it was made "
            "with, or another --workdir"
        )
    return (
        f"checkpoint {step} is of another model or optimiser ({'; '.join(lines)}{more}); use "
        "the config it was made with, or another --workdir"
    )


def _fetch_digests(arrays: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    # Each by itself: what is compiled once for a shape serves all arrays of that shape.
    return jax.device_get({name: digest(array) for name, array in arrays.items()})


@jax.jit
def digest(array: jax.Array) -> jax.Array:
    """Returns a digest, uint32 [2], of an array's bits: the same on any sharding.

    Two sums modulo 2**32 of the words, each times an odd number that depends on the
    word's place. Odd numbers have inverses there, so a change of any one word always
    shows; a change of several goes unseen with a chance of about 2**-64. It finds
    accidents, not attackers.
    """
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * min(4, array.dtype.itemsize)}"))
    words = bits.astype(jnp.uint32).reshape(-1)
    place = jax.lax.iota(jnp.uint32, words.size)
    mixed = (place ^ (place >> 15)) * jnp.uint32(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> 12)) * jnp.uint32(0x297A2D39)
    weights = jnp.stack([2 * place + 1, (mixed ^ (mixed >> 15)) | 1])
    return jnp.sum(weights * words, axis=1, dtype=jnp.uint32)
