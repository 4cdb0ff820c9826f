"""Nearest neighbours are scikit-learn's, block by block."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from zoo.analysis import neighbours
from zoo.analysis.neighbours import nearest
from zoo.errors import ConfigError, DataError


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "QUERIES", 7)
    monkeypatch.setattr(neighbours, "ROWS", 16)


@pytest.mark.parametrize("metric", neighbours.METRICS)
@pytest.mark.parametrize("k", (1, 5, 100))
def test_they_are_those_of_scikit_learn(small_blocks, metric: str, k: int):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(100, 12)).astype(np.float32) + 3
    features[4] = 0
    queries = rng.normal(size=(30, 12)).astype(np.float32) + 3
    theirs = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric)
    distances, indices = theirs.fit(features.astype(float)).kneighbors(queries.astype(float))
    ours = nearest(queries, features, k, metric=metric)
    np.testing.assert_array_equal(ours.indices, indices)
    np.testing.assert_allclose(ours.distances, distances, atol=1e-12)


@pytest.mark.parametrize("metric", neighbours.METRICS)
def test_an_example_is_not_its_own_neighbour(small_blocks, metric: str):
    features = np.random.default_rng(1).uniform(size=(40, 3, 3, 2)).astype(np.float16)
    features[30] = features[11]  # equal ones are neighbours all the same
    itself = nearest(features, features, 1, metric=metric)
    assert itself.indices[:, 0].tolist() == [*range(30), 11, *range(31, 40)]
    np.testing.assert_allclose(itself.distances, 0, atol=1e-7)
    others = nearest(features, features, 39, metric=metric, leave_out=np.arange(40))
    assert all(sorted([*row, i]) == list(range(40)) for i, row in enumerate(others.indices))
    assert others.indices[30, 0] == 11
    assert others.indices[11, 0] == 30


def test_features_may_stay_on_disk(small_blocks, tmp_path):
    features = np.random.default_rng(2).normal(size=(50, 4))
    np.save(tmp_path / "x.npy", features)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for ours, theirs in zip(
        nearest(mapped[:3], mapped, 4), nearest(features[:3], features, 4), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert nearest(features[:0], features, 4).indices.shape == (0, 4)


def test_what_is_wrong_is_said():
    features = np.ones((5, 3))
    for k in (0, 6):
        with pytest.raises(ConfigError, match=f"k={k}: give a number from 1 to the 5"):
            nearest(features, features, k)
    with pytest.raises(ConfigError, match="to the 4 rows"):
        nearest(features, features, 5, leave_out=np.arange(5))
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        nearest(features, features, 1, metric="cosin")
    with pytest.raises(DataError, match="same endpoint"):
        nearest(features[:, :2], features, 1)
    features[3, 1] = np.nan
    with pytest.raises(DataError, match="row 3 of the features is not finite"):
        nearest(np.ones((2, 3)), features, 1)
