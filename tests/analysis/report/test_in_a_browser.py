"""The page in a real browser, at the size of a desk and of a phone."""

from pathlib import Path

import pytest

from tests.analysis.report.made_up import NASTY, made_up
from tests.browser import Browser, BrowserError, find_browser
from zoo.analysis.report.page import contents, render, write
from zoo.tasks.classification import Classification
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.regression import Regression

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844, "scale": 2}
DARK = {"dark": True}
NAMES = (*NASTY, *"bcdefg", "a name that is much longer than there is room for, even on a desk")


def save(folder: Path, evidence) -> Path:
    file = folder / "page.html"
    write(file, render(contents(evidence, human_error=0.01, images=6)))
    return file


@pytest.fixture(scope="module")
def opened():
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(opened):
    """A browser in which nothing may complain, or ask for anything but the page."""
    opened.complaints.clear()
    opened.requests.clear()
    yield opened
    assert opened.complaints == []
    assert {address.rpartition("/")[2] for address in opened.requests} == {"page.html"}


def texts(browser, selector: str) -> list[str]:
    return browser.run(
        f"[...document.querySelectorAll({selector!r})]"
        ".filter((e) => e.checkVisibility()).map((e) => e.textContent)"
    )


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(
    "size", [DESK, PHONE, PHONE | {"dark": True}], ids=["desk", "phone", "dark"]
)
@pytest.mark.parametrize(
    "task, names, sections",
    [
        (Classification(), NAMES, 7),
        (Classification(), [f"class {i}, or whatever else it is called" for i in range(100)], 7),
        (MultiLabel(), ["sea", "sun"], 6),
        (Regression(names=("age", "height")), ["age", "height"], 5),
    ],
    ids=["classes", "hundred", "labels", "numbers"],
)
def test_all_is_there_and_fits(browser, tmp_path, task, names, sections, size):
    browser.open(save(tmp_path, made_up(task, names, count=200)), **size)
    assert len(texts(browser, "h2")) == sections
    width = browser.run("document.documentElement.scrollWidth")
    assert width == browser.run("innerWidth") == size["width"]
    assert browser.run("document.querySelectorAll('figure.chart svg[role=img]').length") >= 3
    broken = "[...document.images].filter((i) => !i.complete || !i.naturalWidth || !i.alt).length"
    assert browser.run(broken) == 0 and browser.run("document.images.length") >= 12
    light = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 128")
    assert light != size.get("dark", False)


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_can_be_used(browser, tmp_path):
    evidence = made_up(Classification(), NAMES, count=400)
    data = contents(evidence, human_error=0.01, images=6)
    browser.open(save(tmp_path, evidence), **DESK)

    # A table is sorted by a click on a heading, and the other way by another.
    rows = data["classes"]["rows"]
    first = "#classes tbody tr:first-child th"
    assert texts(browser, first) == [min(rows, key=lambda r: r["f1"])["name"]]
    browser.point("#classes thead th:nth-child(4) button", click=True)
    recalls = texts(browser, "#classes tbody td:nth-child(4)")
    expected = sorted((row["recall"] for row in rows), reverse=True)
    assert recalls == [f"{100 * value:.2f}\u202f%" for value in expected]
    head = "document.querySelector('#classes thead th:nth-child(4)').ariaSort"
    assert browser.run(head) == "descending"
    browser.point("#classes thead th:nth-child(4) button", click=True)
    assert texts(browser, "#classes tbody td:nth-child(4)") == recalls[::-1]
    assert browser.run(head) == "ascending"

    # A cell says what it is when it is pointed at, and shows its pictures when it is clicked.
    true, said, count = data["confusions"]["pairs"][0]
    support = data["confusions"]["support"][true]
    cell = f".matrix tbody tr:nth-child({true + 1}) td:nth-child({said + 2})"
    browser.point(cell)
    (readout,) = texts(browser, "#confusions .readout")
    assert readout.startswith(f"{count} of {support} {NAMES[true]} (")
    assert readout.endswith(f"were taken for {NAMES[said]}.")
    browser.point(cell, click=True)
    shown = texts(browser, "#confusions .gallery figcaption")
    assert 0 < len(shown) <= count
    for text in shown:
        assert text.startswith(NAMES[said]) and f"is {NAMES[true]}" in text

    # Arrow keys move among cells; Enter is a click.
    browser.run(f"document.querySelector({cell!r}).focus()")
    browser.press("ArrowLeft" if said else "ArrowRight")
    other = said - 1 if said else 1
    readout = texts(browser, "#confusions .readout")[0]
    assert readout.endswith("were recognised." if other == true else f"for {NAMES[other]}.")
    browser.press("Enter")
    assert browser.run("document.querySelectorAll('[aria-selected=true]').length") == 1
    kind = "recognised" if other == true else f"taken for {NAMES[other]}"
    assert texts(browser, "#confusions h3")[0] == f"{NAMES[true]}, {kind}"

    # Galleries show one class.
    assert len(texts(browser, "#pictures .gallery figure")) == 18
    choose = (
        "(() => { const s = document.querySelector('#pictures select'); s.value = '4';"
        "s.dispatchEvent(new Event('change')) })()"
    )
    browser.run(choose)
    captions = texts(browser, "#pictures .gallery figcaption")
    assert captions and len(captions) <= 18
    for text in captions:
        assert text.startswith(NAMES[4]) or f"is {NAMES[4]}" in text

    # Classes are ordered.
    browser.run(choose.replace("#pictures", "#confusions").replace("'4'", "'name'"))
    assert sorted(texts(browser, ".matrix tbody th")) == sorted(NAMES)
    assert texts(browser, ".matrix tbody th") != list(NAMES)


@pytest.mark.slow
@pytest.mark.browser
def test_curves_say_their_values(browser, tmp_path):
    evidence = made_up(Classification(), NAMES, count=100)
    browser.open(save(tmp_path, evidence), **DESK)
    legend = "#course figure:first-of-type .legend"
    assert "epoch 4" in texts(browser, legend)[0]
    browser.run("document.querySelector('#course svg[role=img]').focus()")
    for _ in range(30):
        browser.press("ArrowLeft")
    assert "training0.2000" in texts(browser, legend)[0]
    assert "epoch 1" in texts(browser, legend)[0]


def test_without_a_browser_it_is_said_how_to_get_one(monkeypatch):
    monkeypatch.delenv("ZOO_BROWSER", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BrowserError, match="apt-get install"):
        find_browser()
