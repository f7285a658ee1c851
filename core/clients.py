"""fsspec's client for an address, with its failures as readable errors."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from densecli.core.addresses import check, is_web, public
from densecli.core.errors import DenseCLIError, Forbidden, NoSpace, Unreachable

CONNECTIONS = 64
"""Requests to an object store that are under way at the same time."""

# HTTP status where access is denied, and where the file is gone.
_DENIED, _GONE = (401, 403, 451), 410
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def client(url: str, action: str = "read") -> Iterator[tuple[AbstractFileSystem, str]]:
    """Yields the file system of an address and the path in it, for a block that reads or writes there.

    A remote file system's client retries by itself, with growing pauses, before it fails.

    Args:
        url: A path or an address.
        action: read, write or delete.

    Raises:
        DenseCLIError: Something in the block fails. Unless it writes, a FileNotFoundError passes unchanged;
            when reading, so do all errors of a local disk.
    """
    if not is_web(url):
        check(url)
    try:
        # Listings are not kept: another process may just have written there.
        fs, path = url_to_fs(url, use_listings_cache=False, **_options(url))
    except ImportError as error:
        raise DenseCLIError(
            f"Addresses that begin with {urlsplit(url).scheme}:// need a package that is not installed.",
            hint=f"{error}.",
        ) from error
    except ValueError as error:
        raise DenseCLIError(
            f"There is no file system for addresses that begin with {urlsplit(url).scheme}://.",
            hint="Give a folder, or an address that fsspec knows: s3://, gs://, abfs://, ...",
        ) from error
    local = isinstance(fs, LocalFileSystem)
    if "s3" in fs.protocol:
        _retry_checksums()
    try:
        yield fs, path
    except DenseCLIError:
        raise
    except Exception as error:
        # Clients of object stores raise exceptions of many kinds, not only OSError.
        gone = isinstance(error, FileNotFoundError) and action != "write"
        if gone or (local and (action == "read" or not isinstance(error, OSError))):
            raise
        status = getattr(error, "status", None)
        if action == "read" and status == _GONE:
            raise FileNotFoundError(public(url)) from error
        denied = isinstance(error, PermissionError) or status in _DENIED
        if getattr(error, "errno", None) in _FULL:
            kind: type[DenseCLIError] = NoSpace
        else:
            kind = DenseCLIError if local else Forbidden if denied else Unreachable
        raise kind(
            f"Could not {action} {public(url)}: {_reason(error)}.", hint=_hint(error, local)
        ) from error


def _options(url: str) -> dict[str, Any]:
    if is_web(url):
        return _web_client()
    # botocore's 10 connections would be fewer than the threads that wait for answers.
    return {"config_kwargs": {"max_pool_connections": CONNECTIONS}} if url.startswith("s3://") else {}


def _web_client() -> dict[str, Any]:
    # One silent server must not delay a list of photos on many servers.
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(total=300, sock_connect=10, sock_read=30)}}


@cache
def _retry_checksums() -> None:
    """Makes s3fs retry where a download has another checksum than what was sent."""
    from botocore.exceptions import FlexibleChecksumError
    from s3fs.core import add_retryable_error

    add_retryable_error(FlexibleChecksumError)


def _reason(error: Exception) -> str:
    """Why it failed, without the client's message, which may name endpoints from the environment."""
    if status := getattr(error, "status", None):
        return f"the server answered {status}"
    if "range requests" in str(error):
        return "the server does not serve parts of files"
    return getattr(error, "strerror", None) or type(error).__name__


def _hint(error: Exception, local: bool) -> str:
    if getattr(error, "errno", None) in _FULL:
        return "Free some space and run the same command again; nothing half written was published."
    if local:
        return "Check that the folder exists and that you may write to it."
    return (
        "Check the address and the credentials in the environment, then run the same command again: "
        "nothing half written was published."
    )
