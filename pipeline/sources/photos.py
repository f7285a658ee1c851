"""Decodes photo files to 8-bit RGB, or gives the reason why they cannot be read."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from densecli.core import fs
from densecli.core.errors import Forbidden, Unreachable
from densecli.pipeline.sources.base import Decoded, Item, Span, Unreadable
from densecli.shards.geometry import Canvas
from densecli.shards.store import PHOTOS

# Errors that Pillow's decoders raise for truncated, damaged or crafted files.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)

SWAPPED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@dataclass(frozen=True, kw_only=True)
class PhotoLoader:
    """Loads `item.photo`, or the file `item.ref` if that is None.

    Attributes:
        root: Folder or URL that contains the paths. Empty: items hold URLs.
        upright: Whether to apply the EXIF orientation.
    """

    root: str
    upright: bool

    def __call__(self, item: Item, canvas: Canvas) -> Decoded:
        """Loads a photo. Raises Unreadable; other I/O errors pass, because they are not about the photo."""
        return decode(read(self.root, item.photo or Span(item.ref)), upright=self.upright, canvas=canvas)


def read(root: str, span: Span) -> bytes:
    """Reads a range of bytes.

    Args:
        root: Folder or URL that contains the file. Empty: the file is a URL.
        span: The range.

    Raises:
        Unreadable: The file is missing, forbidden, or on a web server of its own that cannot be reached.
    """
    url = fs.join(root, span.file) if root else span.file
    try:
        if span.size is None:
            return fs.read_bytes(url)
        return fs.read_range(url, span.offset, span.size)
    except FileNotFoundError as error:
        raise Unreadable("missing") from error
    except (PermissionError, Forbidden) as error:
        raise Unreadable("forbidden") from error
    except Unreachable as error:
        # A list of addresses may name many servers; one dead server must not stop the build.
        if root or not fs.is_web(url):
            raise
        raise Unreadable("unreachable") from error


def decode(data: bytes, *, upright: bool, canvas: Canvas) -> Decoded:
    """Decodes a photo of any mode to RGB. Drops alpha, and takes the first frame of an animation.

    Args:
        data: Bytes of the file.
        upright: Whether to apply the EXIF orientation.
        canvas: A JPEG much larger than this is decoded at a smaller scale (`PHOTOS["decode"]`).

    Raises:
        Unreadable: The bytes are empty, damaged, not an image, too large, or of unknown brightness.
    """
    if not data:
        raise Unreadable("empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        width, height = image.size
        fitted_width, fitted_height = canvas.fit(width, height)
        image.draft(None, (PHOTOS["decode"] * fitted_width, PHOTOS["decode"] * fitted_height))
        image.load()
        if upright:
            if image.getexif().get(ExifTags.Base.Orientation, 1) in SWAPPED:
                width, height = height, width
            ImageOps.exif_transpose(image, in_place=True)
        return Decoded(_to_rgb(image), width, height)
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
        # The file does not say which value is white.
        raise Unreadable("float-pixels")
    if image.mode == "P":
        image = image.convert("RGBA")
    # convert() would copy an image that is already RGB.
    return image if image.mode == "RGB" else image.convert("RGB")
