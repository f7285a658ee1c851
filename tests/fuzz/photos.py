"""Photos of every format, damaged: decoded to the size that they claim, or passed over with a reason."""

import io
import random
import struct
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import REASONS, Unreadable, read_photo
from densecli.pipeline.sources.photos import decode
from densecli.shards.geometry import Canvas

from .frame import Target
from .inputs import mutated

KINDS = (
    "JPEG",
    "JPEG",
    "PNG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "GIF",
    "MPO",
    "AVIF",
    "JPEG2000",
    "EPS",
    "ICO",
    "PPM",
)
MODES = ("RGB", "RGB", "L", "P", "RGBA", "CMYK", "1", "LA", "I;16", "F", "YCbCr")
MOST = 1_000_000
"""Pixels that may be decoded here: tens of megabytes."""


@cache
def photo(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    """A photo with EXIF data in a mode that its format has, else in RGB."""
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    image, exif, data = Image.fromarray(pixels), Image.Exif(), io.BytesIO()
    exif[0x112], exif[0x10E], exif[0x132] = 6, "about", "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x9286] = b"comment"
    try:
        shown = Image.fromarray(pixels[..., 0].astype(np.uint16)) if mode == "I;16" else image.convert(mode)
        shown.save(data, kind, exif=exif, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    except (OSError, ValueError, KeyError):
        data = io.BytesIO()
        image.save(data, kind)
    return data.getvalue()


def damaged(rng: random.Random) -> bytes:
    """A photo whose bytes, sizes or EXIF data are others."""
    kind = rng.choice(KINDS)
    data = photo(kind, rng.choice(MODES), rng.choice(((50, 40), (1, 1), (3, 200), (300, 180))))
    if rng.random() < 0.2:
        # A size that the format keeps somewhere near its beginning.
        at = rng.randrange(min(len(data), 64))
        size = rng.choice((0, 1, 255, 60_000, 1 << 20, (1 << 31) - 1, (1 << 32) - 1))
        data = data[:at] + struct.pack(rng.choice("<>") + "I", size) + data[at + 4 :]
    if rng.random() < 0.2 and b"Exif" in data:
        at = data.index(b"Exif") + rng.randrange(64)
        data = data[:at] + rng.randbytes(4) + data[at + 4 :]
    return mutated(rng, data) if rng.random() < 0.8 else data


def try_decode(rng: random.Random, folder: Path) -> None:
    """A photo as a build decodes it."""
    data, canvas = damaged(rng), Canvas(rng.choice((16, 48, 512)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = decode(data, upright=rng.random() < 0.7, canvas=canvas, max_pixels=MOST)
        except Unreadable as reason:
            if str(reason) not in REASONS:
                raise AssertionError(reason) from None
            raise
    assert found.image.mode == "RGB"
    assert found.width * found.height <= MOST
    assert found.image.width <= found.width and found.image.height <= found.height
    assert canvas.resize(found.image, (found.width, found.height)).size == canvas.fit(
        found.width, found.height
    )


def try_file(rng: random.Random, folder: Path) -> None:
    """A photo in a file, as an evaluation reads it; a sentence names the file."""
    path = folder / "photo.jpg"
    data = damaged(rng)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert read_photo(path, "Take another.", turned=rng.random() < 0.5).mode == "RGB"
        except DenseCLIError as error:
            if str(path) not in str(error):
                raise AssertionError(error) from None
            raise


TARGETS = (
    Target(name="photos", try_one=try_decode, quick=300),
    # The bound is that of users here: a header may claim a hundred million pixels.
    Target(name="photo-files", try_one=try_file, quick=100, megabytes=2500),
)
