"""One of our models against one oracle: logits and every endpoint it has."""

from collections.abc import Mapping
import functools
from pathlib import Path
import tempfile
from typing import Any, NamedTuple
from unittest import mock
import warnings

import jax
import numpy as np
import pytest

from tests.parity import oracles
from tests.weights.files import in_memory
import zoo
from zoo.weights import importing
from zoo.weights.families import LAYOUTS
from zoo.weights.importing import Request, fill, match
from zoo.weights.layouts import Layout
from zoo.weights.loading import load_from
from zoo.weights.sources import find

LIMITS = {"float32": 1e-4, "float64": 1e-9}  # of the largest value of the oracle's


class Case(NamedTuple):
    """What to compare.

    Attributes:
      name: our model.
      framework: whose implementation is the oracle.
      image_size: small where the network allows.
      endpoints: ours by name, and the layer of theirs that gives the same.
      precisions: float32 for all; float64 for one variant of each structure.
      fields: of our model, besides the layout's or instead of them.
      arguments: of the oracle's constructor.
    """

    name: str
    framework: str
    image_size: int
    endpoints: Mapping[str, str]
    precisions: tuple[str, ...] = ("float32",)
    fields: Mapping[str, Any] = {}
    arguments: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.name}-{self.framework}"


def make_oracle(case: Case) -> Any:
    """Returns the other implementation, with random weights."""
    layout = LAYOUTS[case.name][case.framework]
    if case.framework == "keras":
        return oracles.keras(layout.published, case.image_size, **case.arguments)
    if case.framework == "efficientnet-pytorch":
        return oracles.efficientnet_pytorch(layout.published, case.image_size, **case.arguments)
    library = case.framework.removesuffix("-tf")
    return getattr(oracles, library)(layout.published, **case.arguments)


def compare(case: Case, record: Any, *, oracle: Any = None, layout: Layout | None = None) -> None:
    """Fails unless all outputs agree; records the largest error for the table.

    The weights go the way that they go for everyone: the framework writes them to files, in
    each of its formats, and `zoo.load_weights` reads them. Only an oracle that no framework
    offers by name, but that was put together from its pieces, and is given with its layout,
    hands over its arrays.
    """
    shape = (case.image_size, case.image_size, 3)
    images = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    with warnings.catch_warnings(action="ignore"):  # the oracle's are not ours
        oracle = oracle or make_oracle(case)
        if layout is None and case.framework != "onnx":
            model, variables = from_files(oracle, case)
        else:
            layout = layout or LAYOUTS[case.name][case.framework]
            model, variables = from_memory(
                oracle.arrays, case.name, case.framework, layout, case.fields, shape
            )
    counted = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    for precision in case.precisions:
        with jax.enable_x64(precision == "float64"):
            with warnings.catch_warnings(action="ignore"):
                if precision == "float64":
                    oracle.double()
                theirs = oracle(images.astype(precision), list(case.endpoints.values()))
            ours = run(model, variables, images, precision)
        # `logits_map` is VGG's own; no other implementation slides its head.
        assert set(ours) - {"logits", "logits_map"} == set(case.endpoints)
        errors = {"logits": relative_error(ours["logits"], theirs["logits"])}
        for mine, layer in case.endpoints.items():
            errors[mine] = relative_error(ours[mine], theirs[layer])
        worst = max(errors.values())
        record("parity", [case.name, case.framework, counted, precision, worst])
        assert worst <= LIMITS[precision], errors


def from_files(oracle: Any, case: Case) -> tuple[Any, Any]:
    """Returns our model with what the oracle's framework saved, in whatever format."""
    # The network has the same shapes whatever the format, and tracing it is what takes time.
    traced = functools.cache(importing.array_shapes)

    def shapes(model: Any, image_shape: tuple[int, int, int], most: int) -> Any:
        del most  # of a file that says what it likes
        return dict(traced(model, image_shape))

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(importing, "array_shapes", shapes),
    ):
        first = None
        for path in oracle.save(Path(folder)):
            origin = find(case.name, path)._replace(pickles=True)
            loaded = load_from(origin, case.name, case.framework, None, 0, case.fields)
            first = first or loaded
            assert loaded.model == first.model
            jax.tree.map(np.testing.assert_array_equal, loaded.variables, first.variables)
    assert first is not None
    return first.model, first.variables


def from_memory(
    arrays: Mapping[str, np.ndarray],
    name: str,
    framework: str,
    layout: Layout,
    fields: Mapping[str, Any],
    shape: tuple[int, int, int],
) -> tuple[Any, Any]:
    """Returns our model with arrays of torch or ONNX."""
    tensors = in_memory(arrays)
    create = functools.partial(zoo.create_model, name)
    wanted = Request(name, create, fields, create().num_classes, shape)
    matched = match(tensors, wanted, framework, layout)
    assert matched.fits, (matched.missing, matched.unknown)
    return matched.model, fill(tensors, matched, wanted, 3, 0, "memory")


def run(model: Any, variables: Any, images: np.ndarray, precision: str) -> dict[str, np.ndarray]:
    """Returns all endpoints of our model, computed in a precision.

    Auxiliary logits are called `aux_logits1` and so on.
    """

    @jax.jit
    def endpoints(variables: Any, images: Any) -> Any:
        out = model.apply(variables, images, train=False, method="endpoints")
        auxiliary = enumerate(out.pop("aux_logits", ()), 1)
        return out | {f"aux_logits{i}": logits for i, logits in auxiliary}

    cast = jax.tree.map(lambda x: np.asarray(x, precision), variables)
    return jax.device_get(endpoints(cast, images.astype(precision)))


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns max |ours - theirs| / max |theirs|; infinite if shapes differ."""
    if ours.ndim == 2 and theirs.shape[1:3] == (1, 1):
        theirs = theirs[:, 0, 0]  # pooled, and not yet flattened
    if ours.shape != theirs.shape:
        pytest.fail(f"shapes differ: {ours.shape} and {theirs.shape}")
    largest = np.abs(theirs).max()
    assert np.isfinite(largest) and largest > 0
    return float(np.abs(ours - theirs).max() / largest)
