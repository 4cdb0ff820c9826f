"""Images find their place in class folders, by names of which no two are the same."""

import os

import pytest

from zoo.analysis.sorting import UNSURE, Sorter, check_is_empty, distinct, outside
from zoo.errors import ConfigError, DataError


@pytest.fixture
def images(tmp_path):
    paths = []
    for name in ("a/x.png", "b/x.png", "b/x-2.png", "c/y.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        paths.append(str(path))
    return paths


def tree(folder) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def sort(images, folder, link=False, order=range(4)):
    sorter = Sorter(folder, images, ("cat", "a/dog", ".."), 0.5, link)
    answers = [("cat", 0.9), ("cat", 0.6), ("a/dog", 0.5), ("..", 0.4)]
    for index in order:
        sorter.place(index, *answers[index])


EXPECTED = {
    "cat/x.png": "a/x.png",
    "cat/x-3.png": "b/x.png",
    "a_dog/x-2.png": "b/x-2.png",
    f"{UNSURE}/y.png": "c/y.png",
}


@pytest.mark.parametrize("link", [False, True])
def test_images_go_where_their_class_says(images, tmp_path, link):
    sort(images, tmp_path / "sorted", link)
    assert tree(tmp_path / "sorted") == EXPECTED
    assert (tmp_path / "sorted/cat/x.png").is_symlink() == link


def test_again_from_the_middle_changes_nothing(images, tmp_path):
    folder = tmp_path / "sorted"
    sort(images, folder, order=(0, 1))
    (folder / ".image.tmp").write_text("cut sh")  # as a kill leaves it
    stamp = os.stat(folder / "cat/x.png").st_ino
    sort(images, folder)
    assert tree(folder) == EXPECTED
    assert os.stat(folder / "cat/x.png").st_ino == stamp


def test_what_cannot_be_placed_is_said(images, tmp_path):
    os.unlink(images[0])
    with pytest.raises(DataError, match=r"x\.png: cannot be put into .*cat"):
        sort(images, tmp_path / "sorted")
    assert tree(tmp_path / "sorted") == {}


def test_no_two_names_are_the_same():
    long = "é" * 125 + ".png"
    many = ["x.png"] * 1000 + ["X.png", "x-7.png", long, long]
    found = distinct(many)
    assert len({name.casefold() for name in found}) == len(many)
    assert found[0] == "x.png" and found[1001] == "x-7.png" and found[1002] == long
    assert max(len(os.fsencode(name)) for name in found) <= 255
    assert found[1003].endswith("-2.png")
    assert distinct([UNSURE, "_unsure"]) == [UNSURE, "_unsure-2"]


def test_hidden_and_odd_class_names_stay_inside(images, tmp_path):
    names = ("..", ".", "", "a/b", "a_b", "a\nb", "n" * 300, "cat", "cat")
    sorter = Sorter(tmp_path, images, names, 0.0, False)
    folders = [sorter.target(0, name, 1.0).parent for name in dict.fromkeys(names)]
    assert len(set(folders)) == 8
    for folder in folders:
        assert folder.parent == tmp_path and not folder.name.startswith(".")
        folder.mkdir()


def test_a_folder_must_be_new_or_empty(tmp_path):
    check_is_empty(tmp_path / "none")
    (tmp_path / ".hidden").touch()
    check_is_empty(tmp_path)
    (tmp_path / "x").touch()
    with pytest.raises(ConfigError, match="has something in it"):
        check_is_empty(tmp_path)


def test_what_was_sorted_is_no_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sorted/cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to("sorted")
    paths = ["a.png", "sorted.png", "sorted/cat/a.png", "link/cat/a.png", "./sorted/b.png"]
    assert outside(paths, tmp_path / "sorted") == ["a.png", "sorted.png"]
