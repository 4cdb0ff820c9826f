"""The file: whole, well formed, by itself, and harmless whatever classes and files are called."""

import base64
from fnmatch import fnmatch
import hashlib
from html.parser import HTMLParser
import json
import re
import shutil
import tomllib

import numpy as np
import pytest

from tests.analysis.report.made_up import NASTY, made_up
from tests.conftest import ROOT
from zoo.__main__ import main
from zoo.analysis.opening import open_source
from zoo.analysis.predictions import predict
from zoo.analysis.report.evidence import gather
from zoo.analysis.report.page import contents, render, write
from zoo.analysis.trained import open_trained
from zoo.errors import ConfigError
from zoo.tasks.classification import Classification

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Outline(HTMLParser):
    """The elements of a page; fails where they are not nested."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], {}
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


@pytest.fixture(scope="module")
def page():
    evidence = made_up(Classification(), NASTY, count=80)
    return render(contents(evidence, human_error=None, images=4))


def test_the_page_is_well_formed(page):
    outline = Outline(page)
    assert page.startswith("<!doctype html>") and ("html", "lang", "en") in outline.attributes
    ids = [value for _, name, value in outline.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = [value for _, name, value in outline.attributes if name == "aria-labelledby"]
    assert named and {*named} <= {*ids}
    assert outline.tags.count("h1") == 1
    script = outline.texts["script"][1]
    assert {*re.findall(r'(?:byId|open)\("(\w+)"\)', script)} <= {*ids}


def test_the_page_is_by_itself(page):
    outline = Outline(page)
    addresses = [v for _, name, v in outline.attributes if name in ("src", "href", "action")]
    assert addresses == []  # links to sections are made by the script
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {*outline.tags}
    style, (data, script) = outline.texts["style"][0], outline.texts["script"]
    for text in (style, script):
        assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(|innerHTML|insertAdj", text)
        assert {*re.findall(r"https?://[^\"' ]+", text)} <= {"http://www.w3.org/2000/svg"}
    policy = next(v for _, name, v in outline.attributes if name == "content" and "default" in v)
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for text in (style, script):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert all(p["uri"].startswith("data:image/") for p in json.loads(data)["pictures"]["pictures"])


def test_names_are_never_markup(page):
    outline = Outline(page)
    assert outline.tags.count("script") == 2 and "img" not in outline.tags
    data = json.loads(outline.texts["script"][0])
    assert data["pictures"]["names"] == list(NASTY) == data["confusions"]["names"]
    assert any("<script>" in p["place"] for p in data["pictures"]["pictures"])
    found = contents(made_up(Classification(), ["a", "b"]), human_error=None, images=1)
    evil = render({**found, "title": "</title><script>alert(3)</script>"})
    assert Outline(evil).tags == Outline(page).tags


def test_the_files_of_the_page_are_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["zoo"]
    folder = ROOT / "zoo/analysis/report"
    files = [p for p in folder.rglob("*.*") if p.suffix in (".css", ".html", ".js")]
    assert len(files) == 7
    for file in files:
        name = str(file.relative_to(ROOT / "zoo"))
        assert any(fnmatch(name, p) and name.count("/") == p.count("/") for p in patterns), name


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "x.html"
    write(file, "<p>ü \udcff</p>")  # as of a file whose name is not UTF-8
    assert file.read_bytes() == "<p>ü ?</p>".encode()
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OSError):
        write(tmp_path / "folder.html", "x")
    assert {p.name for p in tmp_path.iterdir()} == {"x.html", "folder.html"}


def test_the_report_of_a_run(workdir, tmp_path, capsys):
    out = tmp_path / "page.html"
    command = ["report", str(workdir), f"--out={out}", "--human-error=0.02", "--images=6"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "train: 200 examples" in said and f"written to {out}" in said
    data = json.loads(Outline(out.read_text()).texts["script"][0])
    results = json.loads((workdir / "results.json").read_text())
    metrics = results["metrics"]
    rows = {row["split"]: row for row in data["summary"]["splits"]["rows"]}
    for split, group in (("validation", "val"), ("test", "test")):
        assert rows[split]["examples"] == metrics[group]["examples"]
        assert rows[split]["values"][0]["value"] == pytest.approx(metrics[group]["top1"])
        assert rows[split]["values"][0]["interval"] == pytest.approx(
            metrics[group]["top1_interval"], rel=1e-5
        )
    facts = {name: value for name, value, _ in data["summary"]["facts"]}
    assert f"at step {results['best_step']}" in facts["Weights"]
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    logged = [line for line in map(json.loads, lines) if "val/top1" in line]
    top1 = next(chart for chart in data["course"]["charts"] if chart["name"] == "top1")
    assert top1["series"][1]["y"] == pytest.approx([line["val/top1"] for line in logged])
    assert data["gaps"]["rungs"][0]["error"] == 0.02
    wrong = sum(n for true, said, n in data["confusions"]["cells"] if true != said)
    assert wrong == round(30 * (1 - metrics["test"]["top1"]))
    assert all(not p["place"].startswith("/") for p in data["pictures"]["pictures"])


def test_what_was_evaluated_is_taken_if_it_is_of_these_weights(workdir, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder, ignore=shutil.ignore_patterns("evaluation"))
    trained = open_trained(str(folder))
    found = predict(trained, open_source(trained), {"name": "digits", "split": "test"})
    (folder / "evaluation").mkdir()
    file = folder / "evaluation" / "predictions_test.npz"
    found.save(file)
    said = []
    evidence = gather(trained, train_examples=50, say=said.append)
    assert said == [
        "train: 50 examples of 200",
        "validation: 50 examples",
        "test: 30 examples, as evaluated before",
    ]
    np.testing.assert_array_equal(evidence.look.predictions.logits, found.logits)
    found.logits[:, 0] += 5  # as of other weights
    found.save(file)
    file.with_name("predictions_damaged.npz").write_bytes(b"PK")
    gather(trained, train_examples=50, say=said.append)
    assert said[-1] == "test: 30 examples"


def test_what_is_wrong_is_said(workdir, tmp_path, capsys):
    trained = open_trained(str(workdir))
    with pytest.raises(ConfigError, match="has no split 'elsewhere'"):
        gather(trained, train_dev="elsewhere")
    with pytest.raises(ConfigError, match="comes from no run"):
        gather(trained.__class__(**{**vars(trained), "workdir": None}))
    for arguments, words in (
        (["--out=x.pdf"], "ends with .html"),
        ([f"--out={tmp_path}/none/x.html"], "folder that exists"),
        (["--human-error=1"], "human-error"),
        (["--images=0"], "1 or more"),
    ):
        assert main(["report", str(workdir), *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
