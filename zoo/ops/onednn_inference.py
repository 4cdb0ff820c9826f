"""Convolutions for inference by oneDNN: kernels in its own layout, what follows done on the way.

`pack` writes a kernel once as oneDNN wants it; `convolve` then adds bias, another map and an
activation to each number as it is computed, where XLA would read and write the whole map again.
"""

from collections.abc import Sequence
import ctypes
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from zoo.ops import ffi, onednn
from zoo.ops import onednn_library as dnn
from zoo.ops.onednn_library import Place, Primitive, Program
from zoo.ops.plain import Window
from zoo.ops.pointwise import rectify

PACK_TARGET = "zoo_onednn_pack"
CONVOLVE_TARGET = "zoo_onednn_inference"

# Of oneapi/dnnl/dnnl_types.h: algorithms with their alpha and beta.
ACTIVATIONS = {
    None: None,
    nn.relu: (32, 0.0, 0.0),
    rectify: (32, 0.0, 0.0),
    nn.relu6: (47, 0.0, 6.0),
    nn.silu: (44, 1.0, 0.0),
    nn.hard_swish: (52, 1 / 6, 0.5),
}
_CODES = list(ACTIVATIONS)

_VECTOR, _INFERENCE, _ADD = 2, 96, 0x1FFF0
_BIAS, _ADDEND = 41, 32768 | 2  # arguments; the addend's place is that of the first operation


def pack(kernel: jax.Array, batch: int, window: Window) -> jax.Array:
    """Returns a kernel as `convolve` takes it: opaque numbers, float32 [n].

    Args:
      kernel: float32 [kh, kw, C / groups, O].
      batch: how many images will be convolved at a time.
      window: how.
    """
    numbers = _numbers(batch, kernel.shape, window)
    size = _description(tuple(numbers), 0, False).blocks_size // 4
    _register()
    return ffi.call(PACK_TARGET, numbers, kernel, result=jax.ShapeDtypeStruct((size,), jnp.float32))


def convolve(
    x: jax.Array,
    packed: jax.Array,
    bias: jax.Array,
    addend: jax.Array | None,
    *,
    kernel_shape: Sequence[int],
    window: Window,
    activation: Any = None,
) -> jax.Array:
    """Returns activation(x * kernel + bias + addend), float32 [B, H', W', O].

    NaN is not kept by every activation.

    Args:
      x: float32 [B, H, W, C].
      packed: of `pack` for this kernel, batch and window.
      bias: float32 [O].
      addend: float32 [B, H', W', O], or None for none.
      kernel_shape: (kh, kw, C / groups, O).
      window: how the kernel is moved.
      activation: a key of `ACTIVATIONS`.
    """
    _register()
    numbers = (_CODES.index(activation), *_numbers(x.shape[0], kernel_shape, window))
    result = jax.ShapeDtypeStruct((x.shape[0], *window.out, kernel_shape[3]), jnp.float32)
    maps = (x,) if addend is None else (x, addend)
    return ffi.call(CONVOLVE_TARGET, numbers, packed, bias, *maps, result=result)


def _numbers(batch: int, kernel_shape: Sequence[int], window: Window) -> tuple[int, ...]:
    sizes = (batch, *window.image, *window.out, *kernel_shape, window.groups)
    return (*sizes, *onednn.geometry_numbers(window))


class _Description:
    """A convolution as oneDNN describes it.

    Args:
      numbers: of `_numbers`.
      activation: position in `ACTIVATIONS`.
      adds: whether another map is added.
    """

    def __init__(self, numbers: tuple[int, ...], activation: int, adds: bool):
        batch, height, width, high, wide, kh, kw, inputs, outputs, groups = numbers[:10]
        self.image = onednn.images((batch, height, width, inputs * groups))
        self.out = onednn.images((batch, high, wide, outputs))
        self.bias = dnn.layout((outputs,), _VECTOR)
        shape, self.kernel = onednn.kernels((kh, kw, inputs, outputs), groups)
        self.handle = dnn.make(
            "dnnl_convolution_forward_primitive_desc_create",
            *(dnn.engine(), _INFERENCE, onednn.DIRECT, self.image, dnn.layout(shape, onednn.ANY)),
            *(self.bias, self.out, *onednn.geometry(numbers[10:])),
            self._attributes(activation, adds),
        )
        self.blocks = dnn.layout_of(self.handle, onednn.WEIGHTS_OF)
        self.blocks_size = Place(self.blocks).size

    def _attributes(self, activation: int, adds: bool) -> ctypes.c_void_p:
        after = dnn.make("dnnl_post_ops_create")
        if adds:
            dnn.call("dnnl_post_ops_append_binary", after, _ADD, self.out)
        operation = ACTIVATIONS[_CODES[activation]]
        if operation is not None:
            algorithm, alpha, beta = operation
            values = (ctypes.c_float(alpha), ctypes.c_float(beta))
            dnn.call("dnnl_post_ops_append_eltwise", after, algorithm, *values)
        attributes = dnn.make_attributes()
        dnn.call("dnnl_primitive_attr_set_post_ops", attributes, after)
        return attributes


_description = functools.lru_cache(maxsize=4096)(_Description)


@functools.lru_cache(maxsize=4096)
def _packing(numbers: tuple[int, ...]) -> Program:
    described = _description(numbers, 0, False)
    kernel, blocks = Place(described.kernel), Place(described.blocks)
    reorder = onednn.reorder(described.kernel, described.blocks, kernel, blocks)
    return Program([kernel, blocks], [], [reorder])


@functools.lru_cache(maxsize=4096)
def _convolution(numbers: tuple[int, ...], adds: bool) -> Program:
    described = _description(numbers[1:], numbers[0], adds)
    packed = _description(numbers[1:], 0, False).blocks
    blocks, bias = Place(packed), Place(described.bias)
    image, out = Place(described.image), Place(described.out)
    given, own, steps, weights = [blocks, bias, image], [], [], blocks
    if not dnn.library().dnnl_memory_desc_equal(packed, described.blocks):
        weights = Place(described.blocks)  # with these operations it wants another layout
        own.append(weights)
        steps.append(onednn.reorder(packed, described.blocks, blocks, weights))
    places = {onednn.SRC: image, onednn.WEIGHTS: weights, _BIAS: bias, onednn.DST: out}
    if adds:
        addend = Place(described.out)
        given.append(addend)
        places[_ADDEND] = addend
    return Program([*given, out], own, [*steps, Primitive(described.handle, places)])


def _execute_pack(numbers: Sequence[int], arguments: Any, results: Any) -> None:
    _packing(tuple(numbers))(arguments[0].address, results[0].address)


def _execute(numbers: Sequence[int], arguments: Any, results: Any) -> None:
    program = _convolution(tuple(numbers), len(arguments) == 4)
    program(*(array.address for array in (*arguments, *results)))


@functools.cache
def _register() -> None:
    ffi.register(PACK_TARGET, _execute_pack)
    ffi.register(CONVOLVE_TARGET, _execute)
