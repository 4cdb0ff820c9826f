"""Convolutions for inference by oneDNN: kernels in its own layout, what follows done on the way.

`pack` writes a kernel once as oneDNN wants it; `convolve` then adds bias, another map and an
activation to each number as it is computed, where XLA would read and write the whole map again.
Convolutions of which each reads the result of the one before are one call, that takes so few images
at a time that what lies between stays in the processor's caches.
"""

from collections.abc import Sequence
import ctypes
import dataclasses
import functools
import math
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
_CACHE = 4 * 2**20  # bytes that the processor keeps at hand


@dataclasses.dataclass(frozen=True)
class Convolution:
    """activation(x * kernel + bias + addend), float32 [B, H', W', O].

    NaN is not kept by every activation.

    Attributes:
      kernel: (kh, kw, C / groups, O).
      window: how the kernel is moved.
      activation: a key of `ACTIVATIONS`.
      adds: whether there is an addend, [B, H', W', O].
    """

    kernel: tuple[int, ...]
    window: Window
    activation: Any = None
    adds: bool = False

    def numbers(self) -> tuple[int, ...]:
        """Returns it as a call into oneDNN carries it."""
        sizes = *self.window.image, *self.window.out, *self.kernel, self.window.groups
        return (
            _CODES.index(self.activation),
            int(self.adds),
            *sizes,
            *onednn.geometry_numbers(self.window),
        )


def images_at_a_time(shape: Sequence[int]) -> int:
    """Returns how many images to take at a time, where a map [B, H, W, C] lies in between."""
    batch, *sizes = shape
    most = max(_CACHE // (4 * math.prod(sizes)), 1)
    return max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)


def pack(kernel: jax.Array, convolution: Convolution, images: int) -> jax.Array:
    """Returns a kernel as `convolve` takes it: opaque numbers, float32 [n].

    Args:
      kernel: float32 [kh, kw, C / groups, O].
      convolution: for which.
      images: that will be taken at a time.
    """
    numbers = (images, *convolution.numbers())
    result = jax.ShapeDtypeStruct((_description(numbers).blocks_size // 4,), jnp.float32)
    return ffi.call(PACK_TARGET, numbers, kernel, result=result)


def convolve(
    x: jax.Array,
    convolutions: Sequence[Convolution],
    operands: Sequence[Sequence[jax.Array]],
    images: int,
) -> jax.Array:
    """Returns what the last of some convolutions gives, each of the one before.

    Args:
      x: float32 [B, H, W, C], for the first.
      convolutions: in their order.
      operands: of each its kernel, of `pack`, its bias [O], and its addend, if it has one.
      images: how many to take at a time, of which B is a multiple.
    """
    each = (number for c in convolutions for number in c.numbers())
    numbers = (images, len(convolutions), *each)
    last = convolutions[-1]
    result = jax.ShapeDtypeStruct((x.shape[0], *last.window.out, last.kernel[3]), jnp.float32)
    flat = (array for arrays in operands for array in arrays)
    return ffi.call(CONVOLVE_TARGET, numbers, x, *flat, result=result)


class _Description:
    """A convolution as oneDNN describes it.

    Args:
      numbers: how many images at a time, and of `Convolution.numbers`.
    """

    def __init__(self, numbers: tuple[int, ...]):
        images, activation, self.adds, *sizes = numbers
        height, width, high, wide, kh, kw, inputs, outputs, groups = sizes[:9]
        self.image = onednn.images((images, height, width, inputs * groups))
        self.out = onednn.images((images, high, wide, outputs))
        self.image_bytes = 4 * images * height * width * inputs * groups
        self.out_bytes = 4 * images * high * wide * outputs
        self.bias = dnn.layout((outputs,), _VECTOR)
        shape, self.kernel = onednn.kernels((kh, kw, inputs, outputs), groups)
        self.handle = dnn.make(
            "dnnl_convolution_forward_primitive_desc_create",
            *(dnn.engine(), _INFERENCE, onednn.DIRECT, self.image, dnn.layout(shape, onednn.ANY)),
            *(self.bias, self.out, *onednn.geometry(sizes[9:])),
            _attributes(activation, self.out if self.adds else None),
        )
        self.blocks = dnn.layout_of(self.handle, onednn.WEIGHTS_OF)
        self.blocks_size = Place(self.blocks).size


def _attributes(activation: int, addend: Any) -> ctypes.c_void_p:
    """Returns what else is done: the position of an activation, the layout of an addend or None."""
    after = dnn.make("dnnl_post_ops_create")
    if addend is not None:
        dnn.call("dnnl_post_ops_append_binary", after, _ADD, addend)
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
    described = _description(numbers)
    kernel, blocks = Place(described.kernel), Place(described.blocks)
    reorder = onednn.reorder(described.kernel, described.blocks, kernel, blocks)
    return Program([kernel, blocks], [], [reorder])


@functools.lru_cache(maxsize=4096)
def _chain(numbers: tuple[int, ...]) -> tuple[Program, list[int]]:
    """Returns convolutions, each of the result of the one before, for a few images at a time.

    Args:
      numbers: of `convolve`.

    Returns:
      What runs, and how many bytes further each of its arrays is for the next images.
    """
    images, count, *rest = numbers
    length = len(rest) // count
    each = [
        _description((images, *rest[start : start + length]))
        for start in range(0, len(rest), length)
    ]
    given, steps = [Place(each[0].image)], [each[0].image_bytes]
    source, primitives = given[0], []
    between: list[list[Place]] = [[], []]  # two places in turn, each of several layouts
    for i, described in enumerate(each):
        weights, bias, out = Place(described.blocks), Place(described.bias), Place(described.out)
        places = {onednn.SRC: source, onednn.WEIGHTS: weights, _BIAS: bias, onednn.DST: out}
        given += [weights, bias]
        steps += [0, 0]
        if described.adds:
            places[_ADDEND] = Place(described.out)
            given.append(places[_ADDEND])
            steps.append(described.out_bytes)
        primitives.append(Primitive(described.handle, places))
        if i + 1 < count:
            source = Place(each[i + 1].image)
            between[i % 2] += [out, source]
        else:
            given.append(out)
            steps.append(described.out_bytes)
    return Program(given, [places for places in between if places], primitives), steps


def _execute_pack(numbers: Sequence[int], arguments: Any, results: Any) -> None:
    _packing(tuple(numbers))(arguments[0].address, results[0].address)


def _execute(numbers: Sequence[int], arguments: Any, results: Any) -> None:
    program, steps = _chain(tuple(numbers))
    addresses = [array.address for array in (*arguments, *results)]
    for part in range(arguments[0].shape[0] // numbers[0]):
        program(*(a + part * step for a, step in zip(addresses, steps, strict=True)))


ffi.declare(PACK_TARGET, _execute_pack)
ffi.declare(CONVOLVE_TARGET, _execute)
