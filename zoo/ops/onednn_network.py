"""A traced network rewritten to be computed by oneDNN, as far as it can.

`rewrite` takes the program apart into equations, finds those that are steps of
`zoo.ops.onednn_inference`, joins what follows a convolution to it, and gives steps that follow each
other to oneDNN as one call. Between the calls XLA computes what is left.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import itertools
import math
from typing import Any

from flax import linen as nn
import jax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Literal
import jax.numpy as jnp
import numpy as np

from zoo.ops import convolution, onednn_inference, winograd
from zoo.ops.onednn_inference import ACTIVATIONS, Step
from zoo.ops.plain import Window, make_window

# Of one kind of machine: bytes that the processor keeps at hand, bytes per second from and to
# memory, and seconds that a step takes however little there is to do.
_CACHE, _BANDWIDTH, _STEP = 4 * 2**20, 20e9, 5e-6


def rewrite(program: ClosedJaxpr, constants: Sequence[jax.Array]) -> ClosedJaxpr:
    """Returns a program of which oneDNN computes what it can.

    What depends on constants alone is computed here, and becomes a constant of the result.

    Args:
      program: with constants and images [B, ...] as its arguments.
      constants: all its arguments but the last.

    Returns:
      a program of the images.
    """
    *_, images = program.in_avals

    def flat(images: jax.Array) -> list[Any]:
        return _inline(program.jaxpr, program.consts, [*constants, images])

    network = _Reader(jax.make_jaxpr(flat)(images))
    return jax.make_jaxpr(functools.partial(_compute, network))(images)


def _inline(program: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Runs a traced program; of functions within it, only known activations stay calls."""
    values = dict(zip([*program.constvars, *program.invars], [*constants, *arguments], strict=True))
    for equation in program.eqns:
        given = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        values.update(zip(equation.outvars, _evaluate(equation, given), strict=True))
    return [v.val if isinstance(v, Literal) else values[v] for v in program.outvars]


def _evaluate(equation: Any, given: list[Any]) -> list[Any]:
    inner = _inner(equation)
    if inner is not None and _activation(equation) is None:
        return _inline(inner.jaxpr, inner.consts, given)
    return _bind(equation, given)


def _bind(equation: Any, given: list[Any]) -> list[Any]:
    parameters = equation.primitive.get_bind_params(equation.params)
    constant = not any(isinstance(value, Tracer) for value in given)
    with jax.ensure_compile_time_eval() if constant else contextlib.nullcontext():
        results = equation.primitive.bind(*given, **parameters)
    return results if equation.primitive.multiple_results else [results]


def _inner(equation: Any) -> Any:
    """Returns the program that a call of a function runs."""
    name = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
    return equation.params.get(name.get(equation.primitive.name, ""))


def _activation(equation: Any) -> Any:
    """Returns the activation that an equation computes, if it is one of those that are known."""
    if equation.primitive.name == "logistic":
        return nn.sigmoid
    inner, aval = _inner(equation), equation.invars[0].aval
    return None if inner is None else _texts(aval.shape, aval.dtype).get(str(inner))


@functools.lru_cache(maxsize=256)
def _texts(shape: tuple[int, ...], dtype: Any) -> dict[str, Any]:
    """Returns the activations that are known, by what they look like when traced."""
    x = jax.ShapeDtypeStruct(shape, dtype)
    traced = {f: jax.make_jaxpr(f)(x).jaxpr.eqns for f in ACTIVATIONS}
    return {str(_inner(equations[0])): f for f, equations in traced.items() if _inner(equations[0])}


@dataclasses.dataclass(eq=False)
class _Operation:
    """What oneDNN does for one equation, or for several that follow each other.

    Attributes:
      kind: as of `onednn_inference.Step`.
      maps: the variables that it reads.
      out: the variable that it gives.
      window: of a convolution or of pooling.
      kernel: of a convolution, a constant.
      bias: of a convolution, [O].
      activation: of a convolution, or alone.
    """

    kind: str
    maps: list[Any]
    out: Any
    window: Window | None = None
    kernel: Any = None
    bias: Any = None
    activation: Any = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W and C of its result."""
        return _sizes(self.out)

    @property
    def by_winograd(self) -> bool:
        """Whether fewer multiplications are the faster way."""
        if self.kind != "convolution" or self.window is None:
            return False
        batch, *_, inside = self.maps[0].aval.shape
        return winograd.pays(self.window, batch, inside, self.shape[2], prepared=True)

    def step(self, positions: dict[Any, int]) -> Step:
        """Returns the step that it is, with its maps at certain positions."""
        sources = tuple(positions[v] for v in self.maps)
        activation = "" if self.activation is None else ACTIVATIONS[self.activation]
        return Step(self.kind, sources, self.shape, self.window, activation)


def _sizes(v: Any) -> tuple[int, int, int]:
    """Returns H, W and C of a map, or of vectors as such."""
    shape = v.aval.shape
    return shape[1:] if len(shape) == 4 else (1, 1, *shape[1:])


def _read(item: Any) -> list[Any]:
    """Returns the variables that an equation or an operation reads."""
    if isinstance(item, _Operation):
        return item.maps
    return [v for v in item.invars if not isinstance(v, Literal)]


class _Reader:
    """A program without calls, as operations of oneDNN and what equations are left.

    Attributes:
      program: what was read.
      constants: by its variables.
      batch: how many images there are.
      uses: how often each variable is read.
      items: operations and equations, in their order, which those of a dict have.
    """

    def __init__(self, program: ClosedJaxpr):
        self.program = program.jaxpr
        self.batch = program.jaxpr.invars[0].aval.shape[0]
        self.constants = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
        results = [v for v in program.jaxpr.outvars if not isinstance(v, Literal)]
        needed, wanted = [], set(results)
        for equation in reversed(program.eqns):
            if wanted.intersection(equation.outvars):
                needed.append(equation)
                wanted.update(_read(equation))
        self.uses = Counter(v for equation in needed for v in _read(equation))
        self.uses.update(results)
        self.items: dict[Any, None] = {}
        self._makers: dict[Any, Any] = {}  # the items, by the variables that they give
        for equation in reversed(needed):
            item = self._operation(equation) or equation
            self.items[item] = None
            self._makers.update(dict.fromkeys(equation.outvars, item))

    def _operation(self, equation: Any) -> _Operation | None:
        """Returns what is to be done for an equation, None for what is left to XLA."""
        out = equation.outvars[0]
        if out.aval.dtype != jnp.float32:
            return None
        activation = _activation(equation)
        if activation is not None:
            return self._activate(equation.invars[0], out, activation)
        name = equation.primitive.name
        kind = {"cond": "largest", "reduce_window_max": "largest"}.get(name, name)
        if equation.primitive is convolution.forward:
            kind = "convolution"
        find = getattr(self, f"_find_{kind}", None)
        return None if find is None else find(equation, out)

    def _constant(self, v: Any) -> Any:
        """Returns the value of a constant, None for what is no constant."""
        return v.val if isinstance(v, Literal) else self.constants.get(v)

    def _is_map(self, v: Any) -> bool:
        """Returns whether something is not a constant, and [B, H, W, C] or [B, C]."""
        fit = v.aval.dtype == jnp.float32 and v.aval.ndim in (2, 4)
        return fit and v.aval.shape[0] == self.batch and self._constant(v) is None

    def _kernel(self, v: Any, axes: int) -> Any:
        """Returns a constant of so many axes, None for anything else."""
        constant = self._constant(v)
        return constant if v.aval.ndim == axes and v.aval.dtype == jnp.float32 else None

    def _sole(self, v: Any, kind: str) -> Any:
        """Returns the item that gives a variable, if it is of a kind and one item reads that."""
        item = None if isinstance(v, Literal) else self._makers.get(v)
        found = item.kind if isinstance(item, _Operation) else item and item.primitive.name
        return item if found == kind and self.uses[v] == 1 else None

    def _activate(self, x: Any, out: Any, activation: Any) -> _Operation | None:
        made = self._sole(x, "convolution")
        if made is not None and made.activation is None:
            return self._extend(made, out, activation=activation)
        known = self._is_map(x) and isinstance(self._makers.get(x), _Operation)
        return _Operation("activate", [x], out, activation=activation) if known else None

    def _extend(self, operation: _Operation, out: Any, **changes: Any) -> _Operation:
        """Returns an operation that does more, in the place of one that has been found."""
        del self.items[operation]
        return dataclasses.replace(operation, out=out, **changes)

    def _find_convolution(self, equation: Any, out: Any) -> _Operation | None:
        x, window = equation.invars[0], equation.params["window"]
        kernel = self._kernel(equation.invars[1], 4)
        fit = kernel is not None and self._is_map(x) and min(map(min, window.padding)) >= 0
        return _Operation("convolution", [x], out, window, kernel) if fit else None

    def _find_dot_general(self, equation: Any, out: Any) -> _Operation | None:
        """The product of channels with a constant matrix is a convolution of single pixels."""
        x, kernel = equation.invars[0], self._kernel(equation.invars[1], 2)
        channels = equation.params["dimension_numbers"] == (((x.aval.ndim - 1,), (0,)), ((), ()))
        if kernel is None or not channels or not self._is_map(x):
            return None
        window = make_window(_sizes(x)[:2], (1, 1), 1, "VALID")
        return _Operation("convolution", [x], out, window, kernel[None, None])

    def _find_add(self, equation: Any, out: Any) -> _Operation | None:
        shape = out.aval.shape
        for x, other in (equation.invars, equation.invars[::-1]):
            made, constant = self._sole(x, "convolution"), self._constant(other)
            if made is None or made.activation is not None:
                continue
            if constant is not None:
                per_channel = np.shape(constant) == (*(1 for _ in shape[1:]), shape[-1])
                if made.bias is None and per_channel:
                    return self._extend(made, out, bias=constant.reshape(-1))
            elif self._is_map(other) and other.aval.shape == shape and not made.maps[1:]:
                return self._extend(made, out, maps=[*made.maps, other])
        same = all(self._is_map(v) and v.aval.shape == shape for v in equation.invars)
        return _Operation("add", equation.invars, out) if same else None

    def _find_mul(self, equation: Any, out: Any) -> _Operation | None:
        if not all(map(self._is_map, equation.invars)):
            return None
        x, gate = sorted(equation.invars, key=lambda v: -math.prod(v.aval.shape))
        fit = x.aval.shape == out.aval.shape
        fit = fit and gate.aval.shape == (self.batch, 1, 1, out.aval.shape[-1])
        return _Operation("scale", [x, gate], out) if fit else None

    def _find_concatenate(self, equation: Any, out: Any) -> _Operation | None:
        last = equation.params["dimension"] == out.aval.ndim - 1
        fit = last and all(map(self._is_map, equation.invars))
        return _Operation("concatenate", equation.invars, out) if fit else None

    def _find_largest(self, equation: Any, out: Any) -> _Operation | None:
        """`max_pool2d` is a choice by platforms, of which the default says what is chosen."""
        inner = [equation]
        if equation.primitive.name == "cond":
            by_platform = equation.params.get("branches_platforms")
            inner = equation.params["branches"][-1].jaxpr.eqns if by_platform else []
        if len(inner) != 1 or inner[0].primitive.name != "reduce_window_max":
            return None
        x, window = equation.invars[-1], _window(inner[0])
        return _Operation("max_pool", [x], out, window) if window and self._is_map(x) else None

    def _find_div(self, equation: Any, out: Any) -> _Operation | None:
        """A sum over windows, or over all of a map, by how many there were: their mean."""
        total, count = equation.invars
        count = self._constant(count)
        broadcast = self._sole(total, "broadcast_in_dim")
        if broadcast is not None:
            total = broadcast.invars[0]
        found = self._sole(total, "reduce_sum") or self._sole(total, "reduce_window_sum")
        window = found and _window(found)
        if not window or count is None or not self._is_map(found.invars[0]):
            return None
        if _sizes(out)[:2] != window.out:
            return None
        if np.all(count == math.prod(window.kernel)):
            kind = "mean_pool"
        elif np.array_equal(count, _inside(window)):
            kind = "mean_pool_inside"
        else:
            return None
        for item in (found, broadcast):
            if item is not None:
                del self.items[item]
        return _Operation(kind, found.invars[:1], out, window)


def _window(equation: Any) -> Window | None:
    """Returns over what an equation goes, if that is windows of maps or their whole images."""
    shape, parameters = equation.invars[0].aval.shape, equation.params
    if len(shape) != 4:
        return None
    image = shape[1:3]
    if "axes" in parameters:
        whole = parameters["axes"] == (1, 2)
        return make_window(image, image, 1, "VALID") if whole else None
    sizes, strides = parameters["window_dimensions"], parameters["window_strides"]
    padding = parameters["padding"]
    plain = {*parameters["base_dilation"], *parameters["window_dilation"]} == {1}
    outside = {*sizes[::3], *strides[::3]} == {1} and {padding[0], padding[3]} == {(0, 0)}
    window = Window(image, sizes[1:3], strides[1:3], tuple(padding[1:3]))
    covered = all(0 <= min(p) and max(p) < k for p, k in zip(padding, sizes, strict=True))
    return window if plain and outside and covered else None


def _inside(window: Window) -> np.ndarray:
    """Returns how many pixels of each window are not padding, [1, H', W', 1]."""
    counts = []
    for i in range(2):
        low = window.strides[i] * np.arange(window.out[i]) - window.padding[i][0]
        high = np.minimum(low + window.kernel[i], window.image[i])
        counts.append(high - np.maximum(low, 0))
    return np.outer(*counts)[None, :, :, None].astype(np.float32)


def _compute(network: _Reader, images: jax.Array) -> list[Any]:
    """Returns the results of a program that was read, within a trace."""
    values: dict[Any, Any] = {**network.constants, network.program.invars[0]: images}

    def value(v: Any) -> Any:
        return v.val if isinstance(v, Literal) else values[v]

    for item in _group(network.items):
        if isinstance(item, list):
            for count, part in _divide(item, network.batch):
                values |= _call(part, values, count, network.uses)
        elif isinstance(item, _Operation):
            values[item.out] = _by_winograd(item, *map(value, item.maps))
        else:
            given = map(value, item.invars)
            values.update(zip(item.outvars, _bind(item, list(given)), strict=True))
    return [value(v) for v in network.program.outvars]


def _group(items: Iterable[Any]) -> Iterator[Any]:
    """Yields equations, convolutions by Winograd, and lists of operations that can be one call."""
    waiting: list[_Operation] = []
    given: set[Any] = set()  # by those that wait
    for item in items:
        if isinstance(item, _Operation) and not item.by_winograd:
            waiting.append(item)
            given.add(item.out)
            continue
        if given.intersection(_read(item)):
            yield waiting
            waiting, given = [], set()
        yield item
    if waiting:
        yield waiting


def _divide(
    operations: Sequence[_Operation], batch: int
) -> Iterator[tuple[int, Sequence[_Operation]]]:
    """Yields operations to be one call, and how many images to take at a time.

    Few, where what lies between two operations then stays in the caches; many, where kernels are
    large, for they are read anew each time. The division is chosen that should take least time.
    """
    counts = np.array([n for n in range(1, batch + 1) if batch % n == 0])
    last = {v: i for i, operation in enumerate(operations) for v in operation.maps}
    times, choices = np.zeros(len(counts)), []  # so far, by how many images the latest one takes
    for i, operation in enumerate(operations):
        between = (math.prod(o.shape) for o in operations[:i] if last.get(o.out, 0) >= i)
        size = max(4 * sum(between), 1)
        through_memory = 2 * batch * size / _BANDWIDTH
        too_many = through_memory * np.maximum(1 - _CACHE / (counts * size), 0)
        onwards = np.full((len(counts), len(counts)), through_memory)  # from each number to each
        np.fill_diagonal(onwards, too_many)
        choices.append((times[:, None] + onwards).argmin(0))
        kernel = 0 if operation.kernel is None else 4 * operation.kernel.size
        times = (times[:, None] + onwards).min(0) + batch / counts * (kernel / _BANDWIDTH + _STEP)
    chosen = [times.argmin()]
    for choice in choices[:0:-1]:
        chosen.append(choice[chosen[-1]])
    start = 0
    for images, same in itertools.groupby(counts[chosen[::-1]].tolist()):
        stop = start + len(list(same))
        yield images, operations[start:stop]
        start = stop


def _call(
    operations: Sequence[_Operation], values: dict[Any, Any], images: int, uses: Counter[Any]
) -> dict[Any, jax.Array]:
    """Returns what operations give to others, computed by one call.

    Args:
      operations: in their order.
      values: of the variables so far.
      images: how many to take at a time.
      uses: how often each variable is read, by all operations and equations.
    """
    read = Counter(v for operation in operations for v in operation.maps)
    inside = [operation.out for operation in operations]
    maps = list(dict.fromkeys(v for v in read if v not in inside))
    positions = {v: i for i, v in enumerate([*maps, *inside])}
    steps = [operation.step(positions) for operation in operations]
    constants = []
    with jax.ensure_compile_time_eval():
        for operation, step in zip(operations, steps, strict=True):
            if operation.kernel is not None:
                bias = operation.bias
                bias = jnp.zeros(operation.shape[2]) if bias is None else bias
                constants += [onednn_inference.pack(operation.kernel, step, images), bias]
    outputs = [i for i, v in enumerate(inside) if uses[v] > read[v]]
    arrays = [values[v].reshape(-1, *_sizes(v)) for v in maps]
    results = onednn_inference.compute(arrays, steps, constants, outputs, images)
    given = [inside[i] for i in outputs]
    return {v: y.reshape(v.aval.shape) for v, y in zip(given, results, strict=True)}


def _by_winograd(operation: _Operation, x: jax.Array, addend: Any = 0.0) -> jax.Array:
    """Returns the result of a convolution."""
    window = operation.window
    assert window is not None
    with jax.ensure_compile_time_eval():
        transformed = winograd.transform(operation.kernel)
    y = winograd.convolve(x, transformed, padding=window.padding, out=window.out)
    y = y + addend if operation.bias is None else y + operation.bias + addend
    return y if operation.activation is None else operation.activation(y)
