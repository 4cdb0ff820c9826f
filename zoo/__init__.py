"""zoo: the published image models as pure functions of JAX, with their trainer.

Names load on first use, so that `import zoo` itself is free and drags nothing in.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.description import describe
    from zoo.folding import fold_batchnorm
    from zoo.inference import for_inference
    from zoo.models.efficientnet import compound_scaling
    from zoo.registry import create_model, list_models
    from zoo.weights.loading import load, load_weights, preprocessing
    from zoo.weights.saving import save_weights

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "compound_scaling",
    "create_model",
    "describe",
    "fold_batchnorm",
    "for_inference",
    "list_models",
    "load",
    "load_weights",
    "preprocessing",
    "save_weights",
]

_HOMES = {
    "compound_scaling": "zoo.models.efficientnet",
    "create_model": "zoo.registry",
    "describe": "zoo.description",
    "fold_batchnorm": "zoo.folding",
    "for_inference": "zoo.inference",
    "list_models": "zoo.registry",
    "load": "zoo.weights.loading",
    "load_weights": "zoo.weights.loading",
    "preprocessing": "zoo.weights.loading",
    "save_weights": "zoo.weights.saving",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
