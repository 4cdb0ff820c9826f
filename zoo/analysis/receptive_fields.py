"""Which pixels each position of a map depends on, read off what JAX traces of a network.

Position i of a map lies on `size` pixels of a row, from start + i stride on, and every operation
moves these three numbers: a window of k at stride s behind a padding of p makes them

    size + (k - 1) stride,    start - p stride,    s stride

(Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural networks",
https://doi.org/10.23915/distill.00021, equations 2 and 4); where branches meet, the field is the
smallest that holds theirs. Nothing is computed: every window of the traced program counts, whether
a module or a function moved it.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
import jax.numpy as jnp

from zoo.analysis.layers import layer_shapes, run_layers
from zoo.layers import Classifier


@dataclasses.dataclass(frozen=True)
class Span:
    """Which rows (or columns) of the image the elements of an array depend on.

    Attributes:
      axis: along which they differ; None where all depend on the same ones.
      start: the first row, of element 0.
      stride: rows from one element to the next.
      size: rows that each depends on.
    """

    axis: int | None
    start: int = 0
    stride: int = 1
    size: int = 1

    def of_all(self, length: int) -> "Span":
        """Returns what an element made of all `length` ones depends on."""
        if self.axis is None:
            return self
        return Span(None, self.start, self.stride, self.size + (length - 1) * self.stride)

    def window(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> "Span":
        """Returns what is seen through a window that is moved along."""
        return Span(
            self.axis,
            self.start - int(padding) * self.stride,
            self.stride * stride,
            self.size + (kernel - 1) * dilation * self.stride,
        )


class Seen(NamedTuple):
    """What an array depends on: rows, columns, and whether the whole map has a say besides."""

    rows: Span
    columns: Span
    context: bool = False


class ReceptiveField(NamedTuple):
    """The pixels that positions of a map depend on; those outside of the image are padding.

    Attributes:
      size: height and width.
      strides: from one position to the next, down and to the right.
      start: top and left of the one at position (0, 0); negative where it begins in padding.
      context: whether means of a whole map scale channels on the way (squeeze and excitation), so
        that a little of everything is seen besides.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    start: tuple[int, int]
    context: bool

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Returns (top, left, bottom, right) of a position's field, the latter two excluded."""
        top, left = (
            s + i * step for s, i, step in zip(self.start, (row, column), self.strides, strict=True)
        )
        return top, left, top + self.size[0], left + self.size[1]


def receptive_fields(
    model: Classifier, image_shape: tuple[int, int, int], *names: str
) -> dict[str, ReceptiveField]:
    """Returns the receptive fields of some layers of a model, as it is in evaluation.

    They are exact but for these: a gate that is computed from the whole map, as in squeeze and
    excitation, does not widen the field and is told by `context`; means over a grid of bins count
    as the whole map.

    Args:
      model: the module.
      image_shape: [H, W, C]; on it depend padding "SAME" and what a mean over the map sees.
      *names: see `zoo.analysis.layers.layers_of`.

    Raises:
      ConfigError: for a layer that the model does not have.

    Example:
      >>> import zoo
      >>> receptive_fields(zoo.create_model("vgg16"), (224, 224, 3), "stride32")["stride32"]
      ReceptiveField(size=(212, 212), strides=(32, 32), start=(-90, -90), context=False)
    """
    # Two images, so that their axis is not taken for one of a single row.
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    layer_shapes(model, variables, image_shape, names)
    run = functools.partial(run_layers, model, names)
    jaxpr = jax.make_jaxpr(run)(variables, images).jaxpr
    found = _walk(jaxpr, [*[None] * (len(jaxpr.invars) - 1), Seen(Span(1), Span(2))])
    # Outputs are in the order of a tree's leaves, which sorts names.
    fields = {name: _field(seen) for name, seen in zip(sorted({*names}), found, strict=True)}
    return {name: fields[name] for name in names}


def _field(seen: Seen | None) -> ReceptiveField:
    if seen is None:
        raise ValueError("does not depend on the image")
    rows, columns = seen.rows, seen.columns
    return ReceptiveField(
        (rows.size, columns.size),
        (rows.stride, columns.stride),
        (rows.start, columns.start),
        seen.context,
    )


def _walk(jaxpr: Jaxpr, inputs: Sequence[Seen | None]) -> list[Seen | None]:
    """Returns what the outputs of a traced program depend on."""
    known: dict[Any, Seen | None] = dict(zip(jaxpr.invars, inputs, strict=True))

    def look(variable: Any) -> Seen | None:
        return None if isinstance(variable, Literal) else known.get(variable)

    for equation in jaxpr.eqns:
        arguments = [look(v) for v in equation.invars]
        if any(arguments):
            known.update(zip(equation.outvars, _step(equation, arguments), strict=True))
    return [look(v) for v in jaxpr.outvars]


def _step(equation: Any, arguments: Sequence[Seen | None]) -> Sequence[Seen | None]:
    """Returns what the outputs of one operation depend on."""
    inner = _programs(equation.params)
    if inner:  # a call, or a choice between ways to compute the same
        results = [_walk(p, arguments[len(arguments) - len(p.invars) :]) for p in inner]
        return [_together(several) for several in zip(*results, strict=True)]
    rule = RULES.get(equation.primitive.name, _elementwise)
    after = equation.outvars[0].aval.shape
    moved = []
    for number, (variable, seen) in enumerate(zip(equation.invars, arguments, strict=True)):
        if seen is not None:
            used = Use(equation.params, variable.aval.shape, after, number)
            rows, columns = (
                s if s.axis is None else rule(s.axis, s, used) for s in (seen.rows, seen.columns)
            )
            moved.append(Seen(rows, columns, seen.context))
    return [_together(moved)] * len(equation.outvars)


def _programs(params: Mapping[str, Any]) -> list[Jaxpr]:
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, ClosedJaxpr | Jaxpr):
                found.append(item.jaxpr if isinstance(item, ClosedJaxpr) else item)
    return found


def _together(several: Sequence[Seen | None]) -> Seen | None:
    """Returns the smallest field that holds some, gates of the whole map left out."""
    seen = [s for s in several if s is not None]
    if not seen:
        return None
    context = any(s.context for s in seen)
    local = [s for s in seen if s.rows.axis is not None and s.columns.axis is not None]
    if local and len(local) < len(seen):
        seen, context = local, True
    return Seen(_hull([s.rows for s in seen]), _hull([s.columns for s in seen]), context)


def _hull(spans: Sequence[Span]) -> Span:
    first = spans[0]
    if any((s.axis, s.stride) != (first.axis, first.stride) for s in spans if s.axis is not None):
        raise ValueError(f"branches of different strides meet: {spans}")
    start = min(s.start for s in spans)
    return dataclasses.replace(
        first, start=start, size=max(s.start + s.size for s in spans) - start
    )


class Use(NamedTuple):
    """An array as an argument of an operation.

    Attributes:
      params: of the operation.
      before: shape of the array.
      after: shape of the result.
      argument: which one it is.
    """

    params: Mapping[str, Any]
    before: tuple[int, ...]
    after: tuple[int, ...]
    argument: int


# From an axis of the argument and what differs along it to what the result depends on.
Rule = Callable[[int, Span, Use], Span]


def _on(axis: int | None, before: int, span: Span, use: Use) -> Span:
    """Returns the span along another axis; None if its own, `before`, is lost among others."""
    return span.of_all(use.before[before]) if axis is None else dataclasses.replace(span, axis=axis)


def _elementwise(axis: int, span: Span, use: Use) -> Span:
    # An element of whatever is not known here, and changes shapes, may depend on all.
    return _on(axis if use.before == use.after else None, axis, span, use)


def _convolution(axis: int, span: Span, use: Use) -> Span:
    w, i = use.params["window"], axis - 1
    return span.window(w.kernel[i], w.strides[i], w.padding[i][0], w.dilation[i])


def _reduce_window(axis: int, span: Span, use: Use) -> Span:
    names = ("window_dimensions", "window_strides", "padding", "window_dilation")
    kernel, stride, (low, _), dilation = (use.params[name][axis] for name in names)
    return span.window(kernel, stride, low, dilation)


def _pad(axis: int, span: Span, use: Use) -> Span:
    return span.window(1, 1, use.params["padding_config"][axis][0])


def _slice(axis: int, span: Span, use: Use) -> Span:
    strides = use.params["strides"] or (1,) * len(use.before)
    return span.window(1, strides[axis], -use.params["start_indices"][axis])


def _concatenate(axis: int, span: Span, use: Use) -> Span:
    return _on(None if axis == use.params["dimension"] else axis, axis, span, use)


def _broadcast(axis: int, span: Span, use: Use) -> Span:
    new = use.params["broadcast_dimensions"][axis]
    return _on(new if use.before[axis] == use.after[new] else None, axis, span, use)


def _reshape(axis: int, span: Span, use: Use) -> Span:
    in_front = math.prod(use.before[:axis])
    kept = (
        new
        for new, length in enumerate(use.after)
        if length == use.before[axis] and math.prod(use.after[:new]) == in_front
    )
    return _on(next(kept, None), axis, span, use)


def _transpose(axis: int, span: Span, use: Use) -> Span:
    return _on(use.params["permutation"].index(axis), axis, span, use)


def _without(axes: str) -> Rule:
    """Returns the rule of what does away with the axes that a parameter names."""

    def rule(axis: int, span: Span, use: Use) -> Span:
        left = [i for i in range(len(use.before)) if i not in use.params[axes]]
        return _on(left.index(axis) if axis in left else None, axis, span, use)

    return rule


def _dot(axis: int, span: Span, use: Use) -> Span:
    contracted, batch = (axes[use.argument] for axes in use.params["dimension_numbers"])
    free = [i for i in range(len(use.before)) if i not in (*contracted, *batch)]
    # Of the result: batch, what is free of the first, what is free of the second argument.
    begin = len(batch) if use.argument == 0 else len(use.after) - len(free)
    places = {i: n for n, i in enumerate(batch)} | {i: begin + n for n, i in enumerate(free)}
    return _on(places.get(axis), axis, span, use)


RULES: dict[str, Rule] = {
    "zoo_convolution_forward": _convolution,
    "reduce_window_max": _reduce_window,
    "reduce_window_sum": _reduce_window,
    "pad": _pad,
    "slice": _slice,
    "concatenate": _concatenate,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _without("dimensions"),
    "reduce_sum": _without("axes"),
    "reduce_max": _without("axes"),
    "dot_general": _dot,
}
