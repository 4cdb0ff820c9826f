"""How a step is spread over devices: as one program, or as one for each device.

In mode "jit" the step is written for the whole batch, and XLA divides it among the
devices: means, BatchNorm's statistics among them, are those of all. Parameters and
optimiser state may lie spread over a group of devices (fsdp).

In mode "pmap" each device works on its rows alone, as under `jax.pmap`: BatchNorm
normalises by the device's own rows, unless a group of devices or all of them share their
statistics, and only sums meet: gradients, metrics and BatchNorm's averages. It goes
through `jax.shard_map`; "jax.pmap" is the same body under `jax.pmap` itself.

Augmentation and the optimiser's update are outside of what is mapped, and dropout draws
for the whole batch, so the modes differ in nothing but BatchNorm.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import re
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zoo.errors import ConfigError
from zoo.training.mesh import Device, make_mesh, replicated

MODES = ("jit", "pmap", "jax.pmap")
SMALLEST_SPREAD = 2**12  # numbers; what has fewer is kept whole on every device

# (params, batch_stats, examples, key) -> (gradient, batch_stats, metrics)
Gradient = Callable[..., tuple[Any, Any, Any]]


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a step is spread over devices.

    Attributes:
      mode: of `MODES`.
      mesh: the devices, with the axes "data" and "group". The devices of a group hold one
        state between them (fsdp), or normalise together (pmap).
      norm_devices: how many devices' rows BatchNorm normalises together.
    """

    mode: str
    mesh: Mesh
    norm_devices: int

    @property
    def across(self) -> tuple[str, ...]:
        """The axes over which a mapped body has to add; none where it sees the whole batch."""
        return () if self.mode == "jit" else ("data",) if self._is_pmap else self._axes

    @property
    def _axes(self) -> tuple[str, ...]:
        return tuple(self.mesh.axis_names)

    @property
    def _state_devices(self) -> int:
        """How many devices hold one state between them."""
        return 1 if self.across else self.mesh.shape["group"]

    @property
    def _is_pmap(self) -> bool:
        return self.mode == "jax.pmap"

    def spread(self, like: Any) -> Any:
        """Returns a sharding for each array of a state; the larger ones lie over a group.

        Args:
          like: a tree of arrays or of their shapes.
        """
        size = self._state_devices

        def sharding(array: Any) -> NamedSharding:
            fit = [i for i, n in enumerate(array.shape) if n % size == 0]
            if size == 1 or array.size < SMALLEST_SPREAD or not fit:
                return replicated(self.mesh)
            longest = max(fit, key=lambda i: array.shape[i])
            spec = [None] * longest + ["group"]
            return NamedSharding(self.mesh, PartitionSpec(*spec))

        return jax.tree.map(sharding, like)

    def gather(self, tree: Any) -> Any:
        """Returns a tree whole on every device, within a jitted function or outside."""
        if self._state_devices == 1:
            return tree
        return _place(tree, replicated(self.mesh))

    def scatter(self, tree: Any) -> Any:
        """Returns a tree of the state's shapes spread as the state is; for jitted functions."""
        if self._state_devices == 1:
            return tree
        return lax.with_sharding_constraint(tree, self.spread(tree))

    def map(self, gradient: Gradient) -> Gradient:
        """Returns the gradient as this mode computes it, to be called within `jit`.

        Args:
          gradient: of a batch, which adds over `across`.
        """
        if not self.across:

            def of_whole_batch(params: Any, *rest: Any) -> tuple[Any, Any, Any]:
                total, *others = gradient(self.gather(params), *rest)
                return self.scatter(total), *others

            return of_whole_batch

        def body(*args: Any) -> tuple[Any, Any, Any]:
            with self._each_device():
                return gradient(*args)

        if self._is_pmap:
            devices = list(self.mesh.devices.flat)
            mapped = jax.pmap(
                body, "data", in_axes=(None, None, 0, None), out_axes=None, devices=devices
            )

            def split(x: jax.Array) -> jax.Array:
                return x.reshape(len(devices), -1, *x.shape[1:])

            return lambda params, batch_stats, examples, key: mapped(
                params, batch_stats, jax.tree.map(split, examples), key
            )
        whole, rows = PartitionSpec(), PartitionSpec(self._axes)
        return jax.shard_map(
            body,
            mesh=self.mesh,
            in_specs=(whole, whole, rows, whole),
            out_specs=whole,
            check_vma=False,  # sums are written out, as under pmap
        )

    @contextlib.contextmanager
    def _each_device(self) -> Iterator[None]:
        """Within the block, layers know that their rows are a part of the batch."""
        norm_axis = None
        if self.norm_devices > 1:
            norm_axis = "data" if self._is_pmap else "group"

        def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            if context.method_name != "__call__":
                return call(*args, **kwargs)
            if isinstance(module, nn.BatchNorm):
                # Modules are made anew in each trace: nobody else sees this one.
                object.__setattr__(module, "axis_name", norm_axis)
            elif isinstance(module, nn.Dropout) and not module.deterministic and module.rate < 1:
                return _drop_rows(call, module.rate, *args, across=self.across)
            return call(*args, **kwargs)

        with nn.intercept_methods(intercept):
            yield


@functools.partial(jax.jit, static_argnums=1)
def _place(tree: Any, sharding: NamedSharding) -> Any:
    return lax.with_sharding_constraint(tree, sharding)


def _drop_rows(
    call: Callable[[jax.Array], jax.Array], rate: float, x: jax.Array, *, across: tuple[str, ...]
) -> jax.Array:
    """Returns x with dropout as these rows would have it in the whole batch.

    Args:
      call: the layer's own function.
      rate: of dropout.
      x: [rows of this device, …].
      across: the axes over which the batch lies.
    """
    rows = x.shape[0]
    draw = call(jnp.ones((rows * lax.axis_size(across), *x.shape[1:]), x.dtype))
    mine = lax.dynamic_slice_in_dim(draw, lax.axis_index(across) * rows, rows)
    return jnp.where(mine > 0, x / (1 - rate), jnp.zeros_like(x))


def make_parallel(
    mode: str,
    devices: Sequence[Device] | None = None,
    *,
    fsdp: int = 1,
    batch_norm: str | None = None,
) -> Parallel:
    """Returns how to spread a step, having checked that it can be done.

    Args:
      mode: of `MODES`.
      devices: all of all processes by default.
      fsdp: how many devices hold one state between them.
      batch_norm: over what BatchNorm's statistics are taken, "global", "device" or such as
        "4 devices"; None for what belongs to the mode.

    Raises:
      ConfigError: for values that do not go together.
    """
    count = len(devices or jax.devices())
    if mode == "jit":
        if batch_norm not in (None, "global"):
            raise ConfigError(
                f"config.parallel.batch_norm={batch_norm!r}: mode 'jit' normalises over the whole "
                "batch; --config.parallel.mode=pmap can do so over a part of the devices"
            )
        _check_divides("fsdp", fsdp, fsdp, count)
        return Parallel(mode, make_mesh(devices, group=fsdp), count)
    if fsdp != 1:
        raise ConfigError(
            f"config.parallel.fsdp={fsdp}: in mode {mode!r} every device holds the whole state; "
            "use --config.parallel.mode=jit"
        )
    together = _devices_together(batch_norm or "device", count)
    _check_divides("batch_norm", batch_norm, together, count)
    if mode == "jax.pmap":
        if jax.process_count() > 1 or together not in (1, count):
            raise ConfigError(
                "config.parallel.mode='jax.pmap' takes the devices of one process, and BatchNorm "
                "over one or all of them; 'pmap' does the same without these limits"
            )
        return Parallel(mode, make_mesh(devices), together)
    return Parallel(mode, make_mesh(devices, group=together), together)


def _devices_together(text: str, count: int) -> int:
    """Returns how many devices share BatchNorm's statistics."""
    if text in ("global", "device"):
        return count if text == "global" else 1
    match = re.fullmatch(r"(\d+) devices?", text)
    if not match or int(match[1]) < 1:
        raise ConfigError(
            f"config.parallel.batch_norm={text!r}: must be 'global', 'device' or a number of "
            "devices that share their statistics, such as '4 devices'"
        )
    return int(match[1])


def _check_divides(key: str, value: Any, number: int, count: int) -> None:
    if number < 1 or count % number:
        allowed = [n for n in range(1, count + 1) if count % n == 0]
        raise ConfigError(
            f"config.parallel.{key}={value!r}: {count} devices cannot be divided into groups of "
            f"{number}; {', '.join(map(str, allowed))} can"
        )
