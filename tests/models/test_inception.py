"""Laws of the Inception networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import avg_pool
from zoo.models.googlenet import paper_means
import zoo.registry

NAMES = ("googlenet", "googlenet_2014", "inception_v3", "inception_v4", "inception_resnet_v2")
WITH_AUX = {"googlenet": 2, "googlenet_2014": 2, "inception_v3": 1}


def trace(model, shape, train=False):
    """Returns the shapes of the parameters, and those of the endpoints."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

    def init(x):
        return model.init_with_output(rngs, x, train=train, method="endpoints")

    out, variables = jax.eval_shape(init, images)
    return variables["params"], out


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("googlenet", 6_624_904),  # torchvision's meta, which leaves the heads out
        ("googlenet_2014", 6_998_552),  # Caffe's reference model, exported
        ("inception_v3", 23_834_568),  # timm, without its auxiliary head
    ],
)
def test_published_count_without_auxiliary_heads(name, parameters):
    params, out = trace(zoo.create_model(name, aux_heads=False), (1, 75, 75, 3))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    assert "aux_logits" not in out


@pytest.mark.parametrize("name", WITH_AUX)
def test_auxiliary_logits_of_any_shape_of_image_are_float32(name):
    model = zoo.create_model(name, num_classes=7, dtype=jnp.bfloat16)
    _, out = trace(model, (2, 96, 75, 1), train=True)
    assert {(x.shape, x.dtype.name) for x in out["aux_logits"]} == {((2, 7), "float32")}


@pytest.mark.parametrize("name", WITH_AUX)
def test_without_a_head_there_are_no_auxiliary_heads(name):
    params, out = trace(zoo.create_model(name, num_classes=None), (2, 75, 75, 3))
    assert not {"logits", "aux_logits"} & set(out)
    assert not [module for module in params if module.startswith(("aux", "head"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_smallest_image_is_the_smallest_with_and_without_remat(name, monkeypatch):
    model = zoo.create_model(name)
    least = model.smallest_image
    params, out = trace(model, (1, least, least, 3))
    assert all(x.size for x in jax.tree.leaves(out))
    assert len(out.get("aux_logits", ())) == WITH_AUX.get(name, 0)
    again = zoo.create_model(name, remat=(1, 2, 3))
    assert trace(again, (1, least, least, 3)) == (params, out)
    with pytest.raises(ValueError, match=f"at least {least}x{least}"):
        trace(model, (1, least, least - 1, 3))
    monkeypatch.setattr(type(model), "smallest_image", 1)
    model = zoo.create_model(name, **({"aux_heads": False} if name in WITH_AUX else {}))
    _, out = trace(model, (1, least - 1, least - 1, 3))
    assert not all(x.size for x in jax.tree.leaves(out))


def test_paper_means_are_the_papers_pooling_at_its_size():
    x = np.random.default_rng(0).normal(size=(1, 14, 14, 2))
    np.testing.assert_allclose(paper_means(x), avg_pool(x, 5, 3), rtol=1e-5)
    for size in ((2, 2), (7, 14), (20, 17)):
        flat = paper_means(jnp.ones((1, *size, 3)))
        np.testing.assert_allclose(flat, np.ones((1, 4, 4, 3)), rtol=1e-5)
