"""Pictures: the one place where an image file is opened, within bounds on formats and memory.

Files come from strangers, and a decoder may raise anything at all on a crafted one. So whatever it raises
means that the picture is unreadable, and a word says why.
"""

import io
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from densecli.core.errors import DenseCLIError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "MPO", "AVIF", "JPEG2000")
"""Pillow's names of the formats that photos come in. No other decoder is started: EPS runs Ghostscript."""
EXTENSIONS = (
    *(".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".png"),
    *(".tif", ".tiff", ".webp"),
)
"""How names of photos end, in lower case. Fixed, because a listing is the identity of the data."""
MAX_PIXELS = 178_956_970
"""Pixels of the largest picture that is decoded; Pillow's own limit. It takes up to 1.8 GB."""
REASONS = {
    "empty": "is empty",
    "not-an-image": f"is no picture in any of the formats {', '.join(FORMATS)}",
    "too-large": "has more pixels than are decoded",
    "truncated": "is cut short",
    "corrupt": "is damaged",
    "corrupt-exif": "has damaged EXIF data, which say how it is turned",
    "float-pixels": "has pixels that are fractions, and does not say which of them is white",
    "wide-pixels": "has pixels of more than 16 bits, and does not say which of them is white",
    "not-a-file": "is a pipe, a device or a socket",
    "too-many-bytes": "has more bytes than the largest picture",
    "too-many-scans": "repeats its pixels in more scans than are decoded",
    "out-of-memory": "needs more memory than there is",
}
"""Why a picture is unreadable, as the end of a sentence, by `Unreadable.reason`."""

PIXEL_BYTES = 8
"""Bytes of the largest pixel, 64-bit RGBA: a file with more than these for every pixel is not read."""
MAX_SCANS = 1000
"""Scans of a JPEG, with those of pictures within it. Encoders write ten or so, and each visits all pixels."""

_SCAN = re.compile(b"\xff\xda")
_SWAPPED = (5, 6, 7, 8)
# Decoders that hold 16 to 20 bytes a pixel, where others hold at most 10.
_HUNGRY = ("JPEG2000", "WEBP")
# 65535 / 257 = 255. Pillow would clip 16-bit values at 255.
_TO_8_BITS = np.round(np.arange(1 << 16) / 257).astype(np.uint8)


# Pictures up to twice Pillow's own limit would be told on standard error, by every worker; `_header` refuses
# what is too large. A filter for one block would not be safe among threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# The same: the reason of a photo says it.
warnings.filterwarnings("ignore", "(Possibly c|C)orrupt EXIF data|Truncated File Read", UserWarning)


class Unreadable(Exception):
    """A picture that cannot be used. `str()` is one word, the reason under which it is counted."""

    @property
    def sentence(self) -> str:
        """The reason as the end of a sentence whose subject is the file."""
        return REASONS.get(str(self), f"cannot be read ({self})")


class Picture(NamedTuple):
    """An opened picture.

    Attributes:
        image: Decoded, in its own mode.
        width: Width of the picture itself, in pixels; `image` may be smaller.
        height: Height of the picture itself, in pixels.
    """

    image: Image.Image
    width: int
    height: int


def open_picture(
    data: bytes | memoryview,
    *,
    formats: Sequence[str] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    enough: Callable[[int, int], tuple[int, int]] | None = None,
) -> Picture:
    """Opens and decodes a picture; an animation gives its first frame.

    Args:
        data: Bytes of the file.
        formats: Those of FORMATS that it may have.
        max_pixels: Pixels of the largest picture that is decoded; of a WebP or JPEG 2000, half as many.
        enough: Of the picture's (width, height), the size that is enough: a JPEG much larger than that is
            decoded at a smaller scale, never below it. None for the whole picture.

    Raises:
        Unreadable: The bytes are empty, damaged, no picture, too large, or of unknown brightness.
    """
    with unreadable_if_raised():
        image = _header(data, formats, max_pixels)
        width, height = image.size
        if enough:
            image.draft(None, enough(width, height))
        image.load()
        return Picture(image, width, height)


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Turns a picture as its EXIF data say.

    Returns:
        The picture, and whether its width and height changed places.

    Raises:
        Unreadable: The EXIF data are damaged.
    """
    with unreadable_if_raised("corrupt-exif"):
        swapped = image.getexif().get(ExifTags.Base.Orientation, 1) in _SWAPPED
        ImageOps.exif_transpose(image, in_place=True)
        return image, swapped


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded picture of any mode as 8-bit RGB: alpha is dropped. Raises Unreadable."""
    with unreadable_if_raised():
        if image.mode.startswith("I"):
            levels = np.asarray(image)
            if levels.max() >= len(_TO_8_BITS):
                raise Unreadable("wide-pixels")
            grey = np.empty(levels.shape, np.uint8)
            # Row by row: the whole picture as wide integers would be several times its size.
            for row, values in enumerate(levels):
                grey[row] = _TO_8_BITS[np.clip(values, 0, len(_TO_8_BITS) - 1)]
            image = Image.fromarray(grey)
        if image.mode == "P":
            image = image.convert("RGBA")
        # convert() would copy an image that is RGB already.
        return image if image.mode == "RGB" else image.convert("RGB")


def read_picture(path: Path | str, hint: str) -> Image.Image:
    """Reads a whole picture from a file, in its own mode.

    Args:
        path: Path of the file.
        hint: What to do where it cannot be read.

    Raises:
        DenseCLIError: The file is not there, or cannot be decoded.
    """
    with _errors_of(path, hint):
        return open_picture(_content(Path(path))).image


def read_photo(path: Path | str, hint: str, *, turned: bool = False) -> Image.Image:
    """Reads a photo from a file as 8-bit RGB.

    Args:
        path: Path of the file.
        hint: What to do where it cannot be read.
        turned: Whether to turn it as its EXIF data say.

    Raises:
        DenseCLIError: See `read_picture`.
    """
    with _errors_of(path, hint):
        image = open_picture(_content(Path(path))).image
        return to_rgb(upright(image)[0] if turned else image)


def _content(path: Path) -> bytes:
    """The bytes of a picture file; data sets of strangers may hold links to devices, and pipes."""
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise Unreadable("not-a-file")
    if found.st_size > PIXEL_BYTES * MAX_PIXELS:
        raise Unreadable("too-many-bytes")
    return path.read_bytes()


@contextmanager
def _errors_of(path: Path | str, hint: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DenseCLIError(f"Could not read {path}: {error.strerror or error}.", hint=hint) from error
    except Unreadable as error:
        raise DenseCLIError(f"The picture {path} {error.sentence}.", hint=hint) from error


@contextmanager
def unreadable_if_raised(otherwise: str = "") -> Iterator[None]:
    """Turns every exception in the block into `Unreadable`.

    Args:
        otherwise: The reason where it is not one that the exception tells. Empty: corrupt or truncated.
    """
    try:
        yield
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("not-an-image") from error
    except Image.DecompressionBombError as error:
        raise Unreadable("too-large") from error
    except MemoryError as error:
        raise Unreadable("out-of-memory") from error
    except Exception as error:
        cut = "truncated" in str(error).lower()
        raise Unreadable(otherwise or ("truncated" if cut else "corrupt")) from error


def _header(data: bytes | memoryview, formats: Sequence[str], max_pixels: int) -> Image.Image:
    """The picture, not decoded yet; raises what its decoder does, and Unreadable."""
    if not len(data):
        raise Unreadable("empty")
    if max_pixels > MAX_PIXELS and Image.MAX_IMAGE_PIXELS is not None:
        # Pillow refuses pictures of twice this size before it tells their size.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, -(-max_pixels // 2))
    image = Image.open(io.BytesIO(data), formats=_known(tuple(formats)))
    width, height = image.size
    if width < 1 or height < 1:
        raise Unreadable("corrupt")
    if width * height * (2 if image.format in _HUNGRY else 1) > max_pixels:
        raise Unreadable("too-large")
    if image.mode == "F":
        raise Unreadable("float-pixels")
    if image.format in ("JPEG", "MPO") and any(islice(_SCAN.finditer(data), MAX_SCANS, None)):
        raise Unreadable("too-many-scans")
    return image


@cache
def _known(formats: tuple[str, ...]) -> tuple[str, ...]:
    """The formats that this Pillow can open by name: older ones lack AVIF, and an MPO opens as a JPEG."""
    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)
