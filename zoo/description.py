"""What a network consists of and costs, found by tracing: nothing is computed or allocated."""

from collections.abc import Iterator, Mapping
import dataclasses
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from zoo.registry import create_model, find_model, registered_name

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer that has parameters.

    Attributes:
      name: its path in the parameter tree.
      kind: its class.
      output: its output's shape, without the batch.
      parameters: that train.
      macs: multiply-adds for one image.
      activations: numbers it puts out, if it multiplies; 0 for normalisation.
    """

    name: str
    kind: str
    output: Shape
    parameters: int
    macs: int
    activations: int


@dataclasses.dataclass(frozen=True)
class Description:
    """A model in figures; `str()` prints them as a table.

    Attributes:
      name: as registered.
      image_shape: [H, W, C] for which the costs hold.
      parameters: that train, auxiliary heads included.
      statistics: that do not train (BatchNorm's averages).
      macs: multiply-adds of convolutions and dense layers for one image, as papers count;
        auxiliary heads, which run in training only, left out.
      activations: numbers that those layers put out.
      endpoints: shapes by name, without the batch.
      layers: in the order in which they run.
    """

    name: str
    image_shape: Shape
    parameters: int
    statistics: int
    macs: int
    activations: int
    endpoints: Mapping[str, Any]
    layers: tuple[LayerRow, ...]

    @property
    def flops(self) -> int:
        """Floating-point operations for one image: a multiply-add is two."""
        return 2 * self.macs

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.name} on images {dimensions(self.image_shape)}"
        yield ""
        width = max(map(len, ["layer", *(row.name for row in self.layers)]))
        yield f"{'layer':{width}}  {'kind':12} {'output':>14} {'parameters':>13} {'MACs':>16}"
        for row in self.layers:
            yield (
                f"{row.name:{width}}  {row.kind:12} {dimensions(row.output):>14} "
                f"{row.parameters:13,} {row.macs:16,}"
            )
        yield ""
        for name, shapes in self.endpoints.items():
            yield f"endpoint {name}: {' and '.join(map(dimensions, shapes))}"
        yield ""
        yield f"parameters   {self.parameters:,}"
        yield f"statistics   {self.statistics:,} (BatchNorm's averages; they do not train)"
        yield f"FLOPs        {self.flops:,} per image = MACs x 2, of convolutions and dense layers"
        yield f"activations  {self.activations:,} per image, outputs of the same layers"

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as plain data, for JSON."""
        return dataclasses.asdict(self) | {"flops": self.flops}


def dimensions(shape: Shape) -> str:
    """Returns e.g. "224x224x3".

    Example:
      >>> dimensions((224, 224, 3))
      '224x224x3'
    """
    return "x".join(map(str, shape))


def layer_table(
    module: nn.Module, shape: Shape, *, method: str = "__call__", **call: Any
) -> tuple[list[LayerRow], Any, Any]:
    """Traces a module on one input and returns its layers, its output and its variables.

    A kernel is used once for each output position, so a layer's multiply-adds are the size
    of its kernel times the positions of its output. Counts follow from the shapes, and so
    do not depend on how the compiler computes a convolution.

    Args:
      module: any linen module.
      shape: of its input, the batch not included.
      method: to call.
      **call: its further arguments.

    Returns:
      (rows, shapes of the output, shapes of the variables)

    Example: a 3x3 convolution with 5 outputs, plain and depthwise-separable.
      >>> from zoo.layers import Conv
      >>> plain = Conv(5, 3, padding="VALID")
      >>> separable = nn.Sequential([Conv(3, 3, groups=3, padding="VALID"), Conv(5, 1)])
      >>> [sum(row.macs for row in layer_table(m, (6, 6, 3))[0]) for m in (plain, separable)]
      [2160, 672]
    """
    rows: list[LayerRow] = []

    def watch(next_method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_method(*args, **kwargs)
        own = {
            leaf: value
            for leaf, value in context.module.variables.get("params", {}).items()
            if not isinstance(value, Mapping)
        }
        if own and context.method_name == "__call__":
            kernel = own.get("kernel")
            macs = kernel.size * math.prod(out.shape[1:-1]) if kernel is not None else 0
            rows.append(
                LayerRow(
                    "/".join(context.module.path),
                    type(context.module).__name__,
                    tuple(out.shape[1:]),
                    sum(value.size for value in own.values()),
                    macs,
                    math.prod(out.shape[1:]) if macs else 0,
                )
            )
        return out

    def trace(x: jax.Array) -> Any:
        with nn.intercept_methods(watch):
            return module.init_with_output(jax.random.key(0), x, method=method, **call)

    out, variables = jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return rows, out, variables


def describe(
    name: str, *, image_shape: tuple[int, int, int] | None = None, **fields: Any
) -> Description:
    """Returns parameters, costs, endpoints and layers of a registered model.

    Args:
      name: see `zoo.list_models`.
      image_shape: [H, W, C]; by default what the model was published for.
      **fields: of the model, see `zoo.create_model`.

    Raises:
      ValueError: for an unknown name or field, or images that the model cannot take.

    Example:
      >>> described = describe("resnet50")
      >>> f"{described.parameters:,} parameters, {described.macs / 1e9:.2f} billion MACs"
      '25,557,032 parameters, 4.09 billion MACs'
    """
    shape = image_shape or find_model(name).image_shape
    model = create_model(name, **fields)
    rows, out, variables = layer_table(model, shape, method="endpoints", train=False)
    runs = [row for row in rows if not row.name.startswith("aux")]
    return Description(
        name=registered_name(name),
        image_shape=shape,
        parameters=_size(variables.get("params", {})),
        statistics=_size(variables.get("batch_stats", {})),
        macs=sum(row.macs for row in runs),
        activations=sum(row.activations for row in runs),
        endpoints={
            key: [tuple(x.shape[1:]) for x in jax.tree.leaves(out[key])]
            for key in sorted(out, key=_natural)
        },
        layers=tuple(rows),
    )


def _natural(endpoint: str) -> tuple[int, bool, str]:
    """Sorts strides by number, and what comes after them behind them."""
    stride = endpoint.removeprefix("stride")
    return (int(stride) if stride.isdigit() else 10_000, endpoint == "logits", endpoint)


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
