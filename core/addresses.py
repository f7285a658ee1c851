"""Addresses of files: how they are put together, and that they carry no secret to where they are written."""

import os
import re
from urllib.parse import urlsplit, urlunsplit

from densecli.core.errors import DenseCLIError

# USER@; USER:PASSWORD@, where the password may have slashes (HOST:PORT/a@b.jpg is none); ?NAME=VALUE.
_SECRETS = re.compile(r"://([^/]*@|[^/]*:(?!\d+/).*@|.*\?.*=)")
# Lists of photos may have signed addresses of these.
_WEB = ("http://", "https://")


def join(url: str | os.PathLike[str], *parts: str) -> str:
    """The address of `parts` below `url`."""
    return "/".join([os.fspath(url).rstrip("/"), *parts])


def absolute(url: str) -> str:
    """A path as any folder's process would write it; a URL as it is. Raises DenseCLIError as `check` does."""
    check(url)
    return url if "://" in url else os.path.abspath(url)


def check(url: str) -> None:
    """Raises DenseCLIError, which does not repeat them, where a URL has credentials or a query in it.

    Addresses are written into stores, runs and logs; what opens them comes from the environment alone.
    """
    if _SECRETS.search(url):
        raise DenseCLIError(
            f"An address that begins with {urlsplit(url).scheme}:// has credentials or a query in it.",
            hint="Leave them out and give credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, "
            "...).",
        )


def is_web(url: str) -> bool:
    """Whether it is an address of http or https."""
    return url.startswith(_WEB)


def public(url: str) -> str:
    """An address as it may be written down: of http, without user and query, which carry credentials.

    Only addresses in lists of photos may have any: all others have passed `check`.
    """
    if not is_web(url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
