"""Steps of a trained network by oneDNN, several of them as one call.

`pack` writes the kernel of a convolution once as oneDNN wants it. `compute` takes a few images at a
time through all steps, so that what lies between two of them can stay in the processor's caches; to
each number of a convolution it adds a bias and another map and applies an activation as the number
is computed, where XLA would read and write the whole map again.
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
COMPUTE_TARGET = "zoo_onednn_inference"

ACTIVATIONS = {
    nn.relu: "relu",
    rectify: "relu",
    nn.relu6: "relu6",
    nn.silu: "silu",
    nn.hard_swish: "hard_swish",
    nn.sigmoid: "sigmoid",
    nn.hard_sigmoid: "hard_sigmoid",
}
# Of oneapi/dnnl/dnnl_types.h: algorithms with their alpha and beta.
_ACTIVATIONS = {
    "relu": (32, 0.0, 0.0),
    "relu6": (47, 0.0, 6.0),
    "silu": (44, 1.0, 0.0),
    "hard_swish": (52, 1 / 6, 0.5),
    "sigmoid": (41, 0.0, 0.0),
    "hard_sigmoid": (40, 1 / 6, 0.5),
}
_POOLING = {"max_pool": 511, "mean_pool": 767, "mean_pool_inside": 1023}
_BINARY = {"add": 0x1FFF0, "scale": 0x1FFF1}
_VECTOR, _ROWS, _INFERENCE, _CHANNELS = 2, 3, 96, 1
_SRC_1, _BIAS, _ADDEND, _MULTIPLE = 2, 41, 32768 | 2, 1024  # arguments

Shape = tuple[int, ...]  # of a map, without its images: (H, W, C)


@dataclasses.dataclass(frozen=True)
class Step:
    """Something done with float32 maps [B, H, W, C]. NaN is not kept by every one.

    Attributes:
      kind: "convolution" activation(x * kernel + bias + addend), also without an addend;
        "max_pool"; "mean_pool", where padding counts, and "mean_pool_inside", where it does not;
        "add" of two maps; "scale" of a map by another [B, 1, 1, C]; "concatenate" by channels;
        "activate".
      sources: its maps: those that `compute` is given, then the results of its steps, are counted.
      shape: of its result.
      window: of a convolution or of pooling.
      activation: of `ACTIVATIONS`, "" for none; of a convolution, or to "activate".
    """

    kind: str
    sources: tuple[int, ...]
    shape: Shape
    window: Window | None = None
    activation: str = ""

    @property
    def numbers(self) -> tuple[Any, ...]:
        """It as a call carries it."""
        return dataclasses.astuple(self)

    @classmethod
    def read(cls, numbers: Sequence[Any]) -> "Step":
        """Returns a step of its `numbers`."""
        kind, sources, shape, window, activation = numbers
        return cls(kind, sources, shape, window and Window(*window), activation)


def _is_product(window: Window) -> bool:
    """Returns whether a convolution is a product of matrices, each image a row."""
    return window.image == window.kernel == (1, 1) == window.out and window.groups == 1


def pack(kernel: jax.Array, step: Step, images: int) -> jax.Array:
    """Returns the kernel of a convolution as `compute` takes it: opaque numbers, float32 [n].

    Args:
      kernel: float32 [kh, kw, C / groups, O].
      step: the convolution.
      images: how many will be taken at a time.
    """
    numbers = (images, step.numbers, kernel.shape)
    size = Place(_packed(*numbers)[1]).size
    return ffi.call(
        PACK_TARGET, numbers, kernel, result=jax.ShapeDtypeStruct((size // 4,), jnp.float32)
    )


def compute(
    maps: Sequence[jax.Array],
    steps: Sequence[Step],
    constants: Sequence[jax.Array],
    outputs: Sequence[int],
    images: int,
) -> list[jax.Array]:
    """Returns what some steps make of maps.

    Args:
      maps: float32 [B, H, W, C].
      steps: in their order.
      constants: of each convolution its kernel, of `pack`, and its bias [O].
      outputs: the steps whose results are returned.
      images: how many to take at a time, of which B is a multiple.
    """
    numbers = (images, len(maps), tuple(step.numbers for step in steps), tuple(outputs))
    batch = maps[0].shape[0]
    results = [jax.ShapeDtypeStruct((batch, *steps[i].shape), jnp.float32) for i in outputs]
    return ffi.call(COMPUTE_TARGET, numbers, *maps, *constants, result=results)


def _layouts(images: int, shapes: Sequence[Shape]) -> list[Any]:
    return [onednn.images((images, *shape)) for shape in shapes]


def _describe(step: Step, images: int, shapes: Sequence[Shape]) -> tuple[Any, list[int]]:
    """Returns what oneDNN calls a step, and its maps among the arguments.

    Args:
      step: what is done.
      images: with how many.
      shapes: of its maps.
    """
    if step.kind == "convolution":
        return _describe_convolution(step, images, shapes), [onednn.SRC, _ADDEND]
    *maps, out = _layouts(images, (*shapes, step.shape))
    if step.kind in _POOLING:
        assert step.window is not None
        window = onednn.pooling_geometry(step.window)
        name, what = "pooling_forward", (_INFERENCE, _POOLING[step.kind], *maps, out, *window)
    elif step.kind in _BINARY:
        name, what = "binary", (_BINARY[step.kind], *maps, out)
    elif step.kind == "activate":
        algorithm, *values = _ACTIVATIONS[step.activation]
        alpha, beta = map(ctypes.c_float, values)
        name, what = "eltwise_forward", (_INFERENCE, algorithm, *maps, out, alpha, beta)
    else:
        name, what = "concat", (out, len(maps), _CHANNELS, (ctypes.c_void_p * len(maps))(*maps))
    made = dnn.make(f"dnnl_{name}_primitive_desc_create", dnn.engine(), *what, dnn.attributes())
    if name == "concat":
        return made, [_MULTIPLE + i for i in range(len(maps))]
    return made, [onednn.SRC, _SRC_1]


def _describe_convolution(step: Step, images: int, shapes: Sequence[Shape]) -> Any:
    """Returns what oneDNN calls a convolution, or a product of matrices, where that is the same."""
    window, inputs, outputs = step.window, shapes[0][2], step.shape[2]
    assert window is not None
    if _is_product(window):
        x, *addends, out = (
            dnn.layout((images, shape[2]), _ROWS) for shape in (*shapes, step.shape)
        )
        name, kernel, geometry = "inner_product_forward", (outputs, inputs), ()
        what = (_INFERENCE, x)
    else:
        x, *addends, out = _layouts(images, (*shapes, step.shape))
        sizes = *window.kernel, inputs // window.groups, outputs
        kernel, _ = onednn.kernels(sizes, window.groups)
        geometry = onednn.geometry(window)
        name, what = "convolution_forward", (_INFERENCE, onednn.DIRECT, x)
    return dnn.make(
        f"dnnl_{name}_primitive_desc_create",
        *(dnn.engine(), *what, dnn.layout(kernel, onednn.ANY), dnn.layout((outputs,), _VECTOR)),
        *(out, *geometry, _attributes(step.activation, addends)),
    )


def _attributes(activation: str, addends: Sequence[Any]) -> ctypes.c_void_p:
    """Returns what else a convolution does: the layout of an addend, if there is one."""
    after = dnn.make("dnnl_post_ops_create")
    for addend in addends:
        dnn.call("dnnl_post_ops_append_binary", after, _BINARY["add"], addend)
    if activation:
        algorithm, *values = _ACTIVATIONS[activation]
        dnn.call("dnnl_post_ops_append_eltwise", after, algorithm, *map(ctypes.c_float, values))
    attributes = dnn.make_attributes()
    dnn.call("dnnl_primitive_attr_set_post_ops", attributes, after)
    return attributes


@functools.lru_cache(maxsize=4096)
def _packed(images: int, numbers: tuple[Any, ...], kernel: Shape) -> tuple[Any, Any]:
    """Returns the layouts of a kernel, before and after `pack`."""
    step = Step.read(numbers)
    window = step.window
    assert window is not None
    shapes = [(*window.image, kernel[2] * window.groups), step.shape][: len(step.sources)]
    described, _ = _describe(step, images, shapes)
    packed = dnn.layout_of(described, onednn.WEIGHTS_OF)
    if _is_product(window):
        inputs, outputs = kernel[2:]
        return dnn.strided((outputs, inputs), (1, outputs)), packed
    return onednn.kernels(kernel, window.groups)[1], packed


@functools.lru_cache(maxsize=4096)
def _packing(numbers: tuple[Any, ...]) -> Program:
    layout, packed = _packed(*numbers)
    kernel, blocks = Place(layout), Place(packed)
    return Program([kernel, blocks], [], [onednn.reorder(layout, packed, kernel, blocks)])


@functools.lru_cache(maxsize=4096)
def _program(numbers: tuple[Any, ...], *given: Shape) -> tuple[Program, list[int]]:
    """Returns steps for a few images at a time.

    Args:
      numbers: of `compute`.
      *given: the shapes of all that it is given, with all images.

    Returns:
      What runs, and how many bytes further each of its arrays is for the next images.
    """
    images, count, listed, outputs = numbers
    steps = [Step.read(each) for each in listed]
    shapes = [shape[1:] for shape in given[:count]] + [step.shape for step in steps]
    values = [Place(layout) for layout in _layouts(images, shapes)]
    constants, primitives = [], []
    for step, out in zip(steps, values[count:], strict=True):
        described, arguments = _describe(step, images, [shapes[i] for i in step.sources])
        sources = [values[i] for i in step.sources]
        places = dict(zip(arguments, sources, strict=False)) | {onednn.DST: out}
        if step.kind == "convolution":
            kernel = Place(dnn.layout_of(described, onednn.WEIGHTS_OF))
            places |= {onednn.WEIGHTS: kernel, _BIAS: Place(dnn.layout(step.shape[2:], _VECTOR))}
            constants += [places[onednn.WEIGHTS], places[_BIAS]]
        primitives.append(Primitive(described, places))
    moving = [*range(count), *(count + i for i in outputs)]
    further = [4 * images * math.prod(shapes[i]) for i in moving]
    further[count:count] = [0] * len(constants)
    places = [values[i] for i in moving]
    places[count:count] = constants
    own = [[values[i] for i in group] for group in _share(steps, shapes, outputs)]
    return Program(places, own, primitives), further


def _share(steps: Sequence[Step], shapes: Sequence[Shape], outputs: Sequence[int]) -> Any:
    """Returns which results lie in the same place, one after the other; none of the outputs.

    Args:
      steps: that are done.
      shapes: of the maps that are given, then of the results.
      outputs: of the steps.
    """
    count = len(shapes) - len(steps)
    last = {source: i for i, step in enumerate(steps) for source in step.sources}
    groups: list[list[int]] = []
    for i, step in enumerate(steps):
        if i in outputs:
            continue
        in_place = step.kind in ("add", "scale", "activate")

        def is_free(group: list[int], i: int = i, in_place: bool = in_place) -> bool:
            same = in_place and shapes[group[-1]] == shapes[count + i]
            return last[group[-1]] < i + same

        free = [group for group in groups if is_free(group)]
        if free:  # what was used last is in the cache
            max(free, key=lambda group: last[group[-1]]).append(count + i)
        else:
            groups.append([count + i])
    return groups


def _execute_pack(numbers: tuple[Any, ...], arguments: Any, results: Any) -> None:
    _packing(numbers)(arguments[0].address, results[0].address)


def _execute(numbers: tuple[Any, ...], arguments: Any, results: Any) -> None:
    program, further = _program(numbers, *(array.shape for array in arguments))
    addresses = [array.address for array in (*arguments, *results)]
    for part in range(arguments[0].shape[0] // numbers[0]):
        program(*(a + part * step for a, step in zip(addresses, further, strict=True)))


ffi.declare(PACK_TARGET, _execute_pack)
ffi.declare(COMPUTE_TARGET, _execute)
