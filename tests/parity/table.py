"""The README's model table, made of what the parity tests measured."""

from collections.abc import Iterable, Iterator

import zoo
from zoo.description import dimensions

Result = tuple[str, str, int, str, float]  # model, framework, parameters, precision, error
NAMES = {"torchvision": "torchvision", "timm": "timm", "keras": "Keras", "onnx": "ONNX"}
NAMES |= {"timm-tf": "timm's tf_", "efficientnet-pytorch": "efficientnet-pytorch"}
# Those whose other implementation is in the quick tests of tests/models.
ELSEWHERE = {"linear": "scikit-learn", "mlp": "scikit-learn"}
ELSEWHERE |= {"lenet5": "loops over SciPy", "lenet5_1998": "loops over SciPy"}


def model_table(results: Iterable[Result]) -> Iterator[str]:
    """Yields the table's lines: every registered model, compared or not."""
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for name, framework, _, precision, error in results:
        errors.setdefault(name, {}).setdefault(framework, {})[precision] = error
    yield "| model | parameters | GFLOPs | image | compared with (largest error) |"
    yield "|---|---:|---:|---|---|"
    for name in zoo.list_models():
        d = zoo.describe(name)
        compared = "; ".join(
            f"{NAMES[framework]} {figures(by_precision)}"
            for framework, by_precision in errors.get(name, {}).items()
        )
        yield (
            f"| `{name}` | {d.parameters:,} | {d.flops / 1e9:.3g} | {dimensions(d.image_shape)} "
            f"| {compared or ELSEWHERE.get(name, 'not in this run')} |"
        )


def figures(by_precision: dict[str, float]) -> str:
    """Returns e.g. "4e-07, 3e-15": float32 first, then float64 where it was measured."""
    return ", ".join(f"{by_precision[p]:.0e}" for p in sorted(by_precision))
