"""LeNet-5 against a reference written with loops and slices, and against the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

import zoo
from zoo.models import lenet

TABLE_1 = """
0 X . . . X X X . . X X X X . X X
1 X X . . . X X X . . X X X X . X
2 X X X . . . X X X . . X . X X X
3 . X X X . . X X X X . . X . X X
4 . . X X X . . X X X X . X X . X
5 . . . X X X . . X X X X . X X X
"""


def convolve(maps, kernel, bias, connected=None):
    """[H, W, I] and [5, 5, I, O] give [H - 4, W - 4, O], one pair of maps at a time."""
    out = []
    for o in range(kernel.shape[-1]):
        inputs = connected[o] if connected else range(maps.shape[-1])
        total = sum(correlate2d(maps[..., i], kernel[..., i, o], "valid") for i in inputs)
        out.append(total + bias[o])
    return np.stack(out, axis=-1)


def quarter(maps):
    """Sums of 2x2 neighbours."""
    return maps[::2, ::2] + maps[1::2, ::2] + maps[::2, 1::2] + maps[1::2, 1::2]


def squash(x):
    return 1.7159 * np.tanh(2 * x / 3)


def reference_lenet5(p, image):
    x = quarter(np.tanh(convolve(image, **p["c1"]))) / 4
    x = quarter(np.tanh(convolve(x, **p["c3"]))) / 4
    x = np.tanh(convolve(x, **p["c5"])).reshape(-1)
    x = np.tanh(x @ p["f6"]["kernel"] + p["f6"]["bias"])
    return x @ p["head"]["kernel"] + p["head"]["bias"]


def reference_lenet5_1998(p, image):
    connected = [[i for i, row in enumerate(table_1()) if row[o]] for o in range(16)]
    dense = np.zeros((5, 5, 6, 16))
    number = 0
    for o, inputs in enumerate(connected):
        for i in inputs:
            dense[:, :, i, o] = p["c3"]["kernel"][:, :, number]
            number += 1
    x = squash(convolve(image, **p["c1"]))
    x = squash(quarter(x) * p["s2"]["scale"] + p["s2"]["bias"])
    x = squash(convolve(x, dense, p["c3"]["bias"], connected))
    x = squash(quarter(x) * p["s4"]["scale"] + p["s4"]["bias"])
    x = squash(convolve(x, **p["c5"])).reshape(-1)
    x = squash(x @ p["f6"]["kernel"] + p["f6"]["bias"])
    return np.array([-sum((x - code) ** 2) for code in lenet.character_codes()])


def table_1():
    """Table I as printed: for each S2 map whether each C3 map sees it."""
    return [[mark == "X" for mark in row.split()[1:]] for row in TABLE_1.strip().split("\n")]


@pytest.mark.parametrize(
    ("name", "reference"),
    [("lenet5", reference_lenet5), ("lenet5_1998", reference_lenet5_1998)],
)
@pytest.mark.slow
def test_logits_equal_the_reference(name, reference):
    rng = np.random.default_rng(0)
    model = zoo.create_model(name)
    images = rng.normal(size=(2, 32, 32, 1))
    with jax.enable_x64(True):
        variables = model.init(jax.random.key(0), jnp.asarray(images), train=False)
        # Random biases and coefficients too: at their initial 0 a mistake would not show.
        params = jax.tree.map(lambda p: rng.normal(size=p.shape) * 0.3, variables["params"])
        logits = model.apply({"params": params}, jnp.asarray(images), train=False)
    expected = np.stack([reference(params, image) for image in images])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_c3_is_connected_as_in_table_1():
    seen = [[i in inputs for inputs in lenet.C3_INPUTS] for i in range(6)]
    assert seen == table_1()
    # "Layer C3 has 1,516 trainable parameters and 151,600 connections."
    connections = sum(25 * len(inputs) + 1 for inputs in lenet.C3_INPUTS) * 10 * 10
    assert connections == 151_600


def test_character_codes_are_ten_different_bitmaps():
    codes = lenet.character_codes()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    differing = (codes[:, None] != codes[None]).sum(-1)
    assert differing[~np.eye(10, dtype=bool)].min() >= 5
    one = codes[1].reshape(12, 7)  # a stem of two columns on a foot
    assert (one[:10, 3:5] == 1).all()
    assert (one[9] == [-1, 1, 1, 1, 1, 1, 1]).all()


def test_initial_weights_are_those_of_the_appendix():
    model = zoo.create_model("lenet5_1998")
    params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)["params"]
    for name, fan_in in {"c1": 25, "c5": 400, "f6": 120}.items():
        kernel = np.abs(params[name]["kernel"])
        assert 0.9 * 2.4 / fan_in < kernel.max() <= 2.4 / fan_in


def test_the_right_code_gives_the_largest_logit():
    model = zoo.create_model("lenet5_1998")
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)
    out = model.apply(variables, jnp.ones((3, 32, 32, 1)), train=False, method="endpoints")
    distance = jnp.square(out["pre_logits"][:, None] - lenet.character_codes()).sum(-1)
    np.testing.assert_allclose(out["logits"], -distance, rtol=1e-5)
