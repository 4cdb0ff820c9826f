"""Files in, a table out: every file once, in order, whatever is among them and whatever happens."""

import csv
import dataclasses
import io
import json
import os
from pathlib import Path
import shutil
import signal
import sys

from flax import linen as nn
import jax
import numpy as np
from PIL import Image
import pyarrow.parquet
import pytest

from zoo.__main__ import main
from zoo.analysis import batch_prediction
from zoo.analysis.answers import answers_of
from zoo.analysis.journal import Journal, open_journal
from zoo.analysis.running import examples_of, gather, logits_of, run_over
from zoo.analysis.trained import open_trained
from zoo.data.files import FilesSource, list_images, to_path, to_text
from zoo.layers import Classifier, Conv

ODD = ["a b.png", 'quote".png', "comma,.png", "line\nbreak\r.png", "caf\udce9.png", r"\x41.png"]


@pytest.fixture(scope="module")
def photos(folders, tmp_path_factory) -> Path:
    """30 digits, 6 of them with odd names, and 3 files that are none."""
    root = tmp_path_factory.mktemp("photos")
    for i, path in enumerate(sorted((folders / "test").rglob("*.png"))):
        (root / f"{path.parent.name}").mkdir(exist_ok=True)
        shutil.copy(path, root / (ODD[i] if i < len(ODD) else f"{path.parent.name}/{path.name}"))
    (root / "aaa.png").write_bytes(b"")
    (root / "digit3" / "text.png").write_text("no image")
    (root / "zzz.png").write_bytes((root / "a b.png").read_bytes()[:60])
    return root


def predict(workdir, *arguments) -> int:
    return main(["predict", str(workdir), *map(str, arguments), "--batch-size=8", "--threads=2"])


@pytest.fixture(scope="module")
def tables(workdir, photos, tmp_path_factory) -> Path:
    """The table in each format."""
    folder = tmp_path_factory.mktemp("tables")
    for ending in ("csv", "jsonl", "parquet"):
        assert predict(workdir, photos, "--top=3", f"--out={folder}/x.{ending}") == 0
    return folder


def rows_of(file: Path) -> list[dict]:
    """Reads a table as anyone would."""
    if file.suffix == ".parquet":
        return pyarrow.parquet.read_table(file).to_pylist()
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    numbers = [name for name in rows[0] if name.startswith("probability")]
    return [
        {k: None if v == "" else float(v) if k in numbers else v for k, v in row.items()}
        for row in rows
    ]


def test_all_formats_say_the_same(tables):
    first = rows_of(tables / "x.jsonl")
    assert len(first) == 33
    assert rows_of(tables / "x.csv") == first
    assert rows_of(tables / "x.parquet") == first


def test_every_file_is_there_once_whatever_its_name(tables, photos):
    rows = rows_of(tables / "x.csv")
    paths = [to_path(row["file"]) for row in rows]
    assert paths == list_images([str(photos)]) and len(set(paths)) == 33
    assert {os.path.basename(path) for path in paths} >= set(ODD)
    for row in rows:
        row["file"].encode("utf-8")


def test_answers_are_the_models(tables, workdir):
    trained = open_trained(str(workdir))
    rows = rows_of(tables / "x.jsonl")
    good = [row for row in rows if row["error"] is None]
    source = FilesSource([to_path(row["file"]) for row in good])
    examples = examples_of(trained, source)
    logits = gather(run_over(trained, examples, logits_of(trained))).outputs
    assert [row["class"] for row in good] == [f"digit{i}" for i in logits.argmax(1)]
    p = np.exp(logits.astype(np.float64))
    p = np.sort(p / p.sum(1, keepdims=True))[:, ::-1]
    found = [[row[f"probability{e}"] for e in ("", "_2", "_3")] for row in good]
    np.testing.assert_allclose(found, p[:, :3], rtol=1e-4)


def test_bad_files_have_an_error_and_no_answer(tables):
    bad = [row for row in rows_of(tables / "x.jsonl") if row["error"]]
    assert [os.path.basename(row["file"]) for row in bad] == ["aaa.png", "text.png", "zzz.png"]
    for row, words in zip(bad, ("empty", "none of JPEG, PNG", "cannot be decoded"), strict=True):
        assert words in row["error"] and "0x" not in row["error"]
        assert {v for k, v in row.items() if k not in ("file", "error")} == {None}


def test_again_is_no_work(tables, workdir, photos, capsys):
    stamp = (tables / "x.csv").stat()
    assert predict(workdir, photos, "--top=3", f"--out={tables}/x.csv") == 0
    assert "is finished: 33 files, 3 of them bad; nothing to do" in capsys.readouterr().err
    assert (tables / "x.csv").stat() == stamp


def test_another_job_is_refused(tables, workdir, photos, capsys):
    for folder, top, words in (
        (photos, 2, "columns was"),
        (photos / "digit3", 3, "number of files was 33 and is"),
    ):
        assert predict(workdir, folder, f"--top={top}", f"--out={tables}/x.csv") == 2
        err = capsys.readouterr().err
        assert "another job" in err and words in err
    other = f"{workdir}@20"
    assert predict(other, photos, "--top=3", f"--out={tables}/x.csv") == 2
    assert "weights was" in capsys.readouterr().err


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_killed_anywhere_it_ends_with_the_same_bytes(
    ending, tables, workdir, photos, tmp_path, monkeypatch
):
    out = tmp_path / f"x.{ending}"
    arguments = (workdir, photos, "--top=3", f"--out={out}")

    def kill_in(owner, name, *, after: bool, call: int = 1):
        calls, function = [], getattr(owner, name)

        def dying(*args, **kwargs):
            calls.append(name)
            if len(calls) == call and not after:
                raise Killed
            result = function(*args, **kwargs)
            if len(calls) == call:
                raise Killed
            return result

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, dying)
            predict(*arguments)

    kill_in(Journal, "append", after=True, call=2)
    assert not out.exists()
    with (tmp_path / f".x.{ending}.job").open("ab") as journal:
        journal.write(b'{"file": "torn')
    kill_in(Journal, "append", after=False, call=2)
    kill_in(batch_prediction, "write_table", after=False)
    kill_in(batch_prediction, "write_table", after=True)
    assert out.exists()
    assert predict(*arguments) == 0
    assert out.read_bytes() == (tables / f"x.{ending}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".x.{ending}.job", out.name]


def test_a_signal_stops_between_batches(tables, workdir, photos, tmp_path, monkeypatch, capsys):
    arguments = (workdir, photos, "--top=3", f"--out={tmp_path}/x.csv")
    append = Journal.append

    def ask(self, rows):
        append(self, rows)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", ask)
        assert predict(*arguments) == 128 + signal.SIGTERM
    assert "stopped after 8 of 33 files; all is kept" in capsys.readouterr().err
    assert predict(*arguments) == 0
    assert "33 files, 3 of them bad (8 by an earlier start)" in capsys.readouterr().err
    assert (tmp_path / "x.csv").read_bytes() == (tables / "x.csv").read_bytes()


def test_a_second_process_is_refused(workdir, photos, tmp_path, capsys):
    with open_journal(tmp_path / "x.csv", {}, "") as journal:
        journal.resume([], 1)
        assert predict(workdir, photos, f"--out={tmp_path}/x.csv") == 75
    assert "being written by another process" in capsys.readouterr().err


def test_lines_for_a_person(workdir, photos, capsys, monkeypatch):
    listed = os.fsencode("\0".join(str(photos / name) for name in [*ODD[3:], "gone.png"]))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert predict(workdir, "-", "-0", "--top=2") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, sorted(ODD[3:], key=os.fsencode), strict=True):
        assert line.startswith(f"{photos}/{to_text(name)[:3]}") and line.count(" %") == 2
    assert r"line\nbreak\r.png  digit" in out
    assert "gone.png: cannot be decoded ([Errno 2] No such file" in err
    assert "4 files, 1 of them bad" in err


def test_bad_files_and_exit_codes(workdir, photos, tmp_path, capsys):
    one = [photos / "aaa.png", photos / "a b.png"]
    assert predict(workdir, *one, f"--out={tmp_path}/x.csv") == 0
    assert predict(workdir, *one, f"--out={tmp_path}/x.csv", "--strict") == 2
    assert "1 of 2 files could not be read" in capsys.readouterr().err
    assert predict(workdir, one[0], f"--out={tmp_path}/y.csv") == 2
    assert len(rows_of(tmp_path / "y.csv")) == 1


def test_an_answer_that_is_not_finite_is_none(workdir, photos):
    trained = open_trained(str(workdir))
    nothing = jax.tree.map(lambda array: array * np.nan, trained.variables)
    trained = dataclasses.replace(trained, variables=nothing)
    answers = answers_of(trained, 2)
    ((row,),) = batch_prediction.predict_files(
        trained, answers, [str(photos / "a b.png")], batch_size=8
    )
    assert row["error"] == "the model's answer is not finite" and row["class"] is None


def test_sorted_by_class(workdir, photos, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "photos" / "sorted"  # among the inputs
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(photos / "digit4", tmp_path / "photos" / "more")  # equal names
    arguments = (
        workdir,
        tmp_path / "photos",
        f"--folder-by-class={folder}",
        "--min-probability=.6",
    )
    place, count = batch_prediction.Sorter.place, []

    def die(self, *args):
        if len(count) == 9:
            raise Killed
        count.append(args)
        place(self, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(batch_prediction.Sorter, "place", die)
        predict(*arguments)
    assert predict(*arguments) == 0
    rows = rows_of(folder / "predictions.csv")
    good = [row for row in rows if not row["error"]]
    placed = [p for p in folder.rglob("*/*") if p.is_file()]
    assert len(placed) == len(good) == len(rows) - 3
    for kind in {row["class"] for row in good}:
        sure = [to_path(r["file"]) for r in good if r["class"] == kind and r["probability"] >= 0.6]
        there = sorted(p.read_bytes() for p in placed if p.parent.name == kind)
        assert there == sorted(Path(path).read_bytes() for path in sure)
    assert any(p.parent.name == "_unsure" for p in placed)
    assert predict(*arguments) == 0
    assert "nothing to do" in capsys.readouterr().err
    (folder / "predictions.csv").unlink()
    assert predict(*arguments) == 2
    assert "has something in it" in capsys.readouterr().err


def test_what_is_wrong_is_said(workdir, photos, tmp_path, capsys, monkeypatch):
    (tmp_path / "strangers.csv").write_text("precious")
    out = f"--out={tmp_path}/x.csv"
    for arguments, words in (
        ([photos, "--top=0"], "--top=0: must be 1 or more"),
        ([photos, "--min-probability=2", "--folder-by-class=x"], "from 0 to 1"),
        ([photos, "--link"], "belong to --folder-by-class"),
        ([photos, "-0"], "give - as an input"),
        ([tmp_path / "none"], "no such file or folder"),
        (["nothing/*.png", out], "matches nothing"),
        ([photos, f"--out={tmp_path}/x.txt"], "must end with .csv, .jsonl, .parquet"),
        ([photos, f"--out={tmp_path}/none/x.csv"], "there is no folder"),
        ([photos, f"--out={tmp_path}/strangers.csv"], "not from here"),
        ([photos, f"--folder-by-class={tmp_path}/strangers.csv"], "File exists"),
    ):
        assert predict(workdir, *arguments) == 2
        assert words in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert predict(workdir, "-", out) == 2
    assert "no files" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert predict(workdir, photos, f"--out={tmp_path}/x.parquet") == 2
    assert "zoo[parquet]" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["strangers.csv"]
    assert (tmp_path / "strangers.csv").read_text() == "precious"


def test_one_grey_picture_is_enough(workdir, tmp_path):
    Image.new("L", (9, 7), 3).save(tmp_path / "one.bmp")
    assert predict(workdir, tmp_path / "one.bmp", f"--out={tmp_path}/x.jsonl") == 0
    (row,) = rows_of(tmp_path / "x.jsonl")
    assert len(row) == 12 and row["error"] is None


class WithBatchNorm(Classifier):
    @nn.compact
    def endpoints(self, images, *, train):
        x = Conv(8, 3, name="conv")(images)
        x = self.batch_norm(train, epsilon=1e-3, momentum=0.9)(name="bn")(x)
        return self.pool_and_classify(nn.relu(x), 0.0, train)


def test_folded_batchnorm_says_the_same(workdir, photos):
    trained, path = open_trained(str(workdir)), str(photos / "a b.png")
    model = WithBatchNorm(num_classes=10)
    images = jax.numpy.zeros((1, *trained.image_shape))
    variables = model.init(jax.random.key(0), images, train=False)
    statistics = {"mean": jax.numpy.linspace(-1, 1, 8), "var": jax.numpy.linspace(0.1, 3, 8)}
    variables = {**variables, "batch_stats": {"bn": statistics}}
    trained = dataclasses.replace(trained, model=model, variables=variables)
    ((row,),) = batch_prediction.predict_files(
        trained, answers_of(trained, 10), [path], batch_size=8
    )
    logits = model.apply(variables, trained.preprocessing(path)[None], train=False)
    expected = {f"digit{i}": p for i, p in enumerate(np.asarray(jax.nn.softmax(logits))[0])}
    endings = ["", *(f"_{rank}" for rank in range(2, 11))]
    found = {row[f"class{ending}"]: row[f"probability{ending}"] for ending in endings}
    assert found == pytest.approx(expected, rel=1e-4)
