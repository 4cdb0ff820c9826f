"""Corruptions: laws that hold for all of them, and random numbers that never change."""

import functools

import numpy as np
from PIL import Image
import pytest
from scipy import stats

from zoo.data.corruptions import NAMES, SEVERITIES, corrupt, nearest_table
from zoo.data.corruptions.blur import enlarge, glass_blur, streak
from zoo.data.corruptions.draws import Draws
from zoo.data.corruptions.parameters import PARAMETERS
from zoo.errors import ConfigError

NOT_DRAWN = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
# Of several published parameters one may fall while another rises.
NOT_ASCENDING = ("glass_blur", "elastic_transform", "frost")


@functools.cache
def photograph(height: int = 64, width: int = 64, channels: int = 3) -> np.ndarray:
    from sklearn.datasets import load_sample_image

    pil = Image.fromarray(load_sample_image("china.jpg")).resize((width, height))
    array = np.asarray(pil.convert("RGB" if channels == 3 else "L"))
    return array.reshape(height, width, channels)


def change(image: np.ndarray, corrupted: np.ndarray) -> float:
    """Returns the root of the mean squared difference, in grey levels."""
    return float(np.sqrt(np.mean((corrupted.astype(float) - image) ** 2)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", (28, 64, 120))
def test_the_higher_the_severity_the_more_is_changed(name: str, side: int):
    image = photograph(side, side)
    changes = np.array(
        [
            np.mean([change(image, corrupt(image, name, severity, seed)) for seed in range(3)])
            for severity in SEVERITIES
        ]
    )
    assert changes.min() > 1
    if name not in NOT_ASCENDING:
        assert np.all(changes[1:] > 0.9 * changes[:-1])
        assert changes[-1] > 1.15 * changes[0]


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name: str):
    image = photograph(40, 56)
    first, again, other = (corrupt(image, name, 3, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (change(first, other) == 0) == (name in NOT_DRAWN)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("size", ((8, 8), (9, 31), (47, 20)))
def test_any_size_and_kind(name: str, channels: int, size: tuple[int, int]):
    image = photograph(*size, channels)
    before = image.copy()
    for severity in (1, 5):
        corrupted = corrupt(image, name, severity, 2**64 - 1)
        assert corrupted.shape == image.shape
        assert corrupted.dtype == np.uint8
    assert change(image, corrupted) > 0
    np.testing.assert_array_equal(image, before)
    for level in (0, 255):  # nothing to divide by
        corrupt(np.full_like(image, level), name, 5, 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_grey_photograph_is_treated_as_its_colour_twin(name: str):
    grey = photograph(64, 64, 1)
    one, three = (corrupt(x, name, 3, 1).astype(float) for x in (grey, np.repeat(grey, 3, -1)))
    off = np.abs(one - three.mean(-1, keepdims=True))
    if name in ("gaussian_noise", "shot_noise", "impulse_noise"):  # each channel has its own
        assert change(grey, one) == pytest.approx(change(grey, three), rel=0.1)
    else:
        assert off.mean() < 1.5


def test_draws_are_those_of_every_machine():
    draws = Draws(7, 2)
    np.testing.assert_allclose(
        draws.uniform(3), [0.3665484804668004, 0.3998919690303571, 0.8479983815736047], rtol=1e-15
    )
    np.testing.assert_allclose(
        draws.normal(3), [0.44975418578048254, -0.6316837681152174, 0.25083289890727506], rtol=1e-12
    )
    assert draws.integers(-4, 4, 6).tolist() == [-3, -3, -3, 2, 0, -2]


def test_distributions():
    draws = Draws(0, 0)
    assert stats.kstest(draws.uniform(5000, low=2, high=5), stats.uniform(2, 3).cdf).pvalue > 0.01
    assert stats.kstest(draws.normal(5000), stats.norm.cdf).pvalue > 0.01
    counts = np.bincount(draws.integers(-2, 3, 5000) + 2, minlength=5)
    assert len(counts) == 5
    assert stats.chisquare(counts).pvalue > 0.01
    for level, most in ((0, 60), (3, 60), (255, 3), (128, 500)):
        found = draws.poisson(np.full(5000, level, np.uint8), most)
        law = stats.poisson(level * most / 255)
        edges = np.unique(law.ppf(np.linspace(0.1, 0.9, 9)))
        bins = [-1, *edges, np.inf]
        expected = 5000 * np.diff([law.cdf(edge) if edge >= 0 else 0.0 for edge in bins])
        observed = np.diff([np.sum(found <= edge) for edge in bins])
        if level == 0:
            assert not found.any()
        else:
            assert stats.chisquare(observed, expected).pvalue > 0.001


def test_pixels_of_glass_are_taken_one_after_the_other():
    image, reach = np.random.default_rng(0).integers(0, 256, (13, 11, 3)) / 255, 2
    ours = glass_blur(image, Draws(1, 4), 1.0, 1e-3, reach, 1)
    slow = image.copy()
    rows, columns = range(reach + 1, 13 - reach + 1), range(reach + 1, 11 - reach + 1)
    down, right = Draws(1, 4).integers(-reach, reach, 2, len(rows) * len(columns))
    places = [(row, column) for row in rows for column in columns]
    for (row, column), y, x in reversed(list(zip(places, down, right, strict=True))):
        slow[row, column] = slow[row + y, column + x]
    np.testing.assert_allclose(ours, slow, atol=1e-12)


def test_a_streak_goes_the_way_it_says():
    point = np.zeros((21, 21, 1))
    point[10, 10] = 1
    along, down = streak(point, 4, 3, 0)[..., 0], streak(point, 4, 3, 90)[..., 0]
    assert np.flatnonzero(along.sum(0)).tolist() == list(range(2, 11))
    np.testing.assert_allclose(down, along.T)
    assert along.sum() == pytest.approx(1)


def test_enlarging_keeps_straight_lines():
    ramp = np.broadcast_to(np.arange(40.0)[:, None, None], (40, 30, 1))
    larger = enlarge(ramp, 2.0)
    np.testing.assert_allclose(np.diff(larger, axis=0), 19 / 39)
    np.testing.assert_allclose(larger.mean(), ramp.mean(), atol=0.5)
    np.testing.assert_array_equal(enlarge(ramp, 1.0), ramp)


@pytest.mark.parametrize(("side", "nearest"), ((8, 32), (45, 32), (46, 64), (120, 224), (999, 224)))
def test_the_nearest_table(side: int, nearest: int):
    assert nearest_table("fog", side)[1] == nearest


def test_every_table_has_five_severities():
    assert [*PARAMETERS] == [*NAMES]
    for tables in PARAMETERS.values():
        assert [len(table) for table in tables] == [5, 5, 5]


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        ((photograph, "frosst", 1, 0), "Did you mean 'frost'"),
        ((photograph, "frost", 0, 0), "severity 0 of frost"),
        ((photograph, "frost", 6, 0), "1 to 5"),
        ((photograph, "frost", 2.0, 0), r"severity 2\.0 of frost"),
        ((photograph, "frost", 1, -1), "seed -1"),
        ((photograph, "frost", 1, 0.5), "seed 0.5"),
        ((lambda: photograph() / 255, "fog", 1, 0), r"float64 \[64, 64, 3\]"),
        ((lambda: photograph(7, 64), "fog", 1, 0), r"sides of 8 pixels or more, got uint8 \[7"),
        ((lambda: photograph()[..., :2], "fog", 1, 0), r"\[64, 64, 2\]"),
        ((lambda: "cat.jpg", "fog", 1, 0), "got cat.jpg"),
    ),
)
def test_what_is_wrong_is_said(arguments, words: str):
    make, *rest = arguments
    with pytest.raises(ConfigError, match=words):
        corrupt(make(), *rest)
