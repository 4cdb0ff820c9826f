"""Xception: what parity does not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.models.xception import Xception


def shapes_of(model, *shape, train=False):
    """Returns the shapes of all endpoints, and of the variables."""
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

    def endpoints(x):
        return model.init_with_output(rngs, x, train=train, method="endpoints")

    return jax.eval_shape(endpoints, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_the_smallest_image_gives_maps_and_a_smaller_one_an_error():
    out, _ = shapes_of(Xception(), 2, 7, 7, 3)
    assert min(min(x.shape) for x in out.values()) > 0
    with pytest.raises(ValueError, match="at least 7x7"):
        shapes_of(Xception(), 2, 6, 7, 3)


def test_maps_have_the_sizes_of_figure_5():
    out, _ = shapes_of(zoo.create_model("xception"), 1, 299, 299, 3)
    strides = {2: (147, 64), 4: (74, 128), 8: (37, 256), 16: (19, 728), 32: (10, 2048)}
    for stride, (size, features) in strides.items():
        assert out[f"stride{stride}"].shape == (1, size, size, features)


def test_image_need_not_be_square_nor_have_three_channels():
    out, _ = shapes_of(Xception(num_classes=None), 2, 32, 50, 5, train=True)
    assert out["pre_logits"].shape == (2, 2048)
    assert "logits" not in out


def test_recomputing_a_flow_changes_no_name():
    _, plain = shapes_of(Xception(), 1, 32, 32, 3)
    _, again = shapes_of(Xception(remat=(1, 2, 3), drop_path_rate=0.1), 1, 32, 32, 3, train=True)
    assert jax.tree.map(np.shape, plain["params"]) == jax.tree.map(np.shape, again["params"])
