"""Every door through which data come in, with real files."""

import gzip
import os
from pathlib import Path
import re
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from zoo.data import digits
from zoo.data.mock import SHAPES, MockSource
from zoo.data.source import ArraySource, open_splits, parse_split, slice_bounds
from zoo.errors import ConfigError, DataError


def open_train(name: str, split: str = "train", **options):
    return open_splits(name, train=split, validation="", test="", **options).train


# -- digits and TFDS ------------------------------------------------------------------------


def test_digits_are_the_1797_images_of_scikit_learn():
    from sklearn.datasets import load_digits

    raw = load_digits()
    splits = open_splits("digits", train="train", validation="validation", test="test")
    assert [len(s) for s in splits] == [1258, 180, 359]
    assert splits.train.class_names == tuple("0123456789")
    seen = []
    for source in splits:
        examples = [source[i] for i in range(len(source))]
        seen += [(image.tobytes(), label) for image, label in examples]
        counts = np.bincount([label for _, label in examples], minlength=10)
        assert counts.max() - counts.min() <= len(source) * 0.02  # stratified
    expected = np.round(raw.images * 255 / 16).astype(np.uint8)
    wanted = [(image.tobytes(), int(t)) for image, t in zip(expected, raw.target, strict=True)]
    assert sorted(seen) == sorted(wanted)
    prepared = Path(os.environ["TFDS_DATA_DIR"]) / "digits" / "1.0.0"
    assert list(prepared.glob("digits-train.array_record-*"))
    assert "tensorflow" not in sys.modules


def test_digits_split_never_changes():
    from sklearn.datasets import load_digits

    parts = digits.split_indices(load_digits().target)
    assert parts["test"][:8].tolist() == [0, 1, 7, 9, 32, 35, 55, 56]
    everything = np.sort(np.concatenate(list(parts.values())))
    assert (everything == np.arange(1797)).all()


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("mnist", (28, 28, 1), 10),
        ("fashion_mnist", (28, 28, 1), 10),
        ("cifar10", (32, 32, 3), 10),
        ("imagenet2012", (None, None, 3), 1000),
    ],
)
def test_any_tfds_name_works(name, shape, classes):
    with tfds.testing.mock_data(num_examples=7):
        source = open_train(name)
        image, label = source[3]
        assert len(source) == 7
    assert len(source.class_names) == classes
    assert all(want in (None, have) for want, have in zip(shape, image.shape, strict=True))
    assert image.dtype == np.uint8
    assert 0 <= label < classes


def test_tfds_slices():
    assert len(open_train("digits", "train[:100]")) == 100
    assert open_train("digits").fingerprint != open_train("digits", "train[:100]").fingerprint


def test_tfrecord_names_the_command_that_converts(tmp_path):
    prepared = tmp_path / "digits" / "1.0.0"
    prepared.parent.mkdir()
    open_train("digits", data_dir=str(tmp_path / "new"))
    (tmp_path / "new" / "digits" / "1.0.0").rename(prepared)
    info = prepared / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match=r"convert_format --out_file_format=array_record") as error:
        open_train("digits", data_dir=str(tmp_path))
    assert f"--dataset_version_dir={prepared}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "split", "error", "message"),
    [
        ("mnits", "train", ConfigError, "Did you mean 'mnist'"),
        ("digits", "trian", ConfigError, "trian"),
        ("digits", "train[::2]", ConfigError, "train[::2]"),
        ("mnist", "train", DataError, "is not prepared in"),
        ("coco", "train", DataError, "TFDS cannot open it here"),
        ("foldr:/tmp/x", "train", ConfigError, "Did you mean 'folder'?"),
        ("/tmp/x", "train", ConfigError, "no such kind of dataset"),
        ("mock:", "train", ConfigError, "say how many classes"),
        ("mock:ten", "train", ConfigError, "config.data.name='mock:ten'"),
        ("mock:0", "train", ConfigError, "1 or more, as in 'mock:1000'"),
        ("mock:10", "train[::2]", ConfigError, "at most one slice"),
    ],
)
def test_bad_names_say_what_is_allowed(name, split, error, message):
    with pytest.raises(error) as caught:
        open_train(name, split)
    assert message in str(caught.value)


def test_an_unknown_feature_names_those_there_are():
    with pytest.raises(ConfigError, match=r"no feature 'lable', only \['image', 'label'\]"):
        open_train("digits", label_key="lable")


# -- splits ---------------------------------------------------------------------------------


def test_slices_are_those_of_tfds():
    assert parse_split("train[:90%]") == ("train", None, "90%")
    bounds = [
        slice_bounds(*parse_split(f"x{s}")[1:], 200) for s in ("", "[:25%]", "[-50:]", "[9:7]")
    ]
    assert bounds == [(0, 200), (0, 50), (150, 200), (9, 7)]
    for bad in ("", "train[", "train[:5]+test", "train[a:]"):
        with pytest.raises(ConfigError, match="at most one slice"):
            parse_split(bad)


def test_an_empty_split_is_refused(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(DataError, match="train split has no examples"):
        open_train(f"folder:{tmp_path}", "train[:0]")


# -- arrays ---------------------------------------------------------------------------------


def test_arrays():
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    source = ArraySource(images, np.array([1, 0, 1]))
    image, label = source[2]
    assert image.shape == (4, 5, 1)
    assert (label, source.class_names) == (1, ("0", "1"))
    assert source.fingerprint == ArraySource(images, np.array([1, 0, 1])).fingerprint
    assert source.fingerprint != ArraySource(images, np.array([1, 1, 1])).fingerprint


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4), np.float32), [0, 1], "must be uint8"),
        (np.zeros((2, 4, 4, 2), np.uint8), [0, 1], r"\[N, H, W, 1 or 3\]"),
        (np.zeros((2, 4, 4), np.uint8), [0, 1, 2], "must be 2 integers"),
        (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0], "must be 2 integers"),
        (np.zeros((2, 4, 4), np.uint8), [0, -1], "label -1, allowed are 0 to 2"),
        (np.zeros((2, 4, 4), np.uint8), [0, 3], "label 3, allowed are 0 to 2"),
    ],
)
def test_bad_arrays(images, labels, message):
    with pytest.raises(DataError, match=message):
        ArraySource(images, np.array(labels), ["a", "b", "c"])


# -- noise ----------------------------------------------------------------------------------


def test_mock_images_are_the_same_everywhere_and_differ_from_each_other():
    source = MockSource(10, 64)
    assert (len(source), source.class_names) == (64, tuple("0123456789"))
    examples = [source[i] for i in range(64)]
    assert [label for _, label in examples] == [i % 10 for i in range(64)]
    assert {image.shape for image, _ in examples} == set(SHAPES)
    assert {image.dtype for image, _ in examples} == {np.dtype(np.uint8)}
    assert len({image.tobytes() for image, _ in examples}) == 64
    again = MockSource(10, 64)
    assert all((image == again[i][0]).all() for i, (image, _) in enumerate(examples))
    assert examples[0][0].shape == (375, 500, 3)
    assert examples[0][0].ravel()[:4].tolist() == [51, 17, 119, 156]
    assert min(image.min() for image, _ in examples) == 0
    assert max(image.max() for image, _ in examples) == 255


def test_mock_splits_have_any_name_and_slices():
    splits = open_splits("mock:7", train="train[:25%]", validation="train[25%:]", test="other")
    assert [len(s) for s in splits] == [128, 384, 512]
    whole = open_train("mock:7")
    for part, index in ((splits.train, 3), (splits.validation, 131)):
        image, label = part[3]
        assert (image == whole[index][0]).all()
        assert label == whole[index][1]
        assert part.describe(3) == f"mock train example {index}"
    assert splits.test[3][0].tobytes() != whole[3][0].tobytes()
    assert len({s.fingerprint for s in (*splits, whole, open_train("mock:8"))}) == 5
    with pytest.raises(IndexError):
        splits.train[128]


@pytest.mark.parametrize("numbers", [(0, 5), (5, 0)])
def test_mock_numbers_are_checked(numbers):
    with pytest.raises(ConfigError, match=r"=0: must be 1 or more"):
        MockSource(*numbers)


# -- IDX ------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + array.tobytes())


@pytest.fixture
def idx_folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for prefix, count, suffix in (("train", 20, ".gz"), ("t10k", 10, "")):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", images)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
    return tmp_path


def test_idx(idx_folder):
    name = f"idx:{idx_folder}"
    splits = open_splits(name, train="train[:15]", validation="train[15:]", test="test")
    assert [len(s) for s in splits] == [15, 5, 10]
    assert {len(s.class_names) for s in splits} == {10}
    assert splits.validation[0][1] == 15 % 10


def damage(action):
    def apply(folder):
        action(folder / "t10k-images-idx3-ubyte", folder)

    return apply


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (damage(lambda file, _: file.unlink()), "no such file"),
        (damage(lambda file, _: file.write_bytes(file.read_bytes()[:-1])), "cut short"),
        (damage(lambda file, _: file.write_bytes(b"\x89PNG")), "not an IDX file"),
        (damage(lambda file, _: file.write_bytes(b"")), "not an IDX file"),
        (
            damage(lambda file, folder: write_idx(file, np.zeros((9, 28, 28), np.uint8))),
            "do not belong together",
        ),
        (
            damage(lambda file, _: file.rename(file.with_suffix(".gz"))),
            "cannot be read",
        ),
    ],
)
def test_damaged_idx(idx_folder, action, message):
    action(idx_folder)
    with pytest.raises(DataError, match=message):
        open_train(f"idx:{idx_folder}", "test")


def test_idx_has_no_validation_split(idx_folder):
    with pytest.raises(ConfigError, match=r"take a slice"):
        open_train(f"idx:{idx_folder}", "validation")


FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not FASHION.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_as_debian_installs_it():
    splits = open_splits(f"idx:{FASHION}", train="train", validation="", test="test")
    assert [len(splits.train), len(splits.test)] == [60_000, 10_000]
    assert np.bincount(splits.train.labels).tolist() == [6_000] * 10


# -- folders --------------------------------------------------------------------------------


def make_folder(root: Path, splits=("train",), classes=("cat", "dog"), count=4) -> Path:
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((8, 6, 3), 20 * s + 50 * c + i, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def test_folder(tmp_path):
    make_folder(tmp_path, ("train", "val", "test"))
    splits = open_splits(f"folder:{tmp_path}", train="train", validation="validation", test="test")
    assert [len(s) for s in splits] == [8, 8, 8]
    assert splits.train.class_names == ("cat", "dog")
    for i in range(8):
        image, label = splits.train[i]
        assert image.shape == (8, 6, 3)
        assert image[0, 0, 0] // 50 == label
        assert f"/{splits.train.class_names[label]}/" in splits.train.describe(i)


def test_folder_slices_have_all_classes_and_do_not_overlap(tmp_path):
    make_folder(tmp_path, count=50)
    name = f"folder:{tmp_path}"
    splits = open_splits(name, train="train[:80%]", validation="train[80%:]", test="")
    paths = [{s.describe(i) for i in range(len(s))} for s in (splits.train, splits.validation)]
    assert [len(p) for p in paths] == [80, 20]
    assert not paths[0] & paths[1]
    assert set(splits.validation.labels) == {0, 1}


def test_folder_passes_over_what_is_not_an_image(tmp_path):
    make_folder(tmp_path)
    before = open_train(f"folder:{tmp_path}")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "cat" / "dangling.png").symlink_to("nowhere")
    (tmp_path / "train" / "cat" / "loop").symlink_to(tmp_path / "train" / "cat")
    after = open_train(f"folder:{tmp_path}")
    assert after.class_names == before.class_names
    assert len(after) == 8
    assert after.fingerprint == before.fingerprint


def test_folder_finds_nested_and_linked_images_and_odd_names(tmp_path):
    make_folder(tmp_path / "a")
    nested = tmp_path / "a" / "train" / "cat" / "more" / "snow ☃\n"
    nested.mkdir(parents=True)
    Image.new("L", (3, 3)).save(nested / "x.PNG")
    make_folder(tmp_path / "b", splits=("train",), classes=("owl",))
    (tmp_path / "a" / "train" / "owl").symlink_to(tmp_path / "b" / "train" / "owl")
    source = open_train(f"folder:{tmp_path / 'a'}")
    assert source.class_names == ("cat", "dog", "owl")
    assert len(source) == 13
    for i in range(13):
        source[i]


def test_a_changed_folder_has_another_fingerprint(tmp_path):
    make_folder(tmp_path)
    before = open_train(f"folder:{tmp_path}").fingerprint
    os.rename(tmp_path / "train" / "cat" / "0.png", tmp_path / "train" / "cat" / "9.png")
    assert open_train(f"folder:{tmp_path}").fingerprint != before


def test_class_folders_alone_are_the_split_train(tmp_path):
    make_folder(tmp_path, splits=("",))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat", "dog"]
    source = open_train(f"folder:{tmp_path}")
    assert source.class_names == ("cat", "dog") and len(source) == 8
    parts = open_splits(
        f"folder:{tmp_path}", train="train[:75%]", validation="train[75%:]", test=""
    )
    sizes = [len(part) for part in parts if part is not None]
    assert sizes == [6, 2]
    assert {source.describe(i) for i in range(8)} == {
        part.describe(i) for part in parts if part is not None for i in range(len(part))
    }
    with pytest.raises(ConfigError, match=r"no split 'validation', only 'train', which is all"):
        open_splits(f"folder:{tmp_path}", train="train", validation="validation", test="")
    (tmp_path / "test").mkdir()
    with pytest.raises(ConfigError, match=r"no split 'train', only \['cat', 'dog', 'test'\]"):
        open_train(f"folder:{tmp_path}")


def test_splits_of_other_names_are_no_classes(tmp_path):
    make_folder(tmp_path, splits=("training", "testing"))
    with pytest.raises(ConfigError, match=r"no split 'train', only \['testing', 'training'\]"):
        open_train(f"folder:{tmp_path}")


def test_a_table_alone_is_the_split_train(tmp_path):
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,age\na.png,41\n")
    assert open_train(f"folder:{tmp_path}")[0][1].tolist() == [41]


def test_bad_folders(tmp_path):
    root = f"folder:{tmp_path}"
    with pytest.raises(ConfigError, match="no such folder"):
        open_train("folder:/nowhere")
    with pytest.raises(ConfigError, match="has no split 'train'"):
        open_train(root)
    make_folder(tmp_path, ("train", "test"))
    with pytest.raises(ConfigError, match=r"train\[90%:\]"):
        open_splits(root, train="train", validation="validation", test="")
    make_folder(tmp_path, ("val",), ("bird",))
    with pytest.raises(DataError, match="class 'bird' is not among"):
        open_splits(root, train="train", validation="validation", test="")
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(DataError, match="class folder without an image"):
        open_train(root)


# -- tables ---------------------------------------------------------------------------------

ROWS = "file_name,age,weight\na.png,41,70.5\nmore/b.png,-3e1,0\nc.png, 7 ,1\n"


def make_table(root: Path, text: str | bytes = ROWS, split="train") -> Path:
    """Writes a table beside images 10, 20 and 30: a.png, more/b.png (if named) and c.png."""
    text = text if isinstance(text, bytes) else text.encode()
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(("a.png", "more/b.png", "c.png")):
        if "/" not in name or name.encode() in text:
            (folder / name).parent.mkdir(exist_ok=True)
            Image.new("L", (2, 2), 10 * (i + 1)).save(folder / name)
    (folder / "metadata.csv").write_bytes(text)
    return folder / "metadata.csv"


def content(source) -> dict[int, list[float]]:
    """The targets by the images' grey."""
    assert source.target_shape == (len(source.class_names),)
    examples = [source[i] for i in range(len(source))]
    assert {target.dtype for _, target in examples} == {np.dtype(np.float32)}
    return {int(image[0, 0, 0]): target.tolist() for image, target in examples}


WANTED = {10: [41, 70.5], 20: [-30, 0], 30: [7, 1]}


def test_a_table_gives_numbers(tmp_path):
    make_table(tmp_path)
    make_table(tmp_path, "file_name,age,weight\nc.png,1,2\n", "val")
    splits = open_splits(f"folder:{tmp_path}", train="train", validation="validation", test="")
    assert splits.train.class_names == ("age", "weight")
    assert content(splits.train) == WANTED
    assert content(splits.validation) == {30: [1, 2]}
    assert splits.validation.describe(0) == str(tmp_path / "val" / "c.png")
    parts = [open_train(f"folder:{tmp_path}", s) for s in ("train[:2]", "train[2:]")]
    assert [len(part) for part in parts] == [2, 1]
    assert content(parts[0]) | content(parts[1]) == WANTED


@pytest.mark.parametrize(
    "text",
    [
        ROWS.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + ROWS.encode(),
        "\n" + ROWS.replace("\n", "\n\n"),
        'age,"file_name", weight\n41,"a.png",70.5\n-30,more/b.png,0\n7,./c.png,1',
        "file_name,age,weight\nc.png,7,1\nmore/b.png,-30,0\na.png,41,70.5\n",
    ],
    ids=["CRLF", "BOM", "empty lines", "quotes and places", "order of lines"],
)
def test_a_table_is_the_same_however_it_is_written(tmp_path, text):
    make_table(tmp_path)
    before = open_train(f"folder:{tmp_path}")
    make_table(tmp_path, text)
    after = open_train(f"folder:{tmp_path}")
    assert content(after) == WANTED
    assert after.class_names == before.class_names
    assert after.fingerprint == before.fingerprint
    make_table(tmp_path, ROWS.replace("41", "42"))
    assert open_train(f"folder:{tmp_path}").fingerprint != before.fingerprint


def test_a_table_of_classes(tmp_path):
    make_table(tmp_path, "file_name,label\na.png,owl\nmore/b.png, cat\nc.png,owl\n")
    make_table(tmp_path, "file_name,label\na.png,owl\n", "test")
    source = open_train(f"folder:{tmp_path}")
    assert (source.class_names, source.target_shape) == (("cat", "owl"), ())
    examples = [source[i] for i in range(3)]
    assert {int(x[0, 0, 0]): label for x, label in examples} == {10: 1, 20: 0, 30: 1}
    assert open_train(f"folder:{tmp_path}", "test")[0][1] == 1
    table = make_table(tmp_path, "file_name,label\na.png,owl\nc.png,cats\n", "test")
    with pytest.raises(DataError, match=r"class 'cats' is not among the 2.*Did you mean 'cat'"):
        open_train(f"folder:{tmp_path}", "test")
    table.write_text("file_name,label\na.png,\n")
    with pytest.raises(DataError, match=r"line 2: the label is empty"):
        open_train(f"folder:{tmp_path}", "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": the file is empty"),
        ("\n\r\n", ": the file is empty"),
        ("file_name,age\n", ": there is a header and no line"),
        (b"file_name,age\n\xff.png,1\n", ": cannot be read as UTF-8"),
        ('file_name,age\n"a.png,1\n', ", line 2: not a line of CSV"),
        ("file_name;age\na.png;1\n", ", line 1: wanted a header with a column file_name"),
        ("filename,age\na.png,1\n", "Did you mean 'filename'"),
        ("file_name\na.png\n", ", line 1: no column besides file_name"),
        (",file_name,age\n0,a.png,1\n", ", line 1: column 1 has no name"),
        ("file_name,age,age\na.png,1,2\n", ", line 1: there are several columns 'age'"),
        ("file_name,age\na.png,1\nc.png\n", r", line 3: 1 column\(s\), but the header has 2"),
        ("file_name,age\na.png,1,5\n", r", line 2: 3 column\(s\)"),
        ("file_name,age\na.png,1\n,2\n", ", line 3: there is no file ''"),
        ("file_name,age\nx.png,1\n", ", line 2: there is no file 'x.png'"),
        (f"file_name,age\n{'x' * 300},1\n", ", line 2: there is no file"),
        ("file_name,age\na\0.png,1\n", ", line 2: (there is no file|not a line)"),
        ("file_name,age\n../train/a.png,1\n", ", line 2: .* leads out of"),
        ("file_name,age\n/etc/passwd,1\n", ", line 2: .* leads out of"),
        (
            "file_name,age\na.png,1\nc.png,1\n./a.png,2\n",
            ", line 4: './a.png' is already in line 2",
        ),
        ("file_name,age\nc.png,old\na.png,young\n", ", line 2: age='old' is no finite number"),
        ("file_name,age\na.png,\n", ", line 2: age='' is no finite number"),
        ("file_name,age\na.png,nan\n", ", line 2: age='nan' is no finite number"),
        ("file_name,age\na.png,-inf\n", ", line 2: age='-inf' is no finite number"),
        ("file_name,age\na.png,1e39\n", ", line 2: age='1e39' is no finite number"),
        ("file_name,age\na.png,1_000\n", ", line 2: age='1_000' is no finite number"),
        ("file_name,label\na.png,1\nc.png,cat\n", ", line 3: label='cat' is no finite number"),
    ],
)
def test_a_bad_table_says_in_which_line(tmp_path, text, message):
    table = make_table(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        open_train(f"folder:{tmp_path}")
    if "Did you mean" not in message:
        assert re.search(f"{re.escape(str(table))}{message}", str(error.value))
    assert error.value.exit_code == 65


def test_tables_of_a_dataset_have_the_same_columns(tmp_path):
    make_table(tmp_path)
    make_table(tmp_path, "file_name,weight,age\na.png,1,2\n", "test")
    with pytest.raises(DataError, match=r"the columns are weight, age, but those of .* are age, w"):
        open_train(f"folder:{tmp_path}", "test")
    (tmp_path / "test" / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"train/metadata.csv: there is none in .*test; give all"):
        open_train(f"folder:{tmp_path}", "test")


def test_a_table_beside_class_folders_is_refused(tmp_path):
    make_folder(tmp_path)
    table = make_table(tmp_path, "file_name,age\na.png,1\n")
    with pytest.raises(DataError, match=r"images in folders such as 'cat', of which it names none"):
        open_train(f"folder:{tmp_path}")
    table.write_text("file_name,age\na.png,1\ndog/0.png,2\n")
    assert len(open_train(f"folder:{tmp_path}")) == 2


# -- numbers of TFDS ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers_of_tfds(tmp_path_factory) -> str:
    """A prepared dataset `numbers` of three images, 0 to 2, with targets of many kinds."""
    kinds = tfds.features
    features = {
        "image": kinds.Image(shape=(2, 2, 1)),
        "age": np.float32,
        "flag": np.bool_,
        "box": kinds.Tensor(shape=(2,), dtype=np.float64),
        "marks": kinds.Sequence(np.int64, length=1),
        "tags": kinds.Sequence(kinds.ClassLabel(names=["a", "b", "c"])),
        "unknown": kinds.Sequence(kinds.ClassLabel(num_classes=2)),
        "traits": {"tall": np.bool_, "age": np.float32},
        "text": kinds.Text(),
        "many": kinds.Sequence(np.float32),
        "map": kinds.Tensor(shape=(2, 2), dtype=np.float32),
    }

    with tfds.core.registered.skip_registration():

        class Numbers(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=kinds.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i in range(3):
                    yield (
                        i,
                        {
                            "image": Image.new("L", (2, 2), i),
                            "age": i + 0.5,
                            "flag": i == 1,
                            "box": np.array([i, -i], np.float64),
                            "marks": [i],
                            "tags": [[], ["c"], ["b", "a", "b"]][i],
                            "unknown": [-1],
                            "traits": {"tall": i == 2, "age": i},
                            "text": "owl",
                            "many": [1.0] * i,
                            "map": np.zeros((2, 2), np.float32),
                        },
                    )

    folder = str(tmp_path_factory.mktemp("tfds"))
    tfds.disable_progress_bar()
    Numbers(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize(
    ("key", "names", "wanted"),
    [
        ("age", ("age",), [[0.5], [1.5], [2.5]]),
        ("flag", ("flag",), [[0], [1], [0]]),
        ("box", ("box_0", "box_1"), [[0, 0], [1, -1], [2, -2]]),
        ("marks", ("marks_0",), [[0], [1], [2]]),
        ("tags", ("a", "b", "c"), [[0, 0, 0], [0, 0, 1], [1, 1, 0]]),
        ("traits", ("age", "tall"), [[0, 0], [1, 0], [2, 1]]),
    ],
)
def test_tfds_gives_numbers(numbers_of_tfds, key, names, wanted):
    source = open_train("numbers", data_dir=numbers_of_tfds, label_key=key)
    assert source.class_names == names
    assert content(source) == dict(enumerate(wanted))
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("key", ["text", "many", "map", "image"])
def test_what_holds_no_numbers_is_refused(numbers_of_tfds, key):
    with pytest.raises(ConfigError, match=rf"feature '{key}' is .*; wanted a class label"):
        open_train("numbers", data_dir=numbers_of_tfds, label_key=key)


def test_a_label_that_is_not_known_is_no_label(numbers_of_tfds):
    source = open_train("numbers", data_dir=numbers_of_tfds, label_key="unknown")
    with pytest.raises(DataError, match=r"numbers train example 0: label -1, allowed are 0 to 1"):
        source[0]
