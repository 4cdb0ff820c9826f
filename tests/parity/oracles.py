"""Networks that were not written here, filled with random weights.

Each oracle is a published implementation; `arrays` are its weights by their names there,
`__call__` runs it on NHWC images and returns the outputs of the layers asked for.
"""

from collections.abc import Callable, Sequence
import functools
import os
from typing import Any

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
        fan_in = np.prod(shape[:-1]) if "kernel" in kind else np.prod(shape[1:])
        if "kernel" in kind and len(shape) == 4 and shape[-1] == 1:
            fan_in = np.prod(shape[:2])  # Keras's depthwise ones are [H, W, C, 1]
        return rng.normal(size=shape) * np.sqrt(gain / fan_in)
    if kind in ("running_var", "moving_variance") or kind == "gamma":
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


def torchvision(name: str, gain: float = 2.0, **arguments: Any) -> TorchOracle:
    """Returns a classifier of torchvision."""
    models = import_torchvision().models
    return TorchOracle(models.get_model(name, weights=None, **arguments), gain)


def timm(name: str, gain: float = 2.0, **arguments: Any) -> TorchOracle:
    """Returns a classifier of timm."""
    import_torchvision()
    import timm as package

    return TorchOracle(package.create_model(name, pretrained=False, **arguments), gain)


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
        self.build = functools.partial(
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
        out = model([images], training=False)
        return {name: np.asarray(x) for name, x in out.items()}


def keras(name: str, image_size: int, **arguments: Any) -> KerasOracle:
    """Returns a network of keras.applications."""
    return KerasOracle(name, image_size, **arguments)
