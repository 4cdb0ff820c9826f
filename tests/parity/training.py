"""Training mode against torch: batch statistics, running averages, auxiliary heads, gradients."""

from collections.abc import Mapping
from typing import Any, NamedTuple
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.parity import oracles
from tests.parity.compare import from_memory, relative_error
from zoo.weights.families import LAYOUTS

LIMIT = 1e-7  # of the largest value; BatchNorm over few values amplifies rounding
BATCH = 4
STEPS = 3
AUX_WEIGHT = 0.3


class TrainingCase(NamedTuple):
    """What to compare in training mode.

    Attributes:
      name: our model.
      framework: whose implementation is the oracle, torchvision or timm.
      image_size: large enough that each BatchNorm sees several values.
      fields: of our model, besides the layout's: what draws at random is turned off.
      arguments: of the oracle's constructor.
    """

    name: str
    framework: str
    image_size: int
    fields: Mapping[str, Any] = {}
    arguments: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.name}-{self.framework}"


def compare_training(case: TrainingCase) -> None:
    """Fails unless three steps' statistics and the last one's gradients agree."""
    layout = LAYOUTS[case.name][case.framework]
    shape = (case.image_size, case.image_size, 3)
    rng = np.random.default_rng(1)
    batches = rng.normal(size=(STEPS, BATCH, *shape))
    labels = np.arange(BATCH)
    with warnings.catch_warnings(action="ignore"):  # the oracle's are not ours
        oracle = getattr(oracles, case.framework)(layout.published, **case.arguments)
        oracle.double()
    before = {
        name: array.copy() for name, array in oracle.arrays.items() if name.endswith("running_var")
    }

    def imported(arrays: Mapping[str, np.ndarray]) -> Any:
        fields = {**case.fields, "param_dtype": jnp.float64}
        return from_memory(arrays, case.name, case.framework, layout, fields, shape)

    with jax.enable_x64(True):
        model, variables = imported(oracle.arrays)
        ours, gradients, statistics = train_ours(model, variables, batches, labels)
        theirs, arrays = train_theirs(oracle, before, batches, labels)
        _, expected = imported(arrays)
        for mine, reference in zip(ours, theirs, strict=True):
            assert relative_error(mine, reference) <= LIMIT
        compare_trees(statistics, expected.get("batch_stats", {}))
        compare_trees(gradients, expected["params"])


def compare_trees(ours: Any, theirs: Any) -> None:
    """Compares leaf by leaf, each with the largest value of its own kind in the tree."""
    scale = max((np.abs(leaf).max() for leaf in jax.tree.leaves(theirs)), default=1)
    for path, leaf in jax.tree.leaves_with_path(theirs):
        mine = ours
        for key in path:
            mine = mine[key.key]
        error = np.abs(mine - leaf).max() / max(np.abs(leaf).max(), 1e-6 * scale)
        assert error <= LIMIT, (jax.tree_util.keystr(path), error)


def train_ours(model: Any, variables: Any, batches: np.ndarray, labels: np.ndarray) -> Any:
    """Returns the last step's outputs and gradients, and the statistics after all steps."""

    @jax.jit
    def step(params: Any, statistics: Any, images: Any) -> Any:
        def loss_of(params: Any) -> Any:
            out, updated = model.apply(
                {"params": params, "batch_stats": statistics},
                images,
                train=True,
                method="endpoints",
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            outputs = [out["logits"], *out.get("aux_logits", ())]
            losses = [
                optax.softmax_cross_entropy_with_integer_labels(x, labels).mean() for x in outputs
            ]
            total = losses[0] + AUX_WEIGHT * jnp.sum(jnp.array(losses[1:]))
            return total, (outputs, updated.get("batch_stats", {}))

        return jax.grad(loss_of, has_aux=True)(params)

    statistics = variables.get("batch_stats", {})
    for images in batches:
        gradients, (outputs, statistics) = step(variables["params"], statistics, images)
    return jax.device_get((outputs, gradients, statistics))


def train_theirs(
    oracle: oracles.TorchOracle,
    before: Mapping[str, np.ndarray],
    batches: np.ndarray,
    labels: np.ndarray,
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Returns the same of the oracle: outputs, and by name gradients and statistics.

    Torch averages the unbiased variance, n / (n - 1) times ours; what it added in the
    steps is scaled back here, and nothing else.
    """
    import torch

    module = oracle.module.train()
    values = {}  # how many each BatchNorm averages over
    for name, part in module.named_modules():
        if "Drop" in type(part).__name__ or type(part).__name__ == "StochasticDepth":
            part.p = 0.0
        if isinstance(part, torch.nn.BatchNorm2d):

            def count(part: Any, inputs: Any, output: Any, name: str = name) -> None:
                values[name] = output.numel() // output.shape[1]

            part.register_forward_hook(count)
    for images in batches:
        module.zero_grad()
        out = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        # torchvision's tuples give the deepest auxiliary head first.
        outputs = [out[0], *reversed(out[1:])] if isinstance(out, tuple) else [out]
        losses = [torch.nn.functional.cross_entropy(x, torch.from_numpy(labels)) for x in outputs]
        (losses[0] + AUX_WEIGHT * sum(losses[1:])).backward()
    arrays = dict(oracle.arrays)
    for name, parameter in module.named_parameters():
        arrays[name] = parameter.grad.numpy()
    for name, n in values.items():
        kept = (1 - module.get_submodule(name).momentum) ** STEPS * before[f"{name}.running_var"]
        new = arrays[f"{name}.running_var"]
        arrays[f"{name}.running_var"] = kept + (new - kept) * (n - 1) / n
    return [x.detach().numpy() for x in outputs], arrays
