"""How frameworks name and store arrays, and how to read them into a model's variables."""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any, NamedTuple

from flax import traverse_util
import numpy as np

Rules = Sequence[tuple[str, str | Callable[..., str]]]

COUNTERS = (r".*\.num_batches_tracked",)  # of torch, which are not weights


class Layout(NamedTuple):
    """How one framework writes the weights of one of our models.

    Attributes:
      published: the framework's own name of the network.
      rules: given the model, its (pattern, name) pairs, see `rename`.
      fields: of our model, where the framework's network differs from our default.
      unused: patterns of array names that are not weights, such as counters.
    """

    published: str
    rules: Callable[[Any], Rules]
    fields: Mapping[str, Any] = {}
    unused: tuple[str, ...] = ()


def rename(path: str, rules: Rules) -> str:
    r"""Returns a framework's name of our module.

    The first pattern that matches the whole path decides. What it maps to is a template
    (`\1` is the first group) or a function of the groups, those of digits as integers.

    Raises:
      KeyError: if no pattern matches.

    Example:
      >>> rules = [
      ...     (r"head", "fc"),
      ...     (r"stage(\d)_block(\d+)/(conv\d)", lambda s, b, c: f"layer{s}.{b - 1}.{c}"),
      ... ]
      >>> rename("stage1_block3/conv2", rules)
      'layer1.2.conv2'
    """
    for pattern, name in rules:
        match = re.fullmatch(pattern, path)
        if match and isinstance(name, str):
            return match.expand(name)
        if match and callable(name):
            return name(*(int(g) if g and g.isdigit() else g for g in match.groups()))
    raise KeyError(f"no rule names our module {path!r}")


def torch_name(module: str, leaf: str, normalises: bool) -> str:
    """Returns `module.weight` and the like; torch calls scales and kernels alike."""
    del normalises
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return f"{module}.{leaves.get(leaf, leaf)}"


def keras_name(module: str, leaf: str, normalises: bool) -> str:
    """Returns `layer/kernel` and the like.

    A rule may name a layer with several kernels as `layer:depthwise`.
    """
    layer, _, part = module.partition(":")
    leaves = {"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}
    if normalises:
        leaves["bias"] = "beta"
    if part:
        leaves["kernel"] = f"{part}_kernel"
    return f"{layer}/{leaves.get(leaf, leaf)}"


def onnx_name(module: str, leaf: str, normalises: bool) -> str:
    """Returns `module_w_0` or `module_b_0`, as Caffe2's exporter wrote them."""
    del normalises
    return f"{module}_{'w' if leaf == 'kernel' else 'b'}_0"


def from_torch(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array of torch (or ONNX) in our order of axes.

    Kernels are OIHW there and HWIO here, dense ones [O, I] and [I, O]. A dense kernel
    behind flattened maps [C, H, W] becomes the convolution [H, W, C, O] that it is, and a
    convolution with one position the dense kernel that it is.

    Raises:
      ValueError: if the shapes do not agree.
    """
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        theirs, axes = (outputs, inputs, height, width), (2, 3, 1, 0)
        alike = [(outputs, inputs * height * width)]
    else:
        theirs, axes = shape[::-1], tuple(range(len(shape)))[::-1]
        alike = [(*theirs, 1, 1), (1, 1, *theirs)]  # the latter is Caffe's dense kernel
    return _reshaped(array, theirs, alike).transpose(axes)


def from_keras(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array of Keras, whose order of axes is ours.

    Depthwise kernels are [H, W, C, M] there and [H, W, 1, C M] here. Dense kernels and
    convolutions that are the same function become each other, as in `from_torch`.

    Raises:
      ValueError: if the shapes do not agree.
    """
    alike: list[tuple[int, ...]] = [(1, 1, *shape)]
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        alike = [(height * width * inputs, outputs)]
        if inputs == 1:
            alike.append((height, width, outputs, 1))
    return _reshaped(array, shape, alike)


def as_is(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array of our own, which has our shape.

    Raises:
      ValueError: if it has not.
    """
    return _reshaped(array, shape, ())


def _reshaped(
    array: np.ndarray, shape: tuple[int, ...], alike: Sequence[tuple[int, ...]]
) -> np.ndarray:
    """Returns an array in a shape that it has, or has by another name."""
    if array.shape != shape and array.shape not in alike:
        raise ValueError(f"shape {list(array.shape)}, expected {list(shape)}")
    return array.reshape(shape)


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns a first kernel [H, W, C, O] for images with another number of channels.

    For one channel the kernel is summed: gray images then give what they gave as equal
    RGB. For others it is repeated and scaled by C / channels, so that sums keep their size.

    Example:
      >>> rgb = np.ones((3, 3, 3, 8))
      >>> adapt_channels(rgb, 1)[0, 0, :, 0], adapt_channels(rgb, 4)[0, 0, :, 0]
      (array([3.]), array([0.75, 0.75, 0.75, 0.75]))
    """
    given = kernel.shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % given] * (given / channels)


class Framework(NamedTuple):
    """A framework's habits: the name of an array, and the order of its axes."""

    name: Callable[[str, str, bool], str]
    array: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


# By what a layout is called. timm has two networks with the same arrays for some models: its
# own, and those called tf_, which pad and normalise as TensorFlow does.
FRAMEWORKS = {
    "torchvision": Framework(torch_name, from_torch),
    "timm": Framework(torch_name, from_torch),
    "timm-tf": Framework(torch_name, from_torch),
    "efficientnet-pytorch": Framework(torch_name, from_torch),
    "onnx": Framework(onnx_name, from_torch),
    "keras": Framework(keras_name, from_keras),
    "zoo": Framework(lambda module, leaf, _: f"{module}/{leaf}", as_is),
}


def array_names(variables: Any, rules: Rules, framework: str) -> dict[tuple[str, ...], str]:
    """Returns the framework's name of each of our arrays, by its path in the tree.

    Args:
      variables: a model's, or their shapes.
      rules: of the model's `Layout`.
      framework: one of `FRAMEWORKS`.

    Raises:
      KeyError: if a module has no rule.
      ValueError: if two of our arrays would be the same one of theirs.
    """
    leaves = flat(variables)
    normalising = {path[1:-1] for path in leaves if path[0] == "batch_stats"}
    name = FRAMEWORKS[framework].name
    names = {
        path: name(rename("/".join(path[1:-1]), rules), path[-1], path[1:-1] in normalising)
        for path in leaves
    }
    if len(set(names.values())) != len(names):
        seen: set[str] = set()
        twice = sorted({n for n in names.values() if n in seen or seen.add(n)})
        raise ValueError(f"several of our arrays are called {twice[:5]} in {framework}")
    return names


def flat(tree: Any) -> dict[tuple[str, ...], Any]:
    """Returns the leaves of a tree of variables by path."""
    leaves: Any = traverse_util.flatten_dict(tree)
    return leaves
