"""Pictures from strangers: read, or refused with a reason that is one word."""

import io
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from densecli.core import pictures
from densecli.core.errors import DenseCLIError
from densecli.core.pictures import (
    MAX_PIXELS,
    Unreadable,
    open_picture,
    read_photo,
    read_picture,
    to_rgb,
    upright,
)

RED = Image.new("RGB", (50, 40), "red")


def encoded(kind: str, image: Image.Image = RED, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "MPO", "AVIF", "JPEG2000"])
def test_open_picture__reads_the_formats_of_photos(kind):
    found = open_picture(encoded(kind, quality=90))
    assert (found.width, found.height) == (50, 40)
    np.testing.assert_allclose(np.asarray(to_rgb(found.image)).mean((0, 1)), [255, 0, 0], atol=6)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "PPM", "DDS", "SGI", "PCX"])
def test_open_picture__starts_no_other_decoder(kind, monkeypatch):
    data = encoded(kind)
    opened = []
    for name in set(Image.OPEN) - set(pictures.FORMATS):
        monkeypatch.setitem(Image.OPEN, name, (lambda *args, name=name: opened.append(name), None))
    with pytest.raises(Unreadable, match=r"^not-an-image$"):
        open_picture(data)
    assert not opened


@pytest.mark.parametrize(
    "error",
    [TypeError("x"), RuntimeError("x"), ZeroDivisionError(), AttributeError("x"), RecursionError("x")],
)
def test_open_picture__whatever_a_decoder_raises_is_a_reason(error, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    data = encoded("PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(Unreadable, match=r"^corrupt$"):
        open_picture(data)


def test_open_picture__too_little_memory_is_a_reason(monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    data = encoded("PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(Unreadable, match=r"^out-of-memory$"):
        open_picture(data)


def test_open_picture__a_damaged_avif():
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    data = bytearray(encoded("AVIF", Image.fromarray(noise), quality=90))
    start = data.index(b"mdat") + 4
    data[start:] = bytes(byte ^ 0xFF for byte in data[start:])
    with pytest.raises(Unreadable, match=r"^corrupt$"):
        open_picture(bytes(data))


@pytest.mark.parametrize("size", [(0, 40), (50, 0), (0, 0)])
def test_open_picture__no_width_or_height(size):
    data = bytearray(encoded("BMP"))
    data[18:26] = struct.pack("<ii", *size)
    with pytest.raises(Unreadable, match=r"^(corrupt|truncated|not-an-image)$"):
        open_picture(bytes(data))


@pytest.mark.parametrize(("kind", "most"), [("PNG", 2000), ("WEBP", 4000), ("JPEG2000", 4000)])
def test_open_picture__is_bounded_before_it_decodes(kind, most, monkeypatch):
    data = encoded(kind)
    assert open_picture(data, max_pixels=most).width == 50
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(Unreadable, match=r"^too-large$"):
        open_picture(data, max_pixels=most - 1)


def test_open_picture__a_higher_bound_than_pillows_own(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Unreadable, match=r"^too-large$"):
        open_picture(encoded("PNG"))
    assert open_picture(encoded("PNG"), max_pixels=MAX_PIXELS + 1).width == 50


@pytest.mark.parametrize("tag", [(0x2BC, 2, 1), (0x100, 1, 1), (0x10E, 11, 1), (0x9000, 11, 1)])
def test_upright__damaged_exif_is_a_reason(tag):
    turned, odd = struct.pack(">HHII", 0x112, 3, 1, 6 << 16), struct.pack(">HHII", *tag, 48)
    exif = b"Exif\0\0" + struct.pack(">2sHIH", b"MM", 42, 8, 2) + turned + odd + bytes(4)
    image = open_picture(encoded("JPEG", exif=exif)).image
    with pytest.raises(Unreadable, match=r"^corrupt-exif$"):
        upright(image)


def test_open_picture__a_large_one_is_no_warning_on_standard_error(tmp_path):
    side = 9_500  # Pillow warns above 89 million pixels
    Image.new("1", (side, side)).save(tmp_path / "large.png")
    code = (
        "import sys; from densecli.core import pictures; print(pictures.read_picture(sys.argv[1], '').size)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (f"({side}, {side})", "")


def test_to_rgb__sixteen_bits_take_a_few_bytes_a_pixel():
    levels = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    shown = np.asarray(to_rgb(open_picture(encoded("PNG", Image.fromarray(levels))).image))
    assert (shown[..., 0] == np.round(levels / 257)).all()


def test_read_picture__says_in_a_sentence_what_is_wrong(tmp_path):
    (tmp_path / "cut.png").write_bytes(encoded("PNG")[:60])
    (tmp_path / "page.jpg").write_text("<html>")
    for name, told in (
        ("cut.png", "is (cut short|damaged)"),
        ("page.jpg", "no picture"),
        ("none", "No such"),
    ):
        with pytest.raises(DenseCLIError, match=told) as caught:
            read_picture(tmp_path / name, "Take another.")
        assert str(tmp_path / name) in str(caught.value) and caught.value.hint == "Take another."


def test_read_photo__turned_or_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    RED.save(tmp_path / "a.png", exif=exif)
    assert read_photo(tmp_path / "a.png", "").size == (50, 40)
    assert read_photo(tmp_path / "a.png", "", turned=True).size == (40, 50)


@pytest.mark.parametrize("kind", ["a pipe", "a link to a device", "gigabytes"])
def test_read_photo__what_never_ends_is_not_read(tmp_path, kind):
    path = tmp_path / "a.jpg"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to a device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    reason = "has more bytes" if kind == "gigabytes" else "is a pipe, a device or a socket"
    with pytest.raises(DenseCLIError, match=reason):
        read_photo(path, "Give another photo.")


def test_read_photo__pillow_says_nothing_of_damaged_exif_beside_the_reason(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    Image.new("RGB", (30, 10)).save(data, "JPEG", exif=exif)
    whole = data.getvalue()
    # The number of entries of the directory, after the byte order and its place.
    place = whole.index(b"Exif") + 6 + 8
    (tmp_path / "a.jpg").write_bytes(whole[:place] + b"\xff\xff" + whole[place + 2 :])
    program = (
        "import sys; from densecli.core import pictures\n"
        "try: pictures.read_photo(sys.argv[1], '', turned=True)\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    words = [sys.executable, "-W", "default", "-c", program, str(tmp_path / "a.jpg")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "EXIF" not in done.stderr
