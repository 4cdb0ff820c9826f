"""Files of weights as other frameworks write them, made without those frameworks."""

import functools
from pathlib import Path

from flax import traverse_util
import h5py
import jax
import numpy as np
from safetensors.numpy import save_file

import zoo
from zoo.weights.families import LAYOUTS
from zoo.weights.importing import array_shapes
from zoo.weights.layouts import array_names
from zoo.weights.tensors import Tensor, Tensors

SMALL = (64, 64, 3)


def random_variables(name: str, image_shape=SMALL, **fields):
    """Returns a model and random variables of it, variances positive, by path."""
    model = zoo.create_model(name, **fields)
    rng = np.random.default_rng(0)
    return model, {
        path: rng.uniform(0.5, 1.5, size=shape.shape).astype(np.float32)
        for path, shape in array_shapes(model, image_shape).items()
    }


def their_arrays(name: str, key: str, **fields) -> tuple[dict[str, np.ndarray], dict]:
    """Returns a framework's arrays by their names, and the same numbers by our paths."""
    layout = LAYOUTS[name][key]
    model, ours = random_variables(name, **{**layout.fields, **fields})
    names = array_names(traverse_util.unflatten_dict(ours), layout.rules(model), key)
    convert = to_keras if key == "keras" else to_torch
    arrays = {names[path]: convert(path, array) for path, array in ours.items()}
    if key != "keras":
        norms = [n.removesuffix("running_var") for n in arrays if n.endswith("running_var")]
        arrays |= {f"{norm}num_batches_tracked": np.asarray(7) for norm in norms}
    return arrays, ours


def to_torch(path, array: np.ndarray) -> np.ndarray:
    """HWIO to OIHW, [I, O] to [O, I]."""
    del path
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
    return np.ascontiguousarray(array.transpose(axes))


def to_keras(path, array: np.ndarray) -> np.ndarray:
    """Keras has our order of axes but for depthwise kernels, [H, W, C, 1]."""
    depthwise = array.ndim == 4 and array.shape[2] == 1 and "depthwise" in "/".join(path)
    return array.transpose(0, 1, 3, 2) if depthwise else array


def write_legacy_h5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes "layer/array" arrays as Keras did before version 3."""
    layers: dict[str, list[str]] = {}
    order = ["depthwise_kernel", "pointwise_kernel", "kernel", "bias"]
    order += ["gamma", "beta", "moving_mean", "moving_variance"]
    for name in sorted(arrays, key=lambda n: (n.split("/")[0], order.index(n.split("/")[1]))):
        layers.setdefault(name.split("/")[0], []).append(name)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, names in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in names]
            for name in names:
                group[f"{name}:0"] = arrays[name]


def assert_filled(variables, expected) -> None:
    """Fails unless variables hold exactly the expected arrays by path."""
    found = {tuple(k.key for k in path): v for path, v in jax.tree.leaves_with_path(variables)}
    assert set(found) == set(expected)
    for path, array in expected.items():
        np.testing.assert_array_equal(np.asarray(found[path]), array, err_msg=str(path))


def in_memory(arrays) -> Tensors:
    """Returns arrays as if they were in a file; reading copies, so that nobody else's change."""
    return {
        name: Tensor(array.shape, array.dtype.name, functools.partial(np.array, array))
        for name, array in arrays.items()
    }


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes with the library itself, not with ours."""
    save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
    return path
