"""Loading photos from the addresses of a list, of which strangers may have written some."""

import errno
import os
import re
import stat
from dataclasses import dataclass

from densecli.core import fs
from densecli.core.errors import DenseCLIError, Forbidden, Unreachable
from densecli.pipeline.config import WebSettings
from densecli.pipeline.sources import web
from densecli.pipeline.sources.address_lists import LONGEST
from densecli.pipeline.sources.base import Decoded, Item, Unreadable
from densecli.pipeline.sources.photos import decode
from densecli.shards.geometry import Canvas

STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub"}
"""Object stores that an address may name, each with the package that reads it."""
REFUSALS = {
    "private-address": "Addresses of this machine and its network are read with --allow-private.",
    "local-file": "Files of this machine are read with --allow-local.",
    **{f"needs-{package}": f"Install it with pip install {package}." for package in STORES.values()},
}
"""Hints for photos that were not read, by reason."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):")
# Control characters, and what stands for bytes that were no text.
_NO_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\N{REPLACEMENT CHARACTER}]")
# fsspec's: one file system inside another.
_CHAIN = re.compile(r"::[A-Za-z][A-Za-z0-9+._-]*(://|$)")
# The name of a bucket and a name in it: no credentials, no account, no other host.
_OBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/.")


@dataclass(frozen=True, kw_only=True)
class AddressLoader:
    """Loads the photo at an address of a list. EXIF orientation is applied.

    Attributes:
        folder: Folder of the list, to which paths are relative.
        web: What may be fetched.
        max_pixels: Pixels of the largest photo that is decoded.
    """

    folder: str
    web: WebSettings
    max_pixels: int

    def __call__(self, item: Item, canvas: Canvas) -> Decoded:
        """Loads a photo. Raises Unreadable, whatever the address and whatever answers there."""
        assert item.photo is not None
        data = read_address(item.photo.file, self.folder, self.web)
        return decode(data, upright=True, canvas=canvas, max_pixels=self.max_pixels)


def read_address(address: str, folder: str, settings: WebSettings) -> bytes:
    """The file at an address.

    Args:
        address: http, https, s3, gs, az or hf; a path or file:// where `settings` allow it.
        folder: Folder to which paths are relative.
        settings: What may be fetched.

    Raises:
        Unreadable: The address is malformed or refused, or there is no such file within the bounds.
    """
    if len(address) > LONGEST or _NO_CHARACTER.search(address):
        raise Unreadable("malformed-address")
    found = _SCHEME.match(address)
    scheme, rest = (found[1].lower(), address[found.end() :]) if found else ("", address)
    is_web = scheme in ("http", "https")
    if _CHAIN.search(address) or (not is_web and "::" in address):
        raise Unreadable("chained-address")
    if is_web:
        return web.fetch(address, settings)
    if scheme in STORES:
        if not (rest.startswith("//") and _OBJECT.match(rest[2:])):
            raise Unreadable("malformed-address")
        return _read_object(scheme, f"{scheme}:{rest}", settings.max_bytes)
    if scheme not in ("", "file"):
        raise Unreadable("unknown-scheme")
    if not settings.allow_local:
        raise Unreadable("local-file")
    return _read_local(os.path.join(folder, rest.removeprefix("//") if scheme else rest), settings.max_bytes)


def _read_object(scheme: str, url: str, max_bytes: int) -> bytes:
    """An object, with the endpoint and the credentials of the environment; fsspec has its own timeouts."""
    try:
        data = fs.read_range(url, 0, max_bytes + 1)
    except FileNotFoundError as error:
        raise Unreadable("missing") from error
    except Forbidden as error:
        raise Unreadable("forbidden") from error
    except Unreachable as error:
        # How S3 answers where a part of an empty object is asked for.
        empty = getattr(error.__cause__, "errno", None) == errno.EINVAL
        raise Unreadable("empty" if empty else "unreachable") from error
    except DenseCLIError as error:
        needed = isinstance(error.__cause__, ImportError)
        raise Unreadable(f"needs-{STORES[scheme]}" if needed else "malformed-address") from error
    return _bounded(data, max_bytes)


def _read_local(path: str, max_bytes: int) -> bytes:
    try:
        # Not opened before this: a pipe would be waited for.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Unreadable("not-a-file")
        with open(path, "rb") as file:
            return _bounded(file.read(max_bytes + 1), max_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unreadable("missing") from error
    except PermissionError as error:
        raise Unreadable("forbidden") from error
    except OSError as error:
        raise Unreadable("unreachable") from error


def _bounded(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise Unreadable("too-many-bytes")
    return data
