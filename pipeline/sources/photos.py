"""Loading: a listed photo as 8-bit RGB, or the reason why it cannot be used."""

import stat
from dataclasses import dataclass

from densecli.core import fs
from densecli.core.errors import Forbidden
from densecli.core.pictures import MAX_PIXELS, PIXEL_BYTES, open_picture, to_rgb
from densecli.core.pictures import upright as turn_upright
from densecli.pipeline.sources.base import Decoded, Item, Span, Unreadable
from densecli.shards.geometry import Canvas
from densecli.shards.store import PHOTOS


@dataclass(frozen=True, kw_only=True)
class PhotoLoader:
    """Loads `item.photo`, or the file `item.ref` if that is None.

    Attributes:
        root: Folder or URL that paths are below.
        upright: Whether to apply the EXIF orientation.
        max_pixels: Pixels of the largest photo that is decoded.
    """

    root: str
    upright: bool
    max_pixels: int = MAX_PIXELS

    def __call__(self, item: Item, canvas: Canvas) -> Decoded:
        """Loads a photo. Raises Unreadable; other I/O errors pass through, as they say nothing about it."""
        data = read(self.root, item.photo or Span(item.ref), PIXEL_BYTES * self.max_pixels)
        return decode(data, upright=self.upright, canvas=canvas, max_pixels=self.max_pixels)


def read(root: str, span: Span, max_bytes: int) -> bytes:
    """Reads a range of bytes.

    Args:
        root: Folder or URL that the file is below.
        span: The range.
        max_bytes: Bytes of the largest range that is read; a whole file elsewhere has no bound.

    Raises:
        Unreadable: The file is missing, forbidden, too large or something else than a file.
    """
    url = fs.join(root, span.file)
    try:
        if (span.size or 0) > max_bytes:
            raise Unreadable("too-many-bytes")
        if span.size is None:
            # Not opened before this: a pipe would be waited for.
            found = fs.local_stat(url)
            if found and not stat.S_ISREG(found.st_mode):
                raise Unreadable("not-a-file")
            if found and found.st_size > max_bytes:
                raise Unreadable("too-many-bytes")
            return fs.read_bytes(url)
        return fs.read_range(url, span.offset, span.size)
    except FileNotFoundError as error:
        raise Unreadable("missing") from error
    except (PermissionError, Forbidden) as error:
        raise Unreadable("forbidden") from error


def decode(data: bytes, *, upright: bool, canvas: Canvas, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decodes a photo of any mode to RGB: alpha is dropped, an animation gives its first frame.

    Args:
        data: Bytes of the file.
        upright: Whether to apply the EXIF orientation.
        canvas: A JPEG much larger than this is decoded at a smaller scale (`PHOTOS["decode"]`).
        max_pixels: See `open_picture`.

    Raises:
        Unreadable: The bytes are empty, damaged, not an image, too large, or of unknown brightness.
    """

    def enough(width: int, height: int) -> tuple[int, int]:
        fitted_width, fitted_height = canvas.fit(width, height)
        return PHOTOS["decode"] * fitted_width, PHOTOS["decode"] * fitted_height

    image, width, height = open_picture(data, max_pixels=max_pixels, enough=enough)
    if upright:
        image, swapped = turn_upright(image)
        if swapped:
            width, height = height, width
    return Decoded(to_rgb(image), width, height)
