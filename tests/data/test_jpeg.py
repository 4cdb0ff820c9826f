"""Parts of JPEGs against the same parts of the whole picture."""

import io
import sys

import numpy as np
from PIL import Image, ImageFilter
import pytest

from zoo.data import jpeg
from zoo.data.crop import draw_box, make_crop
from zoo.data.folder import FolderSource
from zoo.data.loader import Examples, assemble
from zoo.data.resize import make_resize
from zoo.data.tfds import TfdsSource
from zoo.errors import ConfigError, DataError
from zoo.images import Encoded, decode, fit_image
from zoo.training.mesh import batch_sharding, make_mesh


def picture(height: int, width: int) -> Image.Image:
    """A smooth picture with edges, grain and saturated colours, as photographs have."""
    random = np.random.default_rng(height * 1000 + width)
    small = Image.fromarray(random.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    smooth[height // 3 : height // 2, width // 4 : width // 2] = (220, 30, 40)
    grain = random.normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def encode(image: Image.Image, name: str = "x.jpg", **options) -> Encoded:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return Encoded(file.getvalue(), name)


def always(*box: int) -> jpeg.Draw:
    return lambda height, width: box


WITH = pytest.param(True, id="simplejpeg")
WITHOUT = pytest.param(False, id="pillow")


@pytest.fixture(params=[WITH, WITHOUT])
def decoder(request, monkeypatch) -> bool:
    """Each of the two decoders in turn."""
    if request.param:
        pytest.importorskip("simplejpeg", reason="pip install 'zoo[fast]'")
    else:
        monkeypatch.setattr(jpeg, "decode_jpeg", None)
    return request.param


KINDS = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "RGB": {"keep_rgb": True},
}


@pytest.mark.parametrize("kind", [*KINDS, "grey", "CMYK"])
def test_a_part_has_the_pixels_that_it_has_in_the_whole(kind, decoder):
    image = picture(150, 203)
    if kind in ("grey", "CMYK"):
        image = image.convert("L" if kind == "grey" else "CMYK")
    encoded = encode(image, **KINDS.get(kind, {}))
    whole = np.asarray(decode(encoded))
    np.testing.assert_array_equal(np.asarray(jpeg.load(encoded)), whole)
    # At the top, at the bottom, whole, and ending on, before and behind the edge of a block.
    boxes = [(0, 0, 40, 50), (100, 153, 50, 50), (0, 0, 150, 203)]
    boxes += [(20, 33, bottom - 20, 60) for bottom in range(61, 68)]
    for top, left, rows, columns in boxes:
        part = jpeg.cut(encoded, always(top, left, rows, columns))
        assert part.box == (0, 0, columns, rows) and part.turn is None
        expected = whole[top : top + rows, left : left + columns]
        np.testing.assert_array_equal(np.asarray(part.pixels), expected)


def test_fewer_rows_are_decoded(monkeypatch, decoder):
    asked = []
    inner = jpeg._decode

    def watched(encoded, header, height, factor, rough):
        asked.append((height, factor))
        return inner(encoded, header, height, factor, rough)

    monkeypatch.setattr(jpeg, "_decode", watched)
    encoded = encode(picture(400, 500))
    jpeg.cut(encoded, always(50, 60, 100, 100), 64)
    jpeg.cut(encoded, always(50, 60, 128, 128), 64)
    jpeg.cut(encoded, always(0, 0, 400, 500), 50)
    jpeg.cut(encoded, always(0, 0, 400, 500), 51)
    assert asked == [(152, 1), (182, 2), (400, 8), (400, 4)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_of_a_turned_picture(orientation, decoder):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(picture(120, 166), exif=exif)
    whole = decode(encoded)
    np.testing.assert_array_equal(np.asarray(jpeg.load(encoded)), np.asarray(whole))
    assert whole.size == ((120, 166) if orientation >= 5 else (166, 120))
    top, left, rows, columns = 21, 10, 50, 64
    part = jpeg.cut(encoded, always(top, left, rows, columns))
    pixels = part.pixels
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    upright = image if part.turn is None else image.transpose(part.turn)
    expected = whole.crop((left, top, left + columns, top + rows))
    np.testing.assert_array_equal(np.asarray(upright), np.asarray(expected))
    resized = make_resize(32, 3, "bilinear")(part)
    expected = fit_image(expected, 32, 3, "squash")
    assert np.abs(resized.astype(int) - expected).max() <= 1  # rounded across, then down


def crops(encoded: Encoded, decoding: str, size: int, count: int = 12) -> np.ndarray:
    crop = make_crop(
        {"scale": (0.4, 1.0)},
        seed=1,
        size=size,
        channels=3,
        interpolation="bilinear",
        decoding=decoding,
    )
    assert crop is not None
    return np.stack([crop(encoded, 0, i) for i in range(count)])


@pytest.mark.parametrize("size", [16, 32, 56])  # at 1/8, 1/4, 1/2 of its size, or nearly all
def test_scaled_decoding_is_close_to_resizing_all_pixels(size, decoder):
    encoded = encode(picture(400, 500))
    exact, scaled = (crops(encoded, d, size).astype(int) for d in ("exact", "scaled"))
    difference = np.abs(exact - scaled)
    assert 0 < difference.mean() < 3
    assert np.quantile(difference, 0.99) <= 14


def test_fast_decoding_is_close_to_the_exact_one():
    pytest.importorskip("simplejpeg", reason="pip install 'zoo[fast]'")
    pytest.importorskip("cykooz_resizer", reason="pip install 'zoo[fast]'")
    encoded = encode(picture(400, 500))
    difference = np.abs(crops(encoded, "exact", 224).astype(int) - crops(encoded, "fast", 224))
    assert 0 < difference.mean() < 1.5
    assert np.quantile(difference, 0.99) <= 6


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("channels", [1, 3])
def test_vector_instructions_round_otherwise_and_no_more(interpolation, channels):
    pytest.importorskip("cykooz_resizer", reason="pip install 'zoo[fast]'")
    for image in (picture(300, 260), picture(300, 260).convert("L")):
        for pixels in (image, np.asarray(image)):
            part = jpeg.Part(pixels, (0.0, 0.0, 260.0, 300.0))
            slow, fast = (
                make_resize(96, channels, interpolation, fast=fast)(part).astype(int)
                for fast in (False, True)
            )
            assert slow.shape == fast.shape == (96, 96, channels)
            assert np.abs(slow - fast).max() <= (1 if interpolation == "bilinear" else 10)
            assert np.abs(slow - fast).mean() < 0.4


@pytest.mark.parametrize("decoding", ["scaled", "fast"])
def test_the_window_is_right_to_half_a_pixel(decoding, decoder):
    if decoding == "fast":
        pytest.importorskip("cykooz_resizer", reason="pip install 'zoo[fast]'")
        if not decoder:
            pytest.skip("fast is simplejpeg's")
    size, ranges = 48, {"scale": (0.3, 0.9)}
    encoded = encode(picture(400, 500))
    options = {"seed": 1, "size": size, "channels": 3, "interpolation": "bilinear"}
    crop = make_crop(ranges, decoding=decoding, **options)
    exact = make_crop(ranges, **options)
    assert crop is not None and exact is not None
    for index in range(8):
        raw = np.random.Philox(key=[1, 0], counter=[0, 0, index, 1]).random_raw(22)
        box = draw_box((raw >> 11) * 2.0**-53, 400, 500, **ranges)
        wanted, found = (c(encoded, 0, index).astype(float) for c in (exact, crop))
        for axis, side in enumerate(box[2:]):
            # By how much one is moved against the other, to first order: least squares.
            slope = np.gradient(wanted, axis=axis)
            moved = ((wanted - found) * slope).sum() / (slope**2).sum()
            assert abs(moved * side / size) < 0.5


def damaged(data: bytes) -> dict[str, bytes]:
    sof = data.index(b"\xff\xc0")
    return {
        "cut in the middle": data[: len(data) // 2],
        "cut near the end": data[:-40],
        "header only": data[:20],
        "no height": data[: sof + 5] + b"\0\0" + data[sof + 7 :],
        "no table": data.replace(b"\xff\xdb", b"\xff\xfe"),
        "bomb": data[: sof + 5] + b"\xff\xff\xff\xff" + data[sof + 9 :],
        "markers only": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 4 + b"\xff\xd9",
    }


@pytest.mark.parametrize("kind", damaged(encode(picture(64, 64)).data))
def test_damaged_files_are_refused_by_name(kind, decoder):
    data = damaged(encode(picture(64, 64)).data)[kind]
    with pytest.raises(DataError, match=r"x\.jpg: cannot be decoded"):
        jpeg.cut(Encoded(data, "x.jpg"), always(0, 0, 8, 8))


def test_tfds_gives_the_files_of_pictures_of_varying_size(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    pictures = [picture(64, 80 + i) for i in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encode(image, exif=exif).data for image in pictures]

    with tfds.core.registered.skip_registration():

        class Turned(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                image = tfds.features.Image(encoding_format="jpeg")
                kinds = {"image": image, "label": tfds.features.ClassLabel(num_classes=3)}
                features = tfds.features.FeaturesDict(kinds)
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i, data in enumerate(files):
                    yield i, {"image": io.BytesIO(data), "label": i}

    tfds.disable_progress_bar()
    Turned(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    source = TfdsSource("turned", "train", str(tmp_path), "image", "label")
    options = {"seed": 7, "size": 24, "channels": 3, "interpolation": "bilinear"}
    crop = make_crop({"scale": (0.2, 1)}, **options)
    examples = Examples(source, lambda image: np.asarray(image)[:8, :8], (8, 8, 3))
    for i in range(3):
        encoded, label = source.encoded(i)
        assert encoded == Encoded(files[label], f"turned train example {i}")
        upright = decode(encoded)
        assert upright.size == (64, 80 + label)
        np.testing.assert_array_equal(examples.read(i)[0], np.asarray(upright)[:8, :8])
        cropped = Examples(source, fit_image, (24, 24, 3), crop=crop).read(i, 1)[0]
        assert cropped.shape == (24, 24, 3) and cropped.std() > 5
    assert source[0][0].shape[-1] == 3 and "tensorflow" not in sys.modules


def test_what_stands_behind_the_end_does_not_matter(decoder):
    encoded = encode(picture(64, 80))
    longer = Encoded(encoded.data + b"\n", "x.jpg")
    assert jpeg.read_header(longer.data) is None
    parts = [np.asarray(jpeg.cut(e, always(5, 6, 20, 30)).pixels) for e in (encoded, longer)]
    np.testing.assert_array_equal(*parts)


@pytest.mark.parametrize("decoding", ["exact", "scaled", "fast"])
def test_batches_of_files_are_the_same_every_time(tmp_path, decoding, devices):
    if decoding == "fast":
        pytest.importorskip("simplejpeg", reason="pip install 'zoo[fast]'")
        pytest.importorskip("cykooz_resizer", reason="pip install 'zoo[fast]'")
    for i in range(6):
        folder = tmp_path / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = picture(90 + i, 120)
        image.filter(ImageFilter.GaussianBlur(1)).save(folder / f"{i}.{'jpg' if i < 5 else 'png'}")
    options = {"seed": 7, "size": 24, "channels": 3, "interpolation": "bilinear"}

    def images(order: list[int]) -> np.ndarray:
        source = FolderSource(str(tmp_path), "train")
        crop = make_crop({"scale": (0.2, 1)}, decoding=decoding, **options)
        examples = Examples(source, fit_image, (24, 24, 3), crop=crop)
        epochs, there = np.full(6, 2), np.ones(6)
        rows = batch_sharding(make_mesh(devices[:2]))
        batch = assemble(examples, np.array(order), epochs, there, rows)
        return np.asarray(batch["image"])[np.argsort(order)]

    first = images([0, 1, 2, 3, 4, 5])
    assert first.std() > 10
    np.testing.assert_array_equal(first, images([5, 3, 1, 0, 2, 4]))
    if decoding == "exact":  # then it does not matter that only a part is decoded
        source = FolderSource(str(tmp_path), "train")
        crop = make_crop({"scale": (0.2, 1)}, **options)
        assert crop is not None
        whole = np.stack([crop(source[i][0], 2, i) for i in range(6)])
        np.testing.assert_array_equal(first, whole)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(jpeg, "decode_jpeg", None)
    with pytest.raises(ConfigError, match=r"needs simplejpeg: pip install 'zoo\[fast\]'"):
        crops(encode(picture(64, 64)), "fast", 8)
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    with pytest.raises(ConfigError, match=r"needs cykooz-resizer: pip install 'zoo\[fast\]'"):
        make_resize(8, 3, "bilinear", fast=True)
