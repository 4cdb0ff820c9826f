"""A job that is stopped at any point goes on from its last whole batch, and no other job does."""

import contextlib
import errno
import itertools
import json
import resource

import pytest

from zoo.analysis.journal import dump, open_journal
from zoo.errors import ConfigError, TemporaryError

FILES = [f"{i}.png" for i in range(10)]
JOB = {"weights": "abc", "top": (1, 2)}


def rows(start: int, stop: int) -> list[dict]:
    return [{"file": FILES[i], "error": "bad" if i % 4 == 3 else None} for i in range(start, stop)]


@contextlib.contextmanager
def journal_of(out, job=JOB):
    with open_journal(out, job, "1 cpu") as journal:
        yield journal


def begin(out, count: int) -> None:
    with journal_of(out) as journal:
        assert journal.fresh and journal.resume(FILES, 3) == (0, 0)
        journal.append(rows(0, count))


def test_every_cut_leaves_whole_batches(tmp_path):
    out = tmp_path / "x.csv"
    begin(out, 10)
    whole = (tmp_path / ".x.csv.job").read_bytes()
    lines = whole.splitlines(keepends=True)
    ends = list(itertools.accumulate(map(len, lines)))
    for length in range(ends[0], len(whole)):
        (tmp_path / ".x.csv.job").write_bytes(whole[:length])
        there = sum(end <= length for end in ends[1:])
        kept = there - there % 3
        with journal_of(out) as journal:
            assert not journal.fresh
            assert journal.resume(FILES, 3) == (kept, sum(i % 4 == 3 for i in range(kept)))
            journal.append(rows(kept, 10))
            assert list(journal.rows()) == rows(0, 10)
        assert (tmp_path / ".x.csv.job").read_bytes() == whole


def test_a_header_cut_short_is_a_beginning(tmp_path):
    out = tmp_path / "x.csv"
    begin(out, 3)
    header = (tmp_path / ".x.csv.job").read_bytes().splitlines(keepends=True)[0]
    for length in (0, 1, len(header) - 1):
        (tmp_path / ".x.csv.job").write_bytes(header[:length])
        begin(out, 3)


def test_what_a_power_cut_leaves_is_not_taken_for_rows(tmp_path):
    out, file = tmp_path / "x.csv", tmp_path / ".x.csv.job"
    begin(out, 10)
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damage in (
        bytes(len(lines[5])),
        bytes(len(lines[5]) - 1) + b"\n",
        b"[]\n",
        b"7\n",
        dump({"file": FILES[4]}),
        lines[6],  # of another file than belongs there
        lines[5].replace(b"png", b"p\xffg"),
    ):
        file.write_bytes(b"".join([*lines[:5], damage, *lines[6:]]))
        with journal_of(out) as journal:
            assert journal.resume(FILES, 3)[0] == 3, damage
    file.write_bytes(whole + b"more")
    with journal_of(out) as journal:
        assert journal.resume(FILES, 3) == (10, 2)
    assert file.read_bytes() == whole


def test_another_job_is_refused(tmp_path):
    out = tmp_path / "x.csv"
    begin(out, 3)
    with pytest.raises(ConfigError, match=r"weights was .abc. and is .def.*job to begin"):
        with journal_of(out, {**JOB, "weights": "def"}):
            pass
    with journal_of(out) as journal:
        assert journal.resume(FILES, 3) == (3, 0)


def test_what_is_finished_stays_so(tmp_path):
    out = tmp_path / "x.csv"
    begin(out, 10)
    with journal_of(out) as journal:
        out.write_text("the table")
        journal.finish({"files": 10})
    with journal_of(out) as journal:
        assert journal.finished == {"files": 10} and not journal.fresh
    with pytest.raises(ConfigError, match=r"delete .*/x\.csv to begin anew"):
        with journal_of(out, {"weights": "def"}):
            pass
    out.unlink()
    begin(out, 3)


def test_a_strangers_file_is_left_alone(tmp_path):
    out = tmp_path / "x.csv"
    out.write_text("precious")
    for _ in range(2):
        with pytest.raises(ConfigError, match="not from here"), journal_of(out):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


def test_only_one_process_writes(tmp_path):
    out = tmp_path / "x.csv"
    with journal_of(out) as journal:
        journal.resume(FILES, 3)
        with pytest.raises(TemporaryError, match="by another process"), journal_of(out):
            pass
        journal.append(rows(0, 3))
    with journal_of(out) as journal:
        assert journal.resume(FILES, 3) == (3, 0)


def test_other_devices_are_told(tmp_path, capsys):
    out = tmp_path / "x.csv"
    begin(out, 3)
    with open_journal(out, JOB, "8 tpu") as journal:
        assert journal.resume(FILES, 3) == (3, 0)
        journal.append(rows(3, 10))
        assert list(journal.rows()) == rows(0, 10)
    assert "other devices" in capsys.readouterr().err


def test_no_room_is_no_loss(tmp_path):
    out = tmp_path / "x.csv"
    begin(out, 6)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = (tmp_path / ".x.csv.job").stat().st_size + 50  # for a row and a part of the next
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        with journal_of(out) as journal:
            journal.resume(FILES, 3)
            with pytest.raises(TemporaryError, match="rows so far are kept") as caught:
                journal.append(rows(6, 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    with journal_of(out) as journal:
        assert journal.resume(FILES, 3) == (6, 1)
        journal.append(rows(6, 10))
        assert list(journal.rows()) == rows(0, 10)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    for out in (tmp_path / "none" / "x.csv", tmp_path / ("x" * 250 + ".csv")):
        with pytest.raises(ConfigError, match="cannot be written to"), journal_of(out):
            pass


def test_lines_are_strict_json():
    with pytest.raises(ValueError, match="JSON"):
        dump({"x": float("nan")})
    assert json.loads(dump({"file": "a\nb é"})) == {"file": "a\nb é"}
    assert dump({"file": "a\nb"}).count(b"\n") == 1


def test_a_target_called_finished_is_no_end(tmp_path):
    out = tmp_path / "x.csv"
    with journal_of(out) as journal:
        journal.resume(FILES[:2], 1)
        journal.append([{"file": FILES[0], "finished": 0.5, "error": None}])
    with journal_of(out) as journal:
        assert journal.finished is None and journal.resume(FILES[:2], 1) == (1, 0)
