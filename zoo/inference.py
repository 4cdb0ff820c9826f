"""A trained network prepared to be used: images in, logits out, as fast as the machine does it.

Everywhere BatchNorm goes into the convolutions (`zoo.folding`) and the whole is compiled. On a CPU
with oneDNN the traced network is also rewritten: a convolution and the bias, sum and activation
behind it become one operation, and kernels are laid out once for all calls, not in each.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import itertools
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun
import jax.numpy as jnp
import numpy as np

from zoo.folding import fold_batchnorm
from zoo.layers import Classifier
from zoo.ops import convolution, onednn, onednn_inference, winograd
from zoo.ops.onednn_inference import ACTIVATIONS, Convolution
from zoo.ops.plain import Window


def for_inference(model: Classifier, variables: Any) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from images to logits, compiled for each shape of images.

    On a CPU with oneDNN it keeps the last four shapes, each with kernels of its own.

    Its results are those of `model.apply(variables, images, train=False)` up to rounding.

    Args:
      model: of the zoo.
      variables: of that model.

    Returns:
      normalised images [B, H, W, C] -> logits [B, K], or features [B, D] without a head.

    Raises:
      WeightsError: (a ValueError) if the variables are not the model's.

    Example:
      >>> import zoo
      >>> model = zoo.create_model("mlp")
      >>> images = jnp.ones((2, 28, 28, 1))
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> for_inference(model, variables)(images).shape
      (2, 10)
    """
    folded, weights = fold_batchnorm(model, variables)
    weights = jax.tree.map(jnp.asarray, weights)
    apply: Any = functools.partial(folded.apply, train=False)
    compiled = jax.jit(apply)

    @functools.lru_cache(maxsize=4)  # each keeps the kernels as it wants them
    def prepared(shape: tuple[int, ...], dtype: Any) -> Callable[[jax.Array], jax.Array]:
        images = jax.ShapeDtypeStruct(shape, dtype)
        program = jax.make_jaxpr(apply)(weights, images)
        arrays = jax.tree.leaves(weights)

        def rewritten(images: jax.Array) -> Any:
            return _run(program.jaxpr, program.consts, [*arrays, images])

        # What depends on weights alone is computed here, and becomes a constant of the program.
        program_of_images = jax.make_jaxpr(rewritten)(images)

        @jax.jit
        def compute(constants: Any, images: jax.Array) -> jax.Array:
            return jaxpr_as_fun(ClosedJaxpr(program_of_images.jaxpr, constants))(images)[0]

        return functools.partial(compute, program_of_images.consts)

    def run(images: jax.Array) -> jax.Array:
        if not _is_for_onednn(images):
            return compiled(weights, images)
        return prepared(images.shape, images.dtype)(images)

    return run


def _is_for_onednn(images: Any) -> bool:
    """Returns whether images are computed on by one CPU, with oneDNN, and not within a program."""
    if not onednn.enabled() or isinstance(images, Tracer):
        return False
    devices = images.devices() if isinstance(images, jax.Array) else jax.devices()[:1]
    return [device.platform for device in devices] == ["cpu"]


@dataclasses.dataclass
class _Pending:
    """A convolution that is computed when it is known what else happens to its result.

    Attributes:
      x: its images, or the convolution that gives them.
      kernel: its kernel, a constant.
      window: how it is moved.
      bias: added to each pixel, [O].
      addend: another map to be added.
      activation: the last of it.
    """

    x: Any
    kernel: jax.Array
    window: Window
    bias: jax.Array | None = None
    addend: jax.Array | None = None
    activation: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[B, H', W', O]."""
        return (self.x.shape[0], *self.window.out, self.kernel.shape[3])

    @property
    def by_winograd(self) -> bool:
        """Whether fewer multiplications are the faster way."""
        batch, *_, inside = self.x.shape
        return winograd.pays(self.window, batch, inside, self.kernel.shape[3], prepared=True)

    def force(self) -> jax.Array:
        """Returns the result."""
        if self.by_winograd:
            return self._force_by_winograd()
        x, chain = self.x, deque[_Pending]([self])
        while isinstance(x, _Pending):
            chain.appendleft(x)
            x = x.x
        for images, part in _divide(chain):
            operands = [convolution.operands(images) for convolution in part]
            x = onednn_inference.convolve(x, [c.what() for c in part], operands, images)
        return x

    def what(self) -> Convolution:
        """Returns what is to be computed."""
        return Convolution(
            self.kernel.shape, self.window, self.activation, adds=self.addend is not None
        )

    def operands(self, images: int) -> list[jax.Array]:
        """Returns with what, taking some images at a time."""
        with jax.ensure_compile_time_eval():
            kernel = onednn_inference.pack(self.kernel, self.what(), images)
            bias = jnp.zeros(self.kernel.shape[3]) if self.bias is None else self.bias
        return [kernel, bias] if self.addend is None else [kernel, bias, self.addend]

    def _force_by_winograd(self) -> jax.Array:
        with jax.ensure_compile_time_eval():
            transformed = winograd.transform(self.kernel)
        padding, out = self.window.padding, self.window.out
        y = winograd.convolve(self.x, transformed, padding=padding, out=out)
        y = y if self.bias is None else y + self.bias
        y = y if self.addend is None else y + self.addend
        return y if self.activation is None else self.activation(y)


def _divide(chain: Sequence[_Pending]) -> Iterator[tuple[int, list[_Pending]]]:
    """Yields convolutions to be one call, and how many images to take at a time.

    Few, where more of what lies between two of them than the caches hold would go through memory.
    """
    batch, part = chain[0].shape[0], [chain[0]]
    images = batch
    for before, pending in itertools.pairwise(chain):
        fit = onednn_inference.images_at_a_time(before.shape)
        if fit == batch and images < batch:
            yield images, part
            part, images = [], batch
        elif fit < batch and images == batch and len(part) > 1:
            yield batch, part[:-1]
            part = [before]
        part.append(pending)
        images = min(images, fit)
    yield images, part


def _force(value: Any) -> Any:
    return value.force() if isinstance(value, _Pending) else value


def _run(program: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Returns the results of a traced program, in which convolutions wait for what follows."""
    values = dict(zip([*program.constvars, *program.invars], [*constants, *arguments], strict=True))
    read = [v for e in program.eqns for v in e.invars] + program.outvars
    uses = Counter(v for v in read if not isinstance(v, Literal))
    for equation in program.eqns:
        for v in equation.invars:
            if not isinstance(v, Literal) and uses[v] > 1:
                values[v] = _force(values[v])
        given = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        results = _defer(equation, given)
        if results is None:
            results = _evaluate(equation, [_force(value) for value in given])
        values.update(zip(equation.outvars, results, strict=True))
    return [_force(v.val if isinstance(v, Literal) else values[v]) for v in program.outvars]


def _defer(equation: Any, given: list[Any]) -> list[Any] | None:
    """Returns what waits of an operation, None if it is to be computed."""
    if equation.primitive is convolution.forward and _suits(equation, given[1]):
        return [_convolution(given[0], given[1], equation.params["window"])]
    pending = [value for value in given if isinstance(value, _Pending)]
    if not pending:
        return None
    first = pending[0]
    if first.activation is None and equation.primitive.name == "add" and first.addend is None:
        other = given[1] if given[0] is first else given[0]
        return _added(first, other, equation.outvars[0].aval.shape)
    if first.activation is None and len(given) == 1:
        activation = _activation(equation)
        return activation and [dataclasses.replace(first, activation=activation)]
    return None


def _convolution(x: Any, kernel: jax.Array, window: Window) -> _Pending:
    """Returns a convolution of a map, or of what waits to become one."""
    pending = _Pending(x, kernel, window)
    if isinstance(x, _Pending) and (x.by_winograd or pending.by_winograd):
        pending.x = x.force()
    return pending


def _suits(equation: Any, kernel: Any) -> bool:
    """Returns whether oneDNN is to compute a convolution, whose kernel has to be a constant."""
    window, known = equation.params["window"], isinstance(kernel, jax.Array)
    known = known and not isinstance(kernel, Tracer) and kernel.dtype == jnp.float32
    return known and window.image != (1, 1) and min(map(min, window.padding)) >= 0


def _added(pending: _Pending, other: Any, shape: tuple[int, ...]) -> list[Any] | None:
    """Returns a convolution to which something is added, None if that is neither of the kinds."""
    if isinstance(other, _Pending):
        return [dataclasses.replace(pending, addend=other.force())]
    if not isinstance(other, Tracer) and np.shape(other) == (1, 1, 1, shape[-1]):
        if pending.bias is not None:
            return None
        with jax.ensure_compile_time_eval():
            return [dataclasses.replace(pending, bias=other.reshape(-1))]
    return [dataclasses.replace(pending, addend=other)] if np.shape(other) == shape else None


def _evaluate(equation: Any, given: list[Any]) -> list[Any]:
    inner = _inner(equation)
    if inner is not None:
        return _run(inner.jaxpr, inner.consts, given)
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
    """Returns the activation that a call computes, if it is one of those that are known."""
    inner, aval = _inner(equation), equation.invars[0].aval
    return None if inner is None else _texts(aval.shape, aval.dtype).get(str(inner))


@functools.lru_cache(maxsize=256)
def _texts(shape: tuple[int, ...], dtype: Any) -> dict[str, Any]:
    """Returns the activations that are known, by what they look like when traced."""
    x = jax.ShapeDtypeStruct(shape, dtype)
    traced = {f: jax.make_jaxpr(f)(x).jaxpr.eqns for f in ACTIVATIONS if f is not None}
    return {str(_inner(equations[0])): f for f, equations in traced.items()}
