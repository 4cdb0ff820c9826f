"""Decoding and fitting, kind by kind, against what the pixels should be."""

import io
import os
import zlib

import numpy as np
from PIL import Image
import pytest

from zoo.errors import DataError
from zoo.images import MAX_PIXELS, decode_image, fit_image

# An asymmetric picture: each quarter has its own colour.
QUARTERS = np.zeros((16, 24, 3), np.uint8)
QUARTERS[:8, :12] = (255, 0, 0)
QUARTERS[:8, 12:] = (0, 255, 0)
QUARTERS[8:, :12] = (0, 0, 255)
QUARTERS[8:, 12:] = (255, 255, 255)
GREY = np.array(Image.fromarray(QUARTERS).convert("L"))


def close(image, expected, tolerance=0):
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    # The middle of each quarter: JPEG blurs across the edges.
    for y in (4, 12):
        for x in (6, 18):
            difference = image[y, x].astype(int) - expected[y, x].astype(int)
            assert abs(difference).max() <= tolerance, (y, x, image[y, x], expected[y, x])


SAVE = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}


@pytest.mark.parametrize("format_", ["PNG", "BMP", "JPEG", "WEBP", "GIF"])
def test_colour(tmp_path, format_):
    path = tmp_path / f"x.{format_.lower()}"
    Image.fromarray(QUARTERS).save(path, **SAVE.get(format_, {}))
    close(decode_image(path), QUARTERS, tolerance=3 if format_ == "JPEG" else 0)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "JPEG"])
def test_grey(tmp_path, format_):
    path = tmp_path / f"x.{format_.lower()}"
    Image.fromarray(GREY).save(path)
    close(decode_image(path), GREY[..., None], tolerance=3)


def test_alpha_is_laid_over_white(tmp_path):
    rgba = np.dstack([QUARTERS, np.full(GREY.shape, 255, np.uint8)])
    rgba[:8, :12, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "x.png")
    expected = QUARTERS.copy()
    expected[:8, :12] = 255
    close(decode_image(tmp_path / "x.png"), expected)
    Image.fromarray(rgba).convert("LA").save(tmp_path / "la.png")
    assert decode_image(tmp_path / "la.png")[4, 6].tolist() == [255, 255, 255]


def test_palette_with_and_without_transparency(tmp_path):
    palette = Image.fromarray(QUARTERS).quantize(4)
    palette.save(tmp_path / "p.png")
    close(decode_image(tmp_path / "p.png"), QUARTERS, tolerance=2)
    red = palette.getpixel((0, 0))
    palette.save(tmp_path / "t.png", transparency=red)
    assert decode_image(tmp_path / "t.png")[4, 6].tolist() == [255, 255, 255]


def test_cmyk(tmp_path):
    Image.fromarray(QUARTERS).convert("CMYK").save(tmp_path / "x.jpg")
    close(decode_image(tmp_path / "x.jpg"), QUARTERS, tolerance=6)


def test_16_bits_are_scaled_not_clipped(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "x.png")
    close(decode_image(tmp_path / "x.png"), GREY[..., None])


def test_one_bit(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "x.png")
    assert set(np.unique(decode_image(tmp_path / "x.png"))) == {0, 255}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    # What a camera would store so that a viewer sees QUARTERS.
    stored = {
        1: QUARTERS,
        2: QUARTERS[:, ::-1],
        3: QUARTERS[::-1, ::-1],
        4: QUARTERS[::-1],
        5: QUARTERS.transpose(1, 0, 2),
        6: np.rot90(QUARTERS),
        7: QUARTERS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(QUARTERS, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(
        tmp_path / "x.jpg", exif=exif, **SAVE["JPEG"]
    )
    close(decode_image(tmp_path / "x.jpg"), QUARTERS, tolerance=3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so, rightly
def test_malformed_exif_does_not_matter(tmp_path):
    Image.fromarray(QUARTERS).save(
        tmp_path / "x.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff", **SAVE["JPEG"]
    )
    close(decode_image(tmp_path / "x.jpg"), QUARTERS, tolerance=3)


def test_the_content_tells_the_format_not_the_name(tmp_path):
    Image.fromarray(QUARTERS).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    close(decode_image(tmp_path / "x.jpg"), QUARTERS)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(QUARTERS), Image.new("RGB", (24, 16))]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    close(decode_image(tmp_path / "x.gif"), QUARTERS)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG header that promises this size, with next to nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + crc

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    parts = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00" * 10)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + parts


BAD = {
    "empty": b"",
    "one byte": b"\xff",
    "header only": jpeg()[:20],
    "cut at a quarter": jpeg()[: len(jpeg()) // 4],
    "cut near the end": jpeg()[:-40],
    "text": b"this is not an image",
    "html": b"<html><body>404</body></html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf": b"%PDF-1.4",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "png cut": png(100, 100),
    "bomb": png(50_000, 50_000),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "x.jpg"
    path.write_bytes(BAD[kind])
    with pytest.raises(DataError, match=r"x\.jpg: cannot be decoded"):
        decode_image(path)


def test_what_is_not_a_file_is_refused(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    for name in ("folder.jpg", "pipe.jpg", "dangling.jpg"):
        with pytest.raises(DataError, match=name):
            decode_image(tmp_path / name)


def test_the_pixel_limit_is_below_what_memory_bears():
    assert MAX_PIXELS * 3 < 2**30


# -- fitting --------------------------------------------------------------------------------


def test_squash_stretches():
    image = fit_image(QUARTERS, 8, 3, "squash", interpolation="nearest")
    assert image.shape == (8, 8, 3)
    assert (image == QUARTERS[1::2, 1::3]).all()


def test_crop_takes_the_centre_of_the_resized_image():
    assert (fit_image(QUARTERS, 16, 3, "crop") == QUARTERS[:, 4:20]).all()
    half = fit_image(QUARTERS, 8, 3, "crop", crop_fraction=0.5)
    assert (half == QUARTERS[4:12, 8:16]).all()


def test_pad_centres_on_black():
    image = fit_image(QUARTERS, 32, 3, "pad")
    assert (image[8:24, 4:28] == QUARTERS).all()
    assert image.astype(int).sum() == QUARTERS.astype(int).sum()
    assert fit_image(QUARTERS, 12, 3, "pad").shape == (12, 12, 3)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (40, 1, 1), (7, 5, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_fits(fit, shape, channels):
    image = np.full(shape, 100, np.uint8)
    fitted = fit_image(image, 8, channels, fit, 0.875)
    assert fitted.shape == (8, 8, channels)
    assert fitted.max() == 100


def test_grey_from_colour_is_luma():
    assert fit_image(QUARTERS, 16, 1, "crop")[4, 0, 0] == round(0.299 * 255)


def test_a_line_is_not_enlarged_until_the_memory_is_full():
    line = np.zeros((1, 30_000, 1), np.uint8)  # to 256 x 7,680,000
    with pytest.raises(DataError, match="30000x1 would be resized to 256x7680000, over"):
        fit_image(line, 224, 3, crop_fraction=0.875)
    assert fit_image(line, 224, 3, fit="squash").shape == (224, 224, 3)
