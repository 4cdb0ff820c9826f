"""Losses and gradients against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks.data import NAMES
from zoo.tasks.binary import Binary
from zoo.tasks.classification import Classification
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.task import mean_of, total_loss

pytestmark = pytest.mark.slow

B, K = 33, 7
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, K, B)
SOFT = RNG.dirichlet(np.ones(K), B).astype("f")
MANY = RNG.integers(0, 2, (B, K)).astype("f")
WEIGHTS = tuple(np.linspace(0.5, 3, K).tolist())


def softmax_loss(torch, **options):
    if "weight" in options:
        options["weight"] = torch.tensor(options["weight"])
    return lambda x, y: torch.nn.functional.cross_entropy(x, y, **options)


def sigmoid_loss(torch, smoothing=0.0, weight=None):
    weight = None if weight is None else torch.tensor(weight)

    def loss(x, y):
        y = y.reshape(x.shape).float() * (1 - smoothing) + smoothing / 2
        return torch.nn.functional.binary_cross_entropy_with_logits(x, y, pos_weight=weight)

    return loss


def error_loss(torch, name, **options):
    return lambda x, y: getattr(torch.nn.functional, name)(x, y, **options)


CASES = {
    "labels": (Classification(), LABELS, softmax_loss, {}),
    "smoothing": (Classification(0.1), LABELS, softmax_loss, {"label_smoothing": 0.1}),
    "weights": (
        Classification(0.1, WEIGHTS),
        LABELS,
        softmax_loss,
        {"label_smoothing": 0.1, "weight": WEIGHTS},
    ),
    "soft": (Classification(), SOFT, softmax_loss, {}),
    "soft, smoothing": (Classification(0.1), SOFT, softmax_loss, {"label_smoothing": 0.1}),
    "binary": (Binary(), LABELS % 2, sigmoid_loss, {}),
    "binary, both": (
        Binary(0.1, 3.0),
        LABELS % 2,
        sigmoid_loss,
        {"smoothing": 0.1, "weight": 3.0},
    ),
    "many": (MultiLabel(), MANY, sigmoid_loss, {}),
    "many, both": (
        MultiLabel(0.1, WEIGHTS),
        MANY,
        sigmoid_loss,
        {"smoothing": 0.1, "weight": WEIGHTS},
    ),
    "mse": (Regression(NAMES), SOFT[:, :2], error_loss, {"name": "mse_loss"}),
    "mae": (Regression(NAMES, "mae"), SOFT[:, :2], error_loss, {"name": "l1_loss"}),
    "huber": (
        Regression(NAMES, "huber", 0.7),
        SOFT[:, :2],
        error_loss,
        {"name": "huber_loss", "delta": 0.7},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_of_three_heads_are_torchs(case):
    import torch

    task, targets, make, options = CASES[case]
    heads = RNG.normal(size=(3, B, task.outputs(2 if isinstance(task, Binary) else K))).astype("f")

    def ours(heads):
        outputs = {"logits": heads[0], "aux_logits": (heads[1], heads[2])}
        return mean_of(total_loss(task, outputs, jnp.asarray(targets), jnp.ones(B), aux_weight=0.3))

    x, y = torch.tensor(heads, requires_grad=True), torch.tensor(targets)
    loss = make(torch, **options)
    total = loss(x[0], y) + 0.3 * (loss(x[1], y) + loss(x[2], y))
    total.backward()
    value, gradient = jax.jit(jax.value_and_grad(ours))(jnp.asarray(heads))
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-4, atol=1e-7)
