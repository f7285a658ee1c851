"""Photos as they come, through the real build: each is stored as RGB pixels or skipped with its reason."""

import io
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from building import build_here
from PIL import Image, ImageOps

from densecli.pipeline.sources.photos import decode
from densecli.shards.geometry import Canvas
from densecli.shards.joined import decode_image, read_joined
from densecli.shards.tars import read_shard
from densecli.shards.writer import jpg_bytes

EXIF_ORIENTATION = ImageOps.ExifTags.Base.Orientation
# Left half orange, right half blue.
HALVES = np.zeros((40, 60, 3), np.uint8)
HALVES[:, :30], HALVES[:, 30:] = (240, 130, 20), (20, 60, 200)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(kind: str = "PNG", mode: str = "RGB", **options) -> bytes:
    return encoded(Image.fromarray(HALVES).convert(mode), kind, **options)


def turned() -> bytes:
    """Stored lying on its side; EXIF says how to turn it upright."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return encoded(Image.fromarray(HALVES).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)


def transparent_palette() -> bytes:
    image = Image.fromarray(HALVES).convert("P", palette=Image.Palette.ADAPTIVE)
    return encoded(image, "PNG", transparency=0)


def sixteen_bit() -> bytes:
    grey = np.asarray(Image.fromarray(HALVES).convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


def bomb() -> bytes:
    """A PNG that claims 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


JPEG, PNG = halves("JPEG", quality=95), halves()
GOOD = {
    "cmyk.jpg": halves("JPEG", "CMYK"),
    "exif.jpg": turned(),
    "palette.png": transparent_palette(),
    "rgba.png": halves(mode="RGBA"),
    "plain.jpg": JPEG,
}
GREY = {"grey.jpg": halves("JPEG", "L"), "sixteen.png": sixteen_bit(), "two.png": halves(mode="LA")}
BAD = {
    "bomb.png": (bomb(), "too-large"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "cut.png": (PNG[: len(PNG) // 2], "truncated"),
    "empty.jpg": (b"", "empty"),
    "float.tif": (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "float-pixels"),
    "header.jpg": (JPEG[:4], "not-an-image"),
    "html.jpg": (b"<html>not found</html>", "not-an-image"),
}


@pytest.fixture
def build_of(tiny, tmp_path):
    """Build a folder of these photos: {key: pixels on a canvas of 48}, {key: about}, skipped."""

    def build(files: dict[str, bytes]) -> tuple[dict[str, np.ndarray], dict[str, dict], dict[str, int]]:
        (tmp_path / "photos").mkdir()
        for name, data in files.items():
            (tmp_path / "photos" / name).write_bytes(data)
        config = replace(
            tiny,
            dataset="folder",
            data=str(tmp_path / "photos"),
            split=None,
            limit=None,
            canvas=48,
            categories="scenes",
            shard_size=16,
        )
        request, (report,) = build_here(config)
        samples = dict(read_shard(request.store.images, "000000"))
        # Whatever is stored, the teacher has spoken about it too.
        assert [record.key for record in read_joined(request.columns(), "000000")] == list(samples)
        pixels = {key: decode_image(parts["jpg"]) for key, parts in samples.items()}
        return pixels, {key: json.loads(parts["json"]) for key, parts in samples.items()}, report.skipped

    return build


def test_build__every_kind_of_photo_is_stored_upright_in_its_colours(build_of):
    pixels, about, skipped = build_of(GOOD)
    assert skipped == {}
    assert pixels.keys() == {name.split(".")[0] for name in GOOD}
    for key, image in pixels.items():
        assert image.shape == (32, 48, 3), key
        assert (about[key]["width"], about[key]["height"]) == (60, 40), key
        halves = image[:, 4:20].mean((0, 1)), image[:, 28:44].mean((0, 1))
        np.testing.assert_allclose(halves, HALVES[0, [0, 59]], atol=12, err_msg=key)


def test_build__grey_photos_of_any_depth_are_the_same(build_of):
    pixels, _, skipped = build_of(GREY)
    assert skipped == {}
    for key, image in pixels.items():
        assert np.abs(image.astype(int) - pixels["two"].astype(int)).mean() < 2, key


def test_build__bad_photos_are_skipped_by_reason_and_the_others_stay(build_of):
    pixels, _, skipped = build_of({name: data for name, (data, _) in BAD.items()} | {"plain.jpg": JPEG})
    reasons = [reason for _, reason in BAD.values()]
    assert skipped == {reason: reasons.count(reason) for reason in reasons}
    assert list(pixels) == ["plain"]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_build__a_photo_of_one_pixel_or_one_line(build_of, size):
    pixels, about, skipped = build_of({"thin.png": encoded(Image.new("RGB", size, "red"), "PNG")})
    assert skipped == {}
    assert pixels["thin"].shape[:2] == Canvas(48).fit(*size)[::-1]
    assert max(about["thin"]["valid"]) == 1


@pytest.mark.parametrize(("side", "decoded"), [(512, 1125), (1024, 2250), (256, 563)])
def test_decode__a_large_jpeg_is_decoded_at_the_smallest_scale_that_is_twice_the_canvas(side, decoded):
    data = encoded(Image.new("RGB", (2250, 1500)), "JPEG")
    found = decode(data, upright=False, canvas=Canvas(side))
    assert (found.image.width, found.width, found.height) == (decoded, 2250, 1500)
    assert decoded >= 2 * side or decoded == 2250


def test_decode__a_smaller_scale_changes_less_than_the_stored_jpeg_does():
    noise = np.random.default_rng(0).normal(0, 1, (150, 225, 3))
    texture = Image.fromarray(np.clip(128 + 40 * noise, 0, 255).astype(np.uint8))
    data = encoded(texture.resize((1125, 750), Image.Resampling.BICUBIC), "JPEG", quality=95)
    canvas = Canvas(256)
    found = decode(data, upright=False, canvas=canvas)
    assert found.image.width < 1125
    full = canvas.resize(Image.open(io.BytesIO(data)))
    reduced = canvas.resize(found.image, (found.width, found.height))
    assert rmse(reduced, full) < rmse(Image.open(io.BytesIO(jpg_bytes(full))), full)


def rmse(one: Image.Image, other: Image.Image) -> float:
    return float(np.sqrt(((np.asarray(one, float) - np.asarray(other, float)) ** 2).mean()))


def test_decode__a_turned_photo_has_its_upright_size_at_any_scale():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 8
    data = encoded(Image.new("RGB", (1200, 800)), "JPEG", exif=exif)
    found = decode(data, upright=True, canvas=Canvas(128))
    assert (found.width, found.height) == (800, 1200)
    assert found.image.height > found.image.width
    assert found.image.height < 1200
