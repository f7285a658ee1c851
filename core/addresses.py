"""Addresses of files: joining them, and keeping credentials out of what is written down."""

import os
import re
from urllib.parse import urlsplit, urlunsplit

from densecli.core.errors import DenseCLIError

# USER@; USER:PASSWORD@, whose password may have slashes (HOST:PORT/a@b.jpg has none); ?NAME=VALUE.
_SECRETS = re.compile(r"://([^/]*@|[^/]*:(?!\d+/).*@|.*\?.*=)")
# Lists of photos may have signed addresses of these schemes.
_WEB = re.compile("https?://", re.IGNORECASE)
_USER = re.compile(r"^([^:/?#]+://)[^/?#]*@")


def join(url: str | os.PathLike[str], *parts: str) -> str:
    """The address of `parts` below `url`."""
    return "/".join([os.fspath(url).rstrip("/"), *parts])


def expanded(path: str | os.PathLike[str]) -> str:
    """A path whose leading ~ stands for the home folder, written out. Shells leave it alone in --flag=~/x."""
    path = os.fspath(path)
    return os.path.expanduser(path) if path.startswith("~") else path


def from_environment(variable: str, default: str) -> str:
    """The path that an environment variable holds, or `default` where it is not set or empty."""
    return expanded(os.environ.get(variable) or default)


def absolute(url: str) -> str:
    """An absolute path, or a URL unchanged. Raises the errors of `check`."""
    check(url)
    return url if "://" in url else os.path.abspath(url)


def shown(url: str) -> str:
    """An address for people: a path below the working folder as one that is relative to it."""
    below = "" if "://" in url else os.path.relpath(url)
    return url if not below or below.split(os.sep)[0] == os.pardir else below


def check(url: str) -> None:
    """Refuses a URL with credentials or a query: addresses are written into stores, runs and logs.

    Raises:
        DenseCLIError: The URL has some. The message does not repeat them.
    """
    if _SECRETS.search(url):
        raise DenseCLIError(
            f"An address that begins with {urlsplit(url).scheme}:// has credentials or a query in it.",
            hint="Leave them out and give credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, "
            "...).",
        )


def is_web(url: str) -> bool:
    """Whether an address begins with http:// or https://."""
    return bool(_WEB.match(url))


def public(url: str) -> str:
    """An address that may be written down: a web address without user and query, which carry credentials.

    Only addresses in lists of photos may have any; all others have passed `check`. A list may hold anything:
    of what is no address, the same parts are left out.
    """
    if not is_web(url):
        return _USER.sub(r"\1", url)
    try:
        parts = urlsplit(url)
    except ValueError:
        return _USER.sub(r"\1", re.split("[?#]", url, maxsplit=1)[0])
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
