"""Filling a model with the tensors of a file: every one of them once, or an error."""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import itertools
import re
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import WeightsError
from zoo.layers import Classifier
from zoo.weights.keras_files import keras_positions
from zoo.weights.layouts import FRAMEWORKS, Layout, adapt_channels, array_names, flat
from zoo.weights.tensors import Tensor, Tensors


class Misfit(WeightsError):
    """A file is of another network than the one asked for."""


Path = tuple[str, ...]  # of an array in the tree of variables
Shapes = Mapping[Path, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of every tensor of a file, and where every array of the model came from.

    Attributes:
      source: where the file came from, with commit and digest where they are known.
      model: our name of the network.
      layout: whose names and orders of axes the file has.
      used: their name by ours; each of theirs once, each of ours once.
      unused: theirs that the model has no use for, with the reason.
      new: ours that the file does not fill, initialised at random: a head of another size.
      notes: what else there is to know, such as what had to be assumed.
    """

    source: str
    model: str
    layout: str
    used: Mapping[str, str]
    unused: Mapping[str, str]
    new: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons: dict[str, list[str]] = {}
        for name, reason in self.unused.items():
            reasons.setdefault(reason, []).append(name)
        lines = [
            f"{self.model} from {self.source}, layout {self.layout}",
            f"filled  {len(self.used)} arrays, each from a tensor of its own",
            *(f"unused  {listed(names)}: {reason}" for reason, names in reasons.items()),
        ]
        if self.new:
            lines.append(f"new     {listed(self.new)}: initialised at random")
        return "\n".join([*lines, *(f"note    {note}" for note in self.notes)])

    def table(self) -> str:
        """Returns a line for each array, ours and theirs."""
        rows = [*self.used.items(), *((name, "(new)") for name in self.new)]
        width = max(len(ours) for ours, _ in rows)
        return "\n".join(f"{ours:{width}}  {theirs}" for ours, theirs in rows)


class Request(NamedTuple):
    """The network wanted.

    Attributes:
      name: ours, as registered.
      create: makes the model of given fields.
      fields: that were asked for; with `num_classes` among them a head of another size is
        left behind, without it the head has to be that of the file.
      num_classes: of the head that the file is said to have.
      image_shape: [H, W, C] that the file's network is for, to trace it with.
    """

    name: str
    create: Callable[..., Classifier]
    fields: Mapping[str, Any]
    num_classes: int | None
    image_shape: tuple[int, int, int]


class Match(NamedTuple):
    """A model, and for each of its arrays the tensor that it takes from a file.

    Attributes:
      key: of the layout in `LAYOUTS[name]`.
      model: ours, with the layout's fields and the head wanted.
      shapes: of all its arrays.
      names: theirs, of the arrays that the file has to fill.
      dropped: theirs, of a head that was asked to be left behind.
      missing: theirs, that are not in the file.
      unknown: theirs, that the model has no place for.
      classes: of the head in the file; None if it has none.
    """

    key: str
    model: Classifier
    shapes: Shapes
    names: Mapping[Path, str]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    classes: int | None

    @property
    def fits(self) -> bool:
        """Whether nothing is missing and nothing unknown."""
        return not self.missing and not self.unknown


def listed(names: Iterable[str], most: int = 3) -> str:
    """Returns the first few names and how many there are.

    Example:
      >>> listed(["a", "b", "c", "d", "e"]), listed([])
      ('5 (a, b, c, …)', 'none')
    """
    names = list(names)
    if not names:
        return "none"
    return f"{len(names)} ({', '.join(names[:most])}{', …' if len(names) > most else ''})"


def array_shapes(
    model: Classifier, image_shape: tuple[int, int, int], most: int | None = None
) -> Shapes:
    """Returns the shapes of a model's arrays; nothing is computed.

    Args:
      model: of the zoo.
      image_shape: [H, W, C].
      most: layers to trace before giving up: a file may say that it is of any network.

    Raises:
      WeightsError: if there are more.
    """
    calls = itertools.count()

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        del context
        if most is not None and next(calls) > most:
            raise WeightsError(f"the network has over {most:,} layers, more than the file's arrays")
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(watch):
        return flat(jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images))


def is_head(path: Path) -> bool:
    """Whether an array belongs to a layer that gives class logits, auxiliary ones included."""
    return re.fullmatch(r"(aux\d_)?head", path[1]) is not None


def names_in_file(shapes: Shapes, model: Classifier, key: str, layout: Layout) -> dict[Path, str]:
    """Returns what a model's arrays are called in a file of a layout."""
    if key == "zoo":
        return {path: "/".join(path) for path in shapes}
    names = array_names(traverse_util.unflatten_dict(shapes), layout.rules(model), key)
    if key == "keras":
        positions = keras_positions(names.values())
        names = {path: positions[name] for path, name in names.items()}
    return names


def match(tensors: Tensors, wanted: Request, key: str, layout: Layout) -> Match:
    """Returns which tensor goes where if the file has a given layout."""
    asked = "num_classes" in wanted.fields
    fields = {**layout.fields, "num_classes": wanted.num_classes, **wanted.fields}
    model = wanted.create(**fields)
    whole = model if model.num_classes else wanted.create(**{**fields, "num_classes": 1})
    most = 10 * len(tensors) + 1000
    all_shapes = array_shapes(whole, wanted.image_shape, most)
    shapes = all_shapes if model is whole else array_shapes(model, wanted.image_shape, most)
    names = names_in_file(all_shapes, whole, key, layout)

    bias = tensors.get(names.get(("params", "head", "bias"), ""))
    classes = bias.shape[-1] if bias and bias.shape else None
    new_head = asked and classes != model.num_classes
    filled = {path: names[path] for path in shapes if not (new_head and is_head(path))}
    dropped = {name for path, name in names.items() if path not in filled} & set(tensors)
    left = set(tensors) - set(filled.values()) - dropped
    unknown = [n for n in left if not any(re.fullmatch(p, n) for p in layout.unused)]
    return Match(
        key,
        model,
        shapes,
        filled,
        tuple(sorted(dropped)),
        missing=tuple(sorted(set(filled.values()) - set(tensors))),
        unknown=tuple(sorted(unknown)),
        classes=classes,
    )


def best_match(
    tensors: Tensors, wanted: Request, layouts: Mapping[str, Layout], source: str
) -> Match:
    """Returns the one layout that fits a file.

    Raises:
      WeightsError: if none fits, or several do that are different networks.
    """
    matches = [match(tensors, wanted, key, layout) for key, layout in layouts.items()]
    fitting = [m for m in matches if m.fits]
    if not fitting:
        closest = min(matches, key=lambda m: len(m.missing) + len(m.unknown))
        raise Misfit(_misfit(closest, wanted, source))
    most = max(len(m.names) for m in fitting)
    best, *others = [m for m in fitting if len(m.names) == most]
    for other in others:
        if other.model != best.model:
            differing = _difference(best, other)
            raise WeightsError(
                f"{source}: the names fit two networks, which differ in {differing}; say which it "
                f"is by layout={best.key!r} or layout={other.key!r}"
            )
    return best


def _difference(one: Match, other: Match) -> str:
    fields = [f for f in type(one.model).__dataclass_fields__ if f not in ("parent", "name")]
    return ", ".join(
        f"{f} ({getattr(one.model, f)!r} and {getattr(other.model, f)!r})"
        for f in fields
        if getattr(one.model, f) != getattr(other.model, f)
    )


def _misfit(closest: Match, wanted: Request, source: str) -> str:
    """Returns the message for a file that does not fit."""
    heads = [name for path, name in closest.names.items() if is_head(path)]
    if set(closest.missing) == set(heads) and not closest.unknown:
        return (
            f"{source}: has no head ({listed(heads)} missing); give num_classes=None for a model "
            "without one, or num_classes=K to begin a new head of K classes"
        )
    problems = []
    if closest.missing:
        problems.append(f"{listed(closest.missing)} missing")
    if closest.unknown:
        problems.append(f"{listed(closest.unknown)} that it has no place for")
    return (
        f"{source}: is not a whole {wanted.name} in layout {closest.key}: tensors "
        f"{' and '.join(problems)}"
    )


def fill(
    tensors: Tensors, matched: Match, wanted: Request, channels: int, seed: int, source: str
) -> Any:
    """Returns a model's variables: the tensors of a file, and a new head where there is none.

    Everything that the file declares is checked before anything is read.

    Args:
      tensors: of the file.
      matched: the layout that fits.
      wanted: what was asked for.
      channels: of the images that the model will see; the first kernel is adapted.
      seed: of a new head.
      source: of the file, for messages.

    Raises:
      WeightsError: for another shape, a type that is no float, NaN, infinity or a negative
        variance; names the tensor.
    """
    convert = FRAMEWORKS[matched.key].array
    _check_declared(tensors, matched, source)
    arrays: dict[Path, Any] = {}
    for path, name in matched.names.items():
        shape = matched.shapes[path]
        with np.errstate(over="ignore"):  # infinity is what the check looks for
            kind = np.promote_types(shape.dtype, matched.model.param_dtype)  # of statistics, too
            array = np.asarray(convert(tensors[name].read(), shape.shape), kind)
        _check_values(array, path, name, source)
        arrays[path] = array
    if channels != wanted.image_shape[2]:
        adapted = array_shapes(matched.model, (*wanted.image_shape[:2], channels))
        for path, shape in adapted.items():
            if path in arrays and shape.shape != arrays[path].shape:
                if arrays[path].ndim != 4:
                    raise WeightsError(
                        f"{source}: {wanted.name} has no first convolution to adapt; leave "
                        f"channels={channels} out"
                    )
                arrays[path] = adapt_channels(arrays[path], channels)
    new = [path for path in matched.shapes if path not in arrays]
    if new:
        arrays |= _initialised(matched.model, new, (*wanted.image_shape[:2], channels), seed)
    return traverse_util.unflatten_dict(
        {path: jnp.asarray(arrays[path]) for path in matched.shapes}
    )


def _check_declared(tensors: Tensors, matched: Match, source: str) -> None:
    """Refuses shapes and types that cannot be placed, by what the file says of them."""
    expected = matched.model.num_classes
    heads = any(is_head(path) for path in matched.names)
    if heads and matched.classes not in (None, expected):
        raise WeightsError(
            f"{source}: its head has {matched.classes} classes, and {expected} were expected; "
            f"num_classes={matched.classes} loads it as it is, another number or None leaves "
            "it behind"
        )
    for path, name in matched.names.items():
        tensor = tensors[name]
        if not re.fullmatch(r"b?float\d+", tensor.dtype):
            raise WeightsError(
                f"{source}: tensor {name!r} is {tensor.dtype}, wanted floating point"
            )
        problem = _shape_problem(tensor, matched, path)
        if problem:
            raise Misfit(
                f"{source}: tensor {name!r} has {problem} (ours is {'/'.join(path[1:])}), so it "
                "is of another network, or of other fields"
            )


def _shape_problem(tensor: Tensor, matched: Match, path: Path) -> str:
    """Returns what is wrong with the shape of a tensor, "" if nothing is."""
    # A view of one number in that shape: converting it moves axes and copies nothing.
    view = np.broadcast_to(np.zeros((), np.float32), tensor.shape)
    try:
        FRAMEWORKS[matched.key].array(view, matched.shapes[path].shape)
    except ValueError as error:
        return str(error)
    return ""


def fits(tensors: Tensors, matched: Match) -> bool:
    """Whether a file is of a network, by names and shapes, whatever the size of its head."""
    return matched.fits and not any(
        _shape_problem(tensors[name], matched, path)
        for path, name in matched.names.items()
        if not is_head(path)
    )


def _check_values(array: np.ndarray, path: Path, name: str, source: str) -> None:
    """Refuses numbers that no trained weights have."""
    finite = np.isfinite(array)
    if not finite.all():
        raise WeightsError(
            f"{source}: tensor {name!r} holds NaN, infinity or more than {array.dtype} can hold at "
            f"{array.size - finite.sum():,} of {array.size:,} places; the file is damaged or "
            "training failed: use another"
        )
    if path[-1] == "var" and array.min() < 0:
        raise WeightsError(f"{source}: tensor {name!r} holds negative variances; use another file")


def _initialised(
    model: Classifier, paths: Iterable[Path], image_shape: tuple[int, ...], seed: int
) -> dict[Path, Any]:
    """Returns fresh arrays of some paths; under jit the others are never made."""

    @jax.jit
    def init(key: jax.Array) -> dict[str, jax.Array]:
        variables = flat(model.init(key, jnp.zeros((1, *image_shape)), train=False))
        return {"/".join(path): variables[path] for path in paths}

    return {tuple(name.split("/")): array for name, array in init(jax.random.key(seed)).items()}


def make_report(
    tensors: Tensors, matched: Match, name: str, source: str, notes: Iterable[str]
) -> Report:
    """Returns what became of everything, by what was matched."""
    used = {"/".join(path): theirs for path, theirs in matched.names.items()}
    dropped = f"a head of {matched.classes} classes, left behind as asked"
    unused = {name: dropped for name in matched.dropped}
    for theirs in sorted(set(tensors) - set(used.values()) - set(unused)):
        unused[theirs] = "no weights of this network"
    new = tuple("/".join(path) for path in matched.shapes if path not in matched.names)
    return Report(source, name, matched.key, used, unused, new, tuple(notes))
