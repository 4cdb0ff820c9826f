"""From a trained run to other classes, out of a folder, with no code written."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from configs import transfer
from zoo.analysis.opening import open_source
from zoo.analysis.trained import open_trained
from zoo.training.loop import fit


@pytest.fixture(scope="module")
def pictures(splits, tmp_path_factory):
    """Two class folders, and no folders for splits: 40 real digits, nought or one."""
    root = tmp_path_factory.mktemp("pictures")
    for name, wanted in (("nought", 0), ("one", 1)):
        (root / name).mkdir()
        found = [i for i in range(len(splits.train)) if splits.train[i][1] == wanted][:20]
        for i in found:
            Image.fromarray(splits.train[i][0][..., 0]).save(root / name / f"{i}.png")
    return root


@pytest.mark.slow
def test_two_classes_and_a_binary_head(workdir, pictures, tmp_path, capsys):
    weights = workdir / "weights"
    config = transfer.get_config(f"data={pictures},model=mlp,weights={weights}")
    config.task.name = "binary"
    config.model.arguments = {"dropout_rate": 0.0}  # the run's own drops below the head
    config.batch_size, config.train_for = 8, "20 epochs"
    results = fit(config, tmp_path)
    assert "held_by=devices, as what the head is given instead of images" in capsys.readouterr().out
    assert results["metrics"]["val"]["examples"] == 8

    trained = open_trained(str(tmp_path))
    assert trained.class_names == ("nought", "one") and trained.model.num_classes == 1
    before = open_trained(str(workdir)).variables["params"]
    after = trained.variables["params"]
    assert after["head"]["kernel"].shape[1] == 1
    for name in set(before) - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])

    source = open_source(trained)  # the same fifth that was held out
    images = np.stack([trained.preprocessing.pixels(source[i][0]) for i in range(len(source))])
    labels = np.array([source[i][1] for i in range(len(source))])
    assert len(source) == 8 and set(labels) == {0, 1}
    normalised = trained.preprocessing.normalise(jnp.asarray(images))
    logits = trained.model.apply(trained.variables, normalised, train=False)
    said = np.asarray(trained.task.activation(logits)).ravel() > 0.5
    assert np.mean(said == labels) == results["metrics"]["val"]["accuracy"] == 1
