"""Whether gradients are right: autodiff beside finite differences, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from zoo.errors import GradientError
from zoo.paths import paths_of
from zoo.training.report import say
from zoo.training.setup import Setup

EXAMPLES = 4  # enough for BatchNorm, few enough for float64
NOISE = 0.02  # added to the weights: fresh ones put a ReLU's input at 0 exactly, its bend
# Of the difference, by the norm of the array. The closest counts: a large step meets bends
# (of ReLU and maxima), a small one rounding, and a wrong gradient is off at each.
STEPS = (1e-6, 1e-7, 1e-8)
TOLERANCE = 1e-3  # of the slope


def check_gradients(setup: Setup) -> dict[str, Any]:
    """Compares slopes of the training loss, and prints the worst; nothing is trained.

    For each array of parameters one random direction: the gradient's part along it beside
    (loss(p + h d) - loss(p - h d)) / 2 h, in training mode (the batch's statistics, dropout
    with a fixed key), on the first few training images, near the initial weights.

    Args:
      setup: of the run.

    Returns:
      {"arrays": how many, "largest_error": of the slope, "worst": its path}.

    Raises:
      GradientError: if one is further off than `TOLERANCE`.
    """
    examples = _examples(setup)
    variables = jax.device_get(setup.init().variables)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
        wide["params"] = _moved(wide["params"], setup.config.seed)
        rows = compare_slopes(_loss(setup, wide, examples), wide["params"], setup.config.seed)
    rows.sort(key=lambda row: -row["error"])
    table = Table(title="Slopes of the loss, the five worst", title_justify="left")
    for i, name in enumerate(("array", "autodiff", "finite difference", "error")):
        table.add_column(name, justify="right" if i else "left")
    for row in rows[:5]:
        values = (row["autodiff"], row["difference"], row["error"])
        table.add_row(row["path"], *(f"{v:.3g}" for v in values))
    Console(highlight=False).print(table)
    worst = rows[0]
    if not worst["error"] <= TOLERANCE:
        raise GradientError(
            f"the gradient of {worst['path']} is off by {worst['error']:.2g} of the slope "
            f"({worst['autodiff']:.6g}, by finite differences {worst['difference']:.6g}); up to "
            f"{TOLERANCE:g} is allowed. Look at the functions of that layer that define their "
            "own derivative"
        )
    say(f"{len(rows)} arrays agree; the largest error is {worst['error']:.2g} of the slope")
    return {"arrays": len(rows), "largest_error": worst["error"], "worst": worst["path"]}


def compare_slopes(loss: Any, params: Any, seed: int) -> list[dict[str, Any]]:
    """Returns for each array its slope in a random direction, by autodiff and by difference.

    Args:
      loss: params -> [].
      params: a tree of float64.
      seed: of the directions.
    """
    loss = jax.jit(loss)
    gradient = jax.jit(jax.grad(loss))(params)
    leaves, structure = jax.tree.flatten(params)
    # Slopes are compared with the largest: a bias before BatchNorm has none but rounding.
    slopes = []
    for i, (leaf, g) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
        random = np.random.default_rng([seed, i]).normal(size=leaf.shape)
        direction = random / np.linalg.norm(random)
        size = max(float(jnp.linalg.norm(leaf.ravel())), 1.0)

        def at(distance: float, i: int = i, direction: Any = direction) -> float:
            moved = [*leaves[:i], leaves[i] + distance * direction, *leaves[i + 1 :]]
            return float(loss(jax.tree.unflatten(structure, moved)))

        slope = float((g * direction).sum())
        differences = [(at(h * size) - at(-h * size)) / (2 * h * size) for h in STEPS]
        slopes.append((slope, min(differences, key=lambda d: abs(d - slope))))
    scale = max(abs(slope) for slope, _ in slopes)
    return [
        {
            "path": path,
            "autodiff": a,
            "difference": d,
            "error": abs(a - d) / max(abs(a), abs(d), 1e-3 * scale, 1e-30),
        }
        for path, (a, d) in zip(paths_of(params), slopes, strict=True)
    ]


def _moved(params: Any, seed: int) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + NOISE * random.normal(size=p.shape), params)


def _examples(setup: Setup) -> dict[str, np.ndarray]:
    train = setup.examples["train"]
    count = min(EXAMPLES, len(train))
    images = np.zeros((count, *train.shape), np.uint8)
    targets = np.zeros((count, *train.target_shape), train.target_dtype)
    mask = np.zeros(count, np.float32)
    for i in range(count):
        images[i], targets[i], mask[i] = train.read(i)
    return {"image": images, "target": targets, "mask": mask}


def _loss(setup: Setup, wide: Any, examples: dict[str, np.ndarray]) -> Any:
    model = setup.model.clone(dtype=jnp.float64)

    def loss(params: Any) -> jax.Array:
        total, (count, _, _) = setup.make_loss(model)(
            params, wide.get("batch_stats", {}), examples, 0, jax.random.key(0)
        )
        return total / count + setup.optimization.penalty(params)

    return loss
