"""Ten thousand files, killed at random moments: every file once, with the same bytes."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest

from tests.analysis.test_batch_prediction import rows_of
from tests.conftest import ROOT
from tests.programs import environment

FILES, BAD = 10_000, 300


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """10,000 digits, shifted and turned, of which 300 cannot be read."""
    from sklearn.datasets import load_digits

    digits = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    draw = random.Random(0)
    bad = set(draw.sample(range(FILES), BAD))
    root = tmp_path_factory.mktemp("many")
    for i in range(FILES):
        folder = root / f"{i % 97:02}"
        folder.mkdir(exist_ok=True)
        file = folder / f"{i:05}.png"
        turned = np.roll(np.rot90(digits[i % len(digits)], i // len(digits)), i % 3, axis=1)
        Image.fromarray(turned).save(file, compress_level=1)
        if i in bad:
            file.write_bytes(file.read_bytes()[: draw.choice((0, 7, 60))])
    return root


def start(workdir, many, out) -> subprocess.Popen:
    command = [sys.executable, "-m", "zoo", "predict", str(workdir), str(many), f"--out={out}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, "--batch-size=32"], cwd=ROOT, env=environment(), **pipes)


def wait_for_rows(process: subprocess.Popen, journal, count: int) -> None:
    """Returns when a job has so many rows, or has ended, or after five minutes."""
    deadline, found, position = time.monotonic() + 300, -1, 0
    while found < count and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
        if journal.exists():
            with journal.open("rb") as lines:
                lines.seek(position)
                found += lines.read().count(b"\n")
                position = lines.tell()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_three_times_every_file_is_there_once(workdir, many, tmp_path):
    out, whole = tmp_path / "x.csv", tmp_path / "whole.csv"
    draw = random.Random(1)
    signals = [signal.SIGKILL] * 3 + [signal.SIGTERM]
    for signum, rows in zip(signals, sorted(draw.sample(range(FILES - 1500), 4)), strict=True):
        process = start(workdir, many, out)
        wait_for_rows(process, tmp_path / ".x.csv.job", rows)
        time.sleep(draw.random() * 0.05)
        process.send_signal(signum)
        _, err = process.communicate(timeout=200)
        assert process.returncode == (143 if signum == signal.SIGTERM else -signum), err
        assert not out.exists()
    for name in (out, whole):
        process = start(workdir, many, name)
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
        assert f"{FILES:,} files, {BAD} of them bad" in err
        assert ("by an earlier start" in err) == (name == out)
    assert out.read_bytes() == whole.read_bytes()
    rows = rows_of(out)
    assert [row["file"] for row in rows] == sorted(map(str, many.rglob("*.png")))
    assert sum(row["error"] is not None for row in rows) == BAD
    assert all((row["class"] is None) == (row["error"] is not None) for row in rows)
