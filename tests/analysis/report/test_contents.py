"""What the page says is what the predictions say."""

import dataclasses

import numpy as np
import pytest

from tests.analysis.report.made_up import made_up
from zoo.analysis.outcomes import outcomes_of
from zoo.analysis.report import pictures
from zoo.analysis.report.claims import claims_of, worth_seeing
from zoo.analysis.report.confidence import calibration
from zoo.analysis.report.confusions import block, confusions
from zoo.analysis.report.course import MOST, course
from zoo.analysis.report.numbers import numbers
from zoo.analysis.report.page import contents
from zoo.errors import ConfigError
from zoo.tasks.binary import Binary
from zoo.tasks.classification import Classification
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression

LETTERS = tuple("abcdefghij")
TASKS = {
    "classes": (Classification(), LETTERS, {"confusions", "classes", "calibration"}),
    "binary": (Binary(threshold=0.7), ("no", "yes"), {"confusions", "classes", "calibration"}),
    "labels": (MultiLabel(), ("sea", "sun", "sand"), {"classes", "calibration"}),
    "numbers": (Regression(names=("age", "height")), ("age", "height"), {"numbers"}),
}


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_has_the_sections_that_make_sense(kind):
    task, names, sections = TASKS[kind]
    evidence = made_up(task, names, count=120)
    found = contents(evidence, human_error=0.01, images=3)
    everywhere = {"title", "summary", "course", "footer", "gaps", "pictures"}
    assert {*found} == everywhere | sections
    rows = found["summary"]["splits"]["rows"]
    assert [row["split"] for row in rows] == ["training, a sample", "validation", "test"]
    right = outcomes_of(evidence.look.predictions).right
    if right is not None:
        headline = found["summary"]["headline"][0]
        assert headline["value"] == pytest.approx(right.mean())
        assert headline["interval"][0] < headline["value"] < headline["interval"][1]
        assert found["gaps"]["rungs"][-1]["error"] == pytest.approx(1 - right.mean())


def test_a_run_without_validation_and_one_of_training_only():
    found = contents(
        made_up(Classification(), LETTERS, roles=("train", "test")), human_error=None, images=3
    )
    assert [rung["title"] for rung in found["gaps"]["rungs"]] == ["people", "training", "test"]
    assert "in turn" in found["calibration"]["note"]  # the temperature has no split of its own
    assert any("--human-error" in note for note in found["gaps"]["notes"])
    alone = contents(
        made_up(Classification(), LETTERS, roles=("train",)), human_error=None, images=3
    )
    assert alone["gaps"] is None
    empty = dataclasses.replace(
        made_up(Classification(), LETTERS), lines=[], results={}, environment={}
    )
    assert contents(empty, human_error=None, images=3)["course"] is None


def test_the_largest_gap_is_marked_and_has_its_advice():
    found = contents(made_up(Classification(), LETTERS), human_error=0.0, images=3)["gaps"]
    sizes = {gap["title"]: gap["size"] for gap in found["gaps"]}
    largest = max(sizes, key=lambda name: sizes[name])
    assert [gap["title"] for gap in found["gaps"] if gap["largest"]] == [largest]
    assert sum(bool(rung.get("largest")) for rung in found["rungs"]) == 1
    assert largest in found["advice"]["title"] and found["advice"]["steps"]
    assert sum(sizes.values()) == pytest.approx(found["rungs"][-1]["error"])


def test_confusions_are_those_of_the_matrix():
    names = [f"class {i}" for i in range(100)]
    answers = outcomes_of(made_up(Classification(), names, count=1000).look.predictions)
    found = confusions(answers, names)
    matrix = np.zeros((100, 100), int)
    np.add.at(matrix, (answers.truth, answers.said), 1)
    cells = np.zeros_like(matrix)
    for true, said, count in found["cells"]:
        cells[true, said] += count
    np.testing.assert_array_equal(cells, matrix)
    assert found["support"] == matrix.sum(1).tolist()
    true, said, count = found["pairs"][0]
    np.fill_diagonal(matrix, 0)
    assert matrix[true, said] == matrix.max() == count
    assert {true, said} <= {*found["block"]} and len(found["block"]) <= 30
    assert block([], 100) == list(range(30))  # nothing is confused


def test_the_pictures_answer_the_three_questions():
    answers = outcomes_of(made_up(Classification(), LETTERS, count=400).look.predictions)
    claims = claims_of(answers, LETTERS)
    many = 5
    chosen = worth_seeing(claims, many)
    assert len(set(chosen)) == len(chosen) < 400
    rows, right, sure = np.arange(400), claims.right, claims.sure
    surest_wrong = sorted(rows[~right], key=lambda i: -sure[i])
    least_sure = sorted(rows, key=lambda i: sure[i])
    surest_right = sorted(rows[right], key=lambda i: -sure[i])
    first = {*surest_wrong[:many], *least_sure[:many], *surest_right[:many]}
    assert {*chosen[: len(first)].tolist()} == first
    for c in range(10):  # and so for each class
        for order in (surest_wrong, least_sure, surest_right):
            own = [i for i in order if claims.truth[i] == c][:many]
            assert {*own} <= {*chosen}
    for true in range(10):  # the surest of each kind of mistake
        for said in range(10):
            own = [i for i in surest_wrong if (claims.truth[i], claims.said[i]) == (true, said)]
            assert {*own[:many]} <= {*chosen}


def test_labels_are_answered_one_by_one():
    task, names, _ = TASKS["labels"]
    answers = outcomes_of(made_up(task, names, count=50).look.predictions)
    claims = claims_of(answers, names)
    assert len(claims.rows) == 150
    i = 3 * 7 + 1  # the second label of example 7
    assert claims.rows[i] == 7
    p = answers.probabilities[7, 1]
    assert claims.names[claims.said[i]] == ("sun" if answers.said[7, 1] else "not sun")
    assert claims.names[claims.truth[i]] == ("sun" if answers.truth[7, 1] else "not sun")
    assert claims.sure[i] == pytest.approx(p if answers.said[7, 1] else 1 - p)
    assert claims.right.reshape(50, 3).all(1).tolist() == answers.right.tolist()


def test_what_is_said_of_a_binary_task_follows_its_threshold():
    task, names, _ = TASKS["binary"]
    answers = outcomes_of(made_up(task, names).look.predictions)
    claims = claims_of(answers, names)
    np.testing.assert_array_equal(claims.said == 1, answers.probabilities[:, 0] > 0.7)
    assert claims.sure[claims.said == 0].max() > 0.5 > claims.sure[claims.said == 0].min()


def test_a_temperature_mends_probabilities_that_are_too_large():
    evidence = made_up(Classification(), LETTERS, count=2000)
    looks = {}
    for role, look in evidence.looks.items():  # three times too sure
        predictions = look.predictions
        louder = dataclasses.replace(predictions, logits=3 * predictions.logits)
        looks[role] = outcomes_of(louder)
    found = calibration(looks["test"], looks["validation"], "validation")
    quiet = calibration(
        outcomes_of(evidence.look.predictions),
        outcomes_of(evidence.looks["validation"].predictions),
        "validation",
    )
    assert found["temperature"] == pytest.approx(3 * quiet["temperature"], rel=1e-6)
    assert found["ece_after"] == pytest.approx(quiet["ece_after"], abs=1e-6)
    assert found["ece"] > 2 * found["ece_after"]
    assert sum(bar["count"] for bar in found["bars"]) == 2000


def test_a_regression_has_its_points_and_all_errors():
    task, names, _ = TASKS["numbers"]
    answers = outcomes_of(made_up(task, names, count=1600).look.predictions)
    found = numbers(answers)
    assert [target["name"] for target in found["targets"]] == ["age", "height"]
    for i, target in enumerate(found["targets"]):
        assert len(target["points"]) == 1500 and sum(target["counts"]) == 1600
        true, said = np.array(target["points"]).T
        assert np.isin(true, answers.truth[:, i]).all() and np.isin(said, answers.said[:, i]).all()


def test_curves_are_thinned_and_undefined_values_left_out():
    steps = 10 * MOST
    lines = [
        {"step": i, "epoch": i / 10, "train/loss": float("nan") if i == 5 else 1.0 + i % 2}
        for i in range(steps)
    ] + [{"step": steps, "epoch": steps / 10, "val/loss": 0.5, "val/top1": 0.0}]
    loss, top1 = course(lines, "val/top1", steps)["charts"]
    assert len(loss["series"][0]["y"]) == MOST
    assert np.isfinite(loss["series"][0]["y"]).all() and np.mean(loss["series"][0]["y"]) > 1.49
    assert top1["series"][0]["y"] == [0.0] and top1["best"]["x"] == steps / 10


def test_the_page_keeps_its_size(monkeypatch):
    look = made_up(Classification(), LETTERS, count=50, side=100).look
    rows = [7, 7, 3, *range(50)]
    images, position = pictures.embed(
        look.source, rows, look.predictions.indices, look.predictions.places
    )
    assert len(images) == len(position) == 50 and position[7] == 0 and position[3] == 1
    size = sum(len(picture["uri"]) for picture in images[:10])
    monkeypatch.setattr(pictures, "BYTES", size)
    fewer, _ = pictures.embed(look.source, rows, look.predictions.indices, look.predictions.places)
    assert fewer == images[:10]
    assert images[0]["uri"].startswith("data:image/jpeg") and not images[0]["small"]


def test_small_images_are_kept_as_they_are():
    import base64
    import io

    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (28, 20, 1)).astype(np.uint8)
    uri = pictures.thumbnail(image)
    assert uri.startswith("data:image/png;base64,") and pictures.is_small(image)
    again = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(again), image[..., 0])


def test_the_error_of_people_is_one():
    from zoo.analysis.report.gaps import check_human

    check_human(Regression(), 3.0)
    check_human(Classification(), None)
    for task, error in ((Classification(), 1.0), (Regression(), -0.1), (Binary(), float("nan"))):
        with pytest.raises(ConfigError, match="human-error"):
            check_human(task, error)
