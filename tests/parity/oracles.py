"""Networks that were not written here, filled with random weights.

Each oracle is a published implementation; `arrays` are its weights by their names there,
`__call__` runs it on NHWC images and returns the outputs of the layers asked for.
"""

from collections.abc import Callable, Sequence
import functools
import importlib
import os
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

INSTALL = "install what tests/parity/oracles.txt lists, as .ci/run does"


def random_array(
    name: str, shape: Sequence[int], rng: np.random.Generator, gain: float = 2.0
) -> np.ndarray:
    """Returns weights under which a wrong epsilon or a swapped statistic shows.

    No scale is 1 and no mean is 0, as they would be at the start; kernels keep the signal's
    size through ReLU layers (He et al. 2015). With sums of many residual blocks it grows
    all the same; where gates then saturate, float32 loses every digit, in the oracle too.
    Such networks want a smaller gain.
    """
    kind = name.replace("/", ".").rsplit(".")[-1]
    if len(shape) > 1:
        if "kernel" not in kind:
            fan_in = np.prod(shape[1:])
        elif shape[-1] == 1:  # depthwise: [H, W, C, 1], each output sees one channel
            fan_in = np.prod(shape[:-2])
        else:
            fan_in = np.prod(shape[:-1])
        return rng.normal(size=shape) * np.sqrt(gain / fan_in)
    if kind in ("running_var", "moving_variance", "variance", "gamma"):
        return rng.uniform(0.6, 1.4, size=shape)
    return rng.normal(size=shape) * 0.2 + (kind == "weight")


class TorchOracle:
    """A torch module by name, in evaluation mode."""

    def __init__(self, module: Any, gain: float = 2.0):
        import torch

        self.module = module.eval()
        rng = np.random.default_rng(0)
        state = {}
        for name, tensor in module.state_dict().items():
            if tensor.ndim == 0:  # counters
                state[name] = tensor
            else:
                array = random_array(name, tensor.shape, rng, gain)
                state[name] = torch.from_numpy(array).float()
        module.load_state_dict(state)

    def double(self) -> None:
        """Compute in float64 from now on."""
        self.module.double()

    def save(self, folder: Path) -> list[Path]:
        """Writes the weights in every format that people publish; returns where."""
        from safetensors.torch import save_file
        import torch

        state = self.module.state_dict()
        save_file(state, folder / "x.safetensors")
        torch.save(state, folder / "x.pth")
        return [folder / "x.safetensors", folder / "x.pth"]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything the module saves."""
        return {name: t.numpy() for name, t in self.module.state_dict().items()}

    def __call__(self, images: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns outputs of named submodules as NHWC, and of the whole as "logits"."""
        import torch

        out: dict[str, np.ndarray] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                out[name] = to_nhwc(output)

            return hook

        hooks = [
            self.module.get_submodule(name).register_forward_hook(keep(name)) for name in layers
        ]
        dtype = next(self.module.parameters()).dtype
        with torch.no_grad():
            logits = self.module(torch.from_numpy(images.transpose(0, 3, 1, 2)).to(dtype))
        for hook in hooks:
            hook.remove()
        return out | {"logits": logits.numpy()}


def to_nhwc(tensor: Any) -> np.ndarray:
    """Returns a copy with channels last; the network may go on to work in place."""
    array = tensor.detach().numpy().copy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@functools.cache
def import_torchvision() -> Any:
    """Returns torchvision, whose compiled part may be made for another machine."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(INSTALL) from error
    # Its Python part wants two detection operators to exist; no classifier calls them.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_library"] = library  # it must stay alive
    import torchvision

    return torchvision


# Auxiliary heads, and the layer that each is on.
AUXILIARY = {
    "googlenet": {"aux1": "inception4a", "aux2": "inception4d"},
    "inception_v3": {"AuxLogits": "Mixed_6e"},
}


def torchvision(name: str, gain: float = 2.0, **arguments: Any) -> TorchOracle:
    """Returns a classifier of torchvision, with its auxiliary heads always on."""
    models = import_torchvision().models
    module = models.get_model(name, weights=None, **arguments)

    def run(head: str) -> Callable[..., None]:
        def hook(layer: Any, inputs: Any, output: Any) -> None:
            if not module.training:  # then it would be left out
                module.get_submodule(head)(output)

        return hook

    for head, layer in AUXILIARY.get(name, {}).items():
        module.get_submodule(layer).register_forward_hook(run(head))
    return TorchOracle(module, gain)


class TimmOracle(TorchOracle):
    """A classifier of timm, which writes repositories for the hub."""

    def save(self, folder: Path) -> list[Path]:
        """Writes a repository besides."""
        from timm.models import save_for_hf

        save_for_hf(self.module, folder / "repository", safe_serialization=True)
        return [*super().save(folder), folder / "repository"]


def timm(name: str, gain: float = 2.0, **arguments: Any) -> TorchOracle:
    """Returns a classifier of timm."""
    import_torchvision()
    import timm as package

    return TimmOracle(package.create_model(name, pretrained=False, **arguments), gain)


def efficientnet_pytorch(name: str, image_size: int, gain: float = 2.0) -> TorchOracle:
    """Returns a network of `efficientnet_pytorch`, or of its sister for Lite.

    They work out the padding when they are built, for images of one size.
    """
    package = "efficientnet_lite_pytorch" if "lite" in name else "efficientnet_pytorch"
    try:
        library = importlib.import_module(package)
    except ImportError as error:
        raise ImportError(INSTALL) from error
    return TorchOracle(library.EfficientNet.from_name(name, image_size=image_size), gain)


class KerasOracle:
    """A network of keras.applications on JAX, without its softmax."""

    def __init__(self, name: str, image_size: int, **arguments: Any):
        os.environ["KERAS_BACKEND"] = "jax"
        try:
            import keras
        except ImportError as error:
            raise ImportError(INSTALL) from error
        # Its promotion rules know no float64 outside TensorFlow: BatchNorm would be float32.
        from keras.src.backend.common import dtypes

        dtypes.BIT64_TO_BIT32_DTYPE.pop("float64", None)
        self.keras = keras
        self.compute_in("float32")
        self.network = functools.partial(
            getattr(keras.applications, name),
            weights=None,
            input_shape=(image_size, image_size, 3),
            classifier_activation=None,
            **arguments,
        )
        self.model = self.build()
        rng = np.random.default_rng(0)
        self.model.set_weights(
            [random_array(w.path, w.shape, rng).astype(w.dtype) for w in self.model.weights]
        )

    def build(self) -> Any:
        """Returns the network, all zeros.

        Keras draws weights one array at a time, each compiled for its shape, which takes
        twenty times as long as all the rest; nobody would see them.
        """
        add = self.keras.layers.Layer.add_weight

        def add_zeros(layer: Any, *args: Any, initializer: Any = None, **kwargs: Any) -> Any:
            return add(layer, *args, initializer=np.zeros, **kwargs)

        self.keras.utils.clear_session()  # layers without a name are numbered from 0 again
        with mock.patch.object(self.keras.layers.Layer, "add_weight", add_zeros):
            return self.network()

    def compute_in(self, dtype: str) -> None:
        """Sets what all of Keras computes in."""
        self.keras.config.set_floatx(dtype)
        self.keras.config.set_dtype_policy(dtype)

    def double(self) -> None:
        """Compute in float64 from now on (the weights are those of float32)."""
        weights = self.model.get_weights()
        self.compute_in("float64")
        self.model = self.build()
        self.model.set_weights(weights)

    def save(self, folder: Path) -> list[Path]:
        """Writes the weights in every format that Keras has or had; returns where."""
        paths = [folder / name for name in ("x.weights.h5", "x.h5", "x.keras")]
        self.model.save_weights(paths[0])
        for path in paths[1:]:
            self.model.save(path)
        return paths

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All weights as "layer/array"."""
        return {
            f"{layer.name}/{weight.name}": np.asarray(weight)
            for layer in self.model.layers
            for weight in layer.weights
        }

    def __call__(self, images: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns outputs of named layers, and of the whole as "logits"."""
        outputs = {name: self.model.get_layer(name).output for name in layers}
        entry = self.model.inputs
        for layer in self.model.layers:  # images come normalised, go in behind this
            if isinstance(layer, self.keras.layers.Normalization):
                entry = [layer.output]
        model = self.keras.Model(entry, outputs | {"logits": self.model.output})
        variables = model.trainable_variables, model.non_trainable_variables
        run = jax.jit(functools.partial(model.stateless_call, training=False))
        out, _ = run(*([v.value for v in part] for part in variables), [images])
        return jax.device_get(out)


def keras(name: str, image_size: int, **arguments: Any) -> KerasOracle:
    """Returns a network of keras.applications."""
    return KerasOracle(name, image_size, **arguments)


class OnnxOracle:
    """A graph that ships with the onnx package, stripped of its weights to be light.

    It takes one image of one size. Float32 is computed by onnxruntime, which has no
    convolution in float64; that is done by the reference evaluator, in NumPy.
    """

    def __init__(self, name: str, image_size: int = 224):
        try:
            import onnx as package
            import onnxruntime
        except ImportError as error:
            raise ImportError(INSTALL) from error
        folder = Path(package.__file__).parent / "backend/test/data/light"
        self.package = package
        onnxruntime.set_default_logger_severity(3)  # it warns of every unused shape
        self.session = onnxruntime.InferenceSession
        self.graph = package.load(folder / f"light_{name}.onnx")
        images = next(value for value in self.graph.graph.input if value.name == "data_0")
        for axis in (2, 3):
            images.type.tensor_type.shape.dim[axis].dim_value = image_size
        self.arrays = self.take_weights()

    def take_weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Makes every weight an input of the graph; returns random arrays for them.

        Light weights are constants of a given shape, small ones are initialisers.
        """
        graph, onnx = self.graph.graph, self.package
        shapes, fillers = {}, {}
        for tensor in graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                shapes[tensor.name] = tuple(tensor.dims)
            else:
                fillers[tensor.name] = onnx.numpy_helper.to_array(tensor)
        light = [node for node in graph.node if node.op_type == "ConstantOfShape"]
        shapes |= {node.output[0]: tuple(fillers[node.input[0]].tolist()) for node in light}
        for node in light:
            graph.node.remove(node)
        for part in (graph.initializer, graph.input):
            for entry in [entry for entry in part if entry.name in shapes]:
                part.remove(entry)
        kind = onnx.TensorProto.FLOAT
        graph.input.extend(
            onnx.helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()
        )
        rng = np.random.default_rng(seed)
        arrays = {}
        for name, shape in shapes.items():
            drawn = shape[2:] if shape[:2] == (1, 1) else shape  # dense ones are [1, 1, O, I]
            arrays[name] = random_array(name, drawn, rng).astype(np.float32).reshape(shape)
        return arrays

    def double(self) -> None:
        """Compute in float64 from now on."""
        from onnx.reference import ReferenceEvaluator

        ops: Any = [torch_lrn()]
        self.session = lambda graph, **_: ReferenceEvaluator(
            self.package.load_from_string(graph), new_ops=ops
        )
        self.arrays = {name: array.astype(np.float64) for name, array in self.arrays.items()}

    def __call__(self, images: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns named values of the graph as NHWC, and what its softmax takes as "logits"."""
        softmax = self.graph.graph.node[-1]
        assert softmax.op_type == "Softmax"
        names = [*layers, softmax.input[0]]
        model = self.package.ModelProto()
        model.CopyFrom(self.graph)
        del model.graph.output[:]
        model.graph.output.extend(self.package.ValueInfoProto(name=name) for name in names)
        session = self.session(model.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = [{"data_0": image[None].transpose(0, 3, 1, 2), **self.arrays} for image in images]
        values = [session.run(names, feed) for feed in feeds]
        out = [np.concatenate(value) for value in zip(*values, strict=True)]
        arrays = [x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for x in out]
        return dict(zip([*layers, "logits"], arrays, strict=True))


def torch_lrn() -> type:
    """Returns ONNX's LRN by torch; the evaluator's own loops over images, not channels."""
    from onnx.reference.op_run import OpRun
    import torch

    class LRN(OpRun):
        def _run(self, x: np.ndarray, **constants: float) -> tuple[np.ndarray]:
            order = (constants[name] for name in ("size", "alpha", "beta", "bias"))
            out = torch.nn.functional.local_response_norm(torch.from_numpy(x), *order)
            return (out.numpy(),)

    return LRN


def onnx(name: str, **arguments: Any) -> OnnxOracle:
    """Returns a network of the onnx package's test data."""
    return OnnxOracle(name, **arguments)
