"""Files are found by every kind of name, each once, and are read as a source."""

import os

import numpy as np
from PIL import Image
import pytest

from zoo.data.files import FilesSource, list_images, read_list
from zoo.data.loader import Examples, eval_batches
from zoo.errors import ConfigError, DataError
from zoo.training.mesh import batch_sharding, make_mesh


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder `photos` in the working directory, with things in it that are to be passed over."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.png",
        "a.PNG",
        "cats/c.png",
        "cats/deep/d.jpg",
        "cats/deep/[1].png",
        ".hidden/e.png",
        ".f.png",
        "notes.txt",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 8), len(name)).save(path, "PNG")
    (tmp_path / "photos" / "cats" / "deep" / "up").symlink_to("..")
    (tmp_path / "photos" / "cats" / "back").symlink_to(".")
    (tmp_path / "photos" / "broken.png").symlink_to("nowhere")
    return tmp_path / "photos"


ALL = ["a.PNG", "b.png", "cats/c.png", "cats/deep/[1].png", "cats/deep/d.jpg"]


def test_inputs_of_every_kind(photos):
    all_of_it = [f"photos/{name}" for name in ALL]
    for inputs, found in (
        (["photos"], all_of_it),
        (["./photos/"], [f"./{path}" for path in all_of_it]),
        (["photos/b.png", "photos"], all_of_it),
        ([f"./{path}" for path in all_of_it[:1]] + ["photos"], ["./photos/a.PNG", *all_of_it[1:]]),
        (["photos/*.png"], ["photos/b.png"]),
        (["photos/?.*"], all_of_it[:2]),
        (["photos/c*"], all_of_it[2:]),
        (["photos/**/*.png"], [all_of_it[i] for i in (1, 2, 3)]),
        (["**"], all_of_it),
        (["**/deep"], all_of_it[3:]),
        (["**/c?ts/**/*.jpg"], all_of_it[4:]),
        ([f"{photos}/**/d.*"], [str(photos / "cats/deep/d.jpg")]),
        (["photos/cats/deep/[1].png"], [all_of_it[3]]),  # a file of that name, not a pattern
        (["photos/notes.txt", "photos/.f.png"], ["photos/.f.png", "photos/notes.txt"]),
        (["photos/broken.png"], ["photos/broken.png"]),
    ):
        assert list_images(inputs) == sorted(found, key=os.fsencode), inputs


def test_what_finds_nothing_is_said(photos):
    (photos / "empty").mkdir()
    for given, error, words in (
        ("nowhere", ConfigError, "'nowhere': no such file"),
        ("photos/*.gif", ConfigError, "as a pattern it matches nothing"),
        ("photos/**/*.gif", ConfigError, "as a pattern it matches nothing"),
        ("photos/*.txt", ConfigError, "matches 1 files, of which none"),
        ("photos/empty", DataError, "has no images"),
    ):
        with pytest.raises(error, match=words):
            list_images(["photos", given])
    assert list_images([]) == []


def test_a_folder_that_cannot_be_read_is_not_passed_over(photos, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"photos/cats/deep: cannot be read \(Permission denied"):
        list_images(["photos"])


def test_lists_name_files_by_their_bytes():
    names = [b"a b.png", b"caf\xe9.png", b"line\nbreak.png", b"*.png"]
    assert read_list(b"\0".join([*names, names[0], b""]), b"\0") == [
        os.fsdecode(name) for name in sorted(names)
    ]
    assert read_list(b"z\ny") == ["y", "z"]
    assert read_list(b"\n") == []


def test_files_are_a_source_without_labels(photos):
    paths = list_images(["photos/b.png", "photos/notes.txt", "photos/cats/c.png"])
    source = FilesSource(["missing.png", *paths])
    image, target = source[1]
    assert image.shape == (8, 9, 1) and target.shape == source.target_shape == (0,)
    assert source.describe(0) == "missing.png"
    with pytest.raises(DataError, match="missing"):
        source.encoded(0)
    examples = Examples(source, lambda image: np.asarray(image), (8, 9), max_bad=1)
    (batch,) = eval_batches(examples, 8, batch_sharding(make_mesh()))
    assert np.asarray(batch["mask"]).tolist() == [0, 1, 1, 1, 0, 0, 0, 0]
    assert batch["label"].shape == (8, 0)


def test_a_change_of_the_files_changes_the_fingerprint(photos):
    before = FilesSource(["photos/b.png", "x.png"]).fingerprint
    assert before == FilesSource(["photos/b.png", "x.png"]).fingerprint
    assert before != FilesSource(["photos/a.PNG", "x.png"]).fingerprint
    (photos / "b.png").write_bytes(b"")
    assert before != FilesSource(["photos/b.png", "x.png"]).fingerprint
