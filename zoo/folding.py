"""BatchNorm folded into the convolutions in front of it: the same network, for inference only.

At inference BatchNorm is y = s x + t with constant s = gamma / sqrt(var + epsilon) and
t = beta - s mean (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 2). Where x
is the output of a convolution and nothing else reads it, s goes into the kernel and t into the
bias, and the layer is gone. Elsewhere, as in pre-activation, s and t remain.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
from flax.core import FrozenDict
import jax
from jax.extend.core import Primitive
import jax.numpy as jnp
import numpy as np

from zoo.errors import WeightsError
from zoo.layers import Classifier, Conv, Endpoints
from zoo.weights.importing import array_shapes, listed

# Layers with a kernel [..., C], `use_bias`, `dtype` and `param_dtype`, and layers with `epsilon`,
# `dtype`, `param_dtype`, statistics `mean` and `var` and, if they like, parameters `scale` and
# `bias`. Nothing else about them matters here; BatchNorm behind anything else is not folded.
CONVOLUTIONS = (Conv,)
NORMS = (nn.BatchNorm,)


class FoldedClassifier(Classifier, kw_only=True):
    """A network without BatchNorm's statistics, made by `fold_batchnorm`.

    Its parameters are those of `model` by the same names, with these differences: a folded
    convolution has a bias, a folded BatchNorm has nothing, and any other BatchNorm has the
    `scale` and `bias` [C] of one multiply-add.

    Attributes:
      model: the network that was folded.
      folds: by the path of a convolution, that of the BatchNorm that went into it.
    """

    model: Classifier
    folds: Mapping[str, str]

    @property
    def smallest_image(self) -> int:
        """Height and width below which a map would be empty."""
        return self.model.smallest_image

    def setup(self) -> None:
        nn.share_scope(self, self.model)  # parameters keep their paths

    def endpoints(self, images: jax.Array, *, train: bool) -> Endpoints:
        """Returns every named feature map of the network; `train` must be False.

        Raises:
          ValueError: if `train` is True, or if the network depends on the size of its images
            in such a way that for these it is not the one that was folded.
        """
        if train:
            raise ValueError(
                "train=True: a network with folded BatchNorm has no statistics to train with; "
                "train the one that fold_batchnorm was given, then fold it again"
            )
        depth, norms = len(self.path), {*self.folds.values()}
        waiting: dict[str, jax.Array] = {}  # outputs of convolutions, by their BatchNorm

        def run(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            layer, path = context.module, "/".join(context.module.path[depth:])
            if context.method_name != "__call__" or not isinstance(layer, CONVOLUTIONS + NORMS):
                return call(*args, **kwargs)
            if isinstance(layer, CONVOLUTIONS):
                x = call(*args, **kwargs)
                if path in self.folds:
                    x = waiting[self.folds[path]] = _add_bias(layer, x)
                return x
            if path not in norms:
                return _multiply_add(layer, args[0])
            if waiting.pop(path, None) is not args[0]:
                raise self._differs(images, path)
            return args[0]

        with nn.intercept_methods(run):
            out = self.model.endpoints(images, train=False)
        if waiting:
            raise self._differs(images, *waiting)
        return out

    def _differs(self, images: jax.Array, *norms: str) -> ValueError:
        least = self.smallest_image
        return ValueError(
            f"on images {list(images.shape)} {type(self.model).__name__} does not have "
            f"{', '.join(norms)} where it has it on images of {least}x{least} pixels, by which it "
            "was folded; use the network as it was"
        )


def _add_bias(conv: Any, x: jax.Array) -> jax.Array:
    """Returns a convolution's output with its bias, which is new unless `use_bias`.

    Added in the type of the output, as `Conv` adds its own: cuDNN can do both in one kernel.
    """
    if conv.use_bias:
        return x
    bias = conv.param("bias", nn.initializers.zeros, (x.shape[-1],), conv.param_dtype)
    return x + bias.astype(x.dtype)


def _multiply_add(norm: Any, x: jax.Array) -> jax.Array:
    """Returns what BatchNorm does at inference, computed in float32 at least."""
    shape = (x.shape[-1],)
    scale = norm.param("scale", nn.initializers.ones, shape, norm.param_dtype)
    bias = norm.param("bias", nn.initializers.zeros, shape, norm.param_dtype)
    x = x * scale + bias
    return x.astype(norm.dtype or x.dtype)


def fold_batchnorm(model: Classifier, variables: Any) -> tuple[Classifier, Any]:
    """Returns the same network for inference, its BatchNorm folded into the convolutions.

    Logits and endpoints are the same up to rounding. The arithmetic is done once, in float64, on
    the host; each new array has the type of the kernel or the statistics that it is made of.

    Args:
      model: of `zoo.create_model` or any other `Classifier`.
      variables: of that model, {"params": ..., "batch_stats": ...}.

    Returns:
      (folded_model, {"params": ...}), see `FoldedClassifier`. A model without BatchNorm, and one
      that is already folded, come back as they are.

    Raises:
      WeightsError: (a ValueError) if the variables are not the model's.

    Example:
      >>> import zoo
      >>> model = zoo.create_model("resnet20")
      >>> images = jnp.ones((2, 32, 32, 3))
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> folded, weights = fold_batchnorm(model, variables)
      >>> sorted(weights["params"]["stage1_block1"])  # there was bn1 and bn2
      ['conv1', 'conv2']
      >>> logits = model.apply(variables, images, train=False)
      >>> bool(jnp.allclose(folded.apply(weights, images, train=False), logits, atol=1e-4))
      True
    """
    if isinstance(model, FoldedClassifier):
        return model, variables
    layers = _find_layers(model)
    if not layers.epsilons:
        return model, variables
    given: Any = traverse_util.flatten_dict(dict(variables), sep="/")
    _check(model, given, layers.first)
    params = {path: array for path, array in given.items() if path.startswith("params/")}
    convs = {norm: conv for conv, norm in layers.folds.items()}
    for norm, epsilon in layers.epsilons.items():
        names = {name: f"params/{norm}/{name}" for name in ("scale", "bias")}
        learned = {name: params.pop(path) for name, path in names.items() if path in params}
        statistics = {name: given[f"batch_stats/{norm}/{name}"] for name in ("mean", "var")}
        scale, shift = _scale_and_shift(**statistics, **learned, epsilon=epsilon)
        if norm not in convs:
            dtype = statistics["mean"].dtype
            params |= {names["scale"]: _array(scale, dtype), names["bias"]: _array(shift, dtype)}
        else:
            kernel, bias = (f"params/{convs[norm]}/{name}" for name in ("kernel", "bias"))
            dtype = params[kernel].dtype
            shift += scale * _exact(params.get(bias, 0))
            params[kernel] = _array(_exact(params[kernel]) * scale, dtype)
            params[bias] = _array(shift, dtype)
    folded = FoldedClassifier(
        model=model,
        folds=FrozenDict(layers.folds),  # which can be hashed, as a model should
        num_classes=model.num_classes,
        dtype=model.dtype,
        param_dtype=model.param_dtype,
    )
    return folded, traverse_util.unflatten_dict(params, sep="/")


def _exact(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def _array(values: np.ndarray, dtype: Any) -> jax.Array:
    return jnp.asarray(values.astype(dtype))


def _scale_and_shift(
    *, mean: Any, var: Any, scale: Any = 1, bias: Any = 0, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns s and t of s x + t, float64 [C]; BatchNorm may have neither scale nor bias."""
    factor = _exact(scale) / np.sqrt(_exact(var) + epsilon)
    return factor, _exact(bias) - factor * _exact(mean)


def _check(model: Classifier, given: Mapping[str, Any], first: str) -> None:
    """Refuses variables that are not the model's, whatever channels its images have."""
    theirs = {path: np.shape(array) for path, array in given.items()}
    kernel = theirs.get(f"params/{first}/kernel", ())
    size, channels = model.smallest_image, kernel[-2] if len(kernel) > 1 else 3
    wanted = array_shapes(model, (size, size, channels))
    ours = {"/".join(path): shape.shape for path, shape in wanted.items()}
    if ours != theirs:
        differing = sorted(n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n))
        raise WeightsError(
            f"the variables are not those of this {type(model).__name__}: {listed(differing)}; "
            'give {"params": ..., "batch_stats": ...} of its init or of zoo.load'
        )


class _Layers(NamedTuple):
    """What a network has to fold.

    Attributes:
      first: the path of the first layer with a kernel, which sees the images; "" for none.
      epsilons: of every BatchNorm, by path.
      folds: by the path of a convolution, that of the BatchNorm that can go into it.
    """

    first: str
    epsilons: Mapping[str, float]
    folds: Mapping[str, str]


# Does nothing but show, in the traced program, where a convolution ends and BatchNorm begins.
_mark = Primitive("mark")
_mark.def_abstract_eval(lambda x, **_: x)


def _find_layers(model: Classifier) -> _Layers:
    """Traces a network to see which BatchNorm reads which convolution; nothing is computed.

    This does not depend on the channels of the images: they have one, which every network takes.
    """
    kernels: list[str] = []
    epsilons: dict[str, float] = {}

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer, path = context.module, "/".join(context.module.path)
        called = context.method_name == "__call__"
        if called and isinstance(layer, NORMS):
            epsilons[path] = layer.epsilon
            x, *rest = args
            # It makes its parameters, and reads nothing of the network: only the mark does.
            dtype = call(jnp.zeros_like(x), *rest, **kwargs).dtype
            return _mark.bind(x, kind="norm", path=path, dtype=dtype).astype(dtype)
        out = call(*args, **kwargs)
        if layer.has_variable("params", "kernel"):
            kernels.append(path)
        if called and isinstance(layer, CONVOLUTIONS):
            return _mark.bind(out, kind="conv", path=path, dtype=out.dtype)
        return out

    def trace(images: jax.Array) -> Any:
        with nn.intercept_methods(watch):
            key = jax.random.key(0)
            return model.init_with_output(key, images, train=False, method="endpoints")

    size = model.smallest_image
    program = jax.make_jaxpr(trace)(jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32))
    return _Layers(next(iter(kernels), ""), epsilons, _find_folds(program.jaxpr))


def _find_folds(program: Any) -> dict[str, str]:
    """Returns by convolution the BatchNorm that alone reads it, both being used just once."""
    uses: Counter[str] = Counter()
    folds: dict[str, str] = {}
    for jaxpr in _parts(program):
        readers: defaultdict[int, list[Any]] = defaultdict(list)
        for equation in [*jaxpr.eqns, None]:
            read = jaxpr.outvars if equation is None else equation.invars
            for variable in read:
                readers[id(variable)].append(equation)
        for mark in filter(_is_mark, jaxpr.eqns):
            uses[mark.params["path"]] += 1
            found = readers[id(mark.outvars[0])]
            if mark.params["kind"] == "conv" and len(found) == 1 and _is_mark(found[0]):
                reader = found[0].params
                if reader["kind"] == "norm" and reader["dtype"] == mark.params["dtype"]:
                    folds[mark.params["path"]] = reader["path"]
    return {conv: norm for conv, norm in folds.items() if uses[conv] == uses[norm] == 1}


def _is_mark(equation: Any) -> bool:
    return equation is not None and equation.primitive is _mark


def _parts(program: Any) -> Iterator[Any]:
    """Yields a traced program and those inside it, such as the bodies of `nn.remat`."""
    yield program
    for equation in program.eqns:
        for value in jax.tree.leaves([*equation.params.values()], is_leaf=_is_program):
            if _is_program(value):
                yield from _parts(getattr(value, "jaxpr", value))


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")
