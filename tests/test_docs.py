"""The pages that are written by programs say what the code says."""

import re
import runpy

from PIL import Image

from tests.conftest import ROOT
from zoo.data.augment import OPERATIONS


def test_the_page_of_augmentation_is_up_to_date_and_has_every_picture():
    program = runpy.run_path(str(ROOT / "docs/make_augmentation.py"))
    text = (ROOT / "docs/augmentation.md").read_text()
    assert text == program["page"](), "run `python docs/make_augmentation.py`"
    assert {*re.findall(r"^### (\w+)$", text, re.M)} == {*OPERATIONS, "crop", "mixup", "cutmix"}
    shown = re.findall(r"^!\[(\w+)\]\((.*)\)$", text, re.M)
    assert [name for name, _ in shown] == re.findall(r"^### (\w+)$", text, re.M)
    files = [ROOT / "docs" / path for _, path in shown]
    assert {*(ROOT / "docs/augmentation").iterdir()} == {*files}
    assert sum(file.stat().st_size for file in files) < 2**20
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (5 * 128 + 4 * 6, 128)


def test_the_picture_of_corruptions_has_them_all(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    program = runpy.run_path(str(ROOT / "docs/make_corruptions.py"))
    file = ROOT / "docs/corruptions.webp"
    assert file.stat().st_size < 2**19
    with Image.open(file) as picture:
        assert picture.size == program["size"](), "run `python docs/make_corruptions.py`"
