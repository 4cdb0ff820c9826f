"""Many products of matrices at once by oneDNN, for `zoo.ops.winograd`.

The matrices of one product lie between those of the others: [rows, n, columns], n of them.
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax

from zoo.ops import ffi, onednn
from zoo.ops import onednn_library as dnn
from zoo.ops.onednn_library import Place, Primitive, Program

TARGET = "zoo_onednn_product"
TRANSPOSE_TARGET = "zoo_onednn_transpose"


def forward(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the products [P, n, O] of float32 [P, n, C] and [C, n, O]."""
    return _call(0, a, b, (a.shape[0], *b.shape[1:]))


def transposed(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the products [C, n, O] of float32 [P, n, C], each transposed, and [P, n, O]."""
    return _call(1, a, b, (a.shape[2], *b.shape[1:]))


def transpose(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Returns float32 [a, b, c] with its axes in another order, in memory as well.

    XLA is slow at that, or transposes what comes before it instead.
    """
    result = jax.ShapeDtypeStruct(tuple(x.shape[axis] for axis in axes), x.dtype)
    return ffi.call(TRANSPOSE_TARGET, axes, x, result=result)


def _call(transposes: int, a: jax.Array, b: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return ffi.call(TARGET, (transposes,), a, b, result=jax.ShapeDtypeStruct(shape, a.dtype))


@functools.lru_cache(maxsize=1024)
def _product(numbers: tuple[int, ...], *shapes: tuple[int, ...]) -> Program:
    layouts = [_layout(shape) for shape in shapes]
    first = _layout(shapes[0], transposed=True) if numbers[0] else layouts[0]
    description = dnn.make(
        "dnnl_matmul_primitive_desc_create",
        *(dnn.engine(), first, layouts[1], None, layouts[2], dnn.attributes()),
    )
    a, b, out = (Place(layout) for layout in (first, *layouts[1:]))
    places = {onednn.SRC: a, onednn.WEIGHTS: b, onednn.DST: out}
    return Program([a, b, out], [], [Primitive(description, places)])


@functools.lru_cache(maxsize=1024)
def _transposition(axes: Sequence[int], given: Sequence[int], wanted: Sequence[int]) -> Program:
    strides = given[1] * given[2], given[2], 1
    layout = dnn.strided(wanted, [strides[axis] for axis in axes])
    new_layout = dnn.strided(wanted, (wanted[1] * wanted[2], wanted[2], 1))
    places = Place(layout), Place(new_layout)
    return Program(places, [], [onednn.reorder(layout, new_layout, *places)])


def _layout(shape: Sequence[int], *, transposed: bool = False) -> Any:
    """Returns the layout of [rows, n, columns], or of the transposes."""
    rows, count, columns = shape
    if transposed:
        return dnn.strided((count, columns, rows), (columns, 1, count * columns))
    return dnn.strided((count, rows, columns), (columns, count * columns, 1))


def _execute(numbers: Any, arguments: Any, results: Any) -> None:
    onednn.run(_product, numbers, arguments, results)


def _execute_transpose(numbers: Any, arguments: Any, results: Any) -> None:
    onednn.run(_transposition, numbers, arguments, results)


ffi.declare(TARGET, _execute)
ffi.declare(TRANSPOSE_TARGET, _execute_transpose)
