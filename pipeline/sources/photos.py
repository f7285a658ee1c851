"""Decode one photo file of whatever kind to 8-bit RGB, or say in a word why not."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.sources.base import Item, Unreadable
from shards import fs

# What Pillow's decoders raise on files that are cut, mangled or crafted.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)


@dataclass(frozen=True, kw_only=True)
class PhotoLoader:
    """Loads `root`/item.ref. upright: turn the photo as its EXIF orientation says."""

    root: str
    upright: bool

    def __call__(self, item: Item) -> Image.Image:
        """The photo in RGB, or `Unreadable`. Other I/O errors pass: they say nothing about the photo."""
        try:
            data = fs.read_bytes(fs.join(self.root, item.ref))
        except FileNotFoundError as error:
            raise Unreadable("missing") from error
        except PermissionError as error:
            raise Unreadable("forbidden") from error
        return decode(data, upright=self.upright)


def decode(data: bytes, *, upright: bool) -> Image.Image:
    """Greyscale, palette, CMYK, 16-bit become RGB; alpha is dropped; an animation gives its first frame."""
    if not data:
        raise Unreadable("empty")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image) if upright else image)
    except UnidentifiedImageError as error:
        raise Unreadable("not-an-image") from error
    except Image.DecompressionBombError as error:
        raise Unreadable("too-large") from error
    except BROKEN as error:
        raise Unreadable("truncated" if "truncated" in str(error).lower() else "corrupt") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255; 65535 / 255 = 257.
        levels = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(np.round(levels / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        # Nothing in the file says which value is white.
        raise Unreadable("float-pixels")
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")
