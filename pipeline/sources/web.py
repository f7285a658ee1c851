"""Fetching photos from addresses that strangers wrote: within bounds, and from public servers alone."""

import asyncio
import ipaddress
import socket
import time
import zlib
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem
from yarl import URL

from densecli.core.errors import DenseCLIError
from densecli.pipeline.config import WebSettings
from densecli.pipeline.sources.base import Unreadable

MOST_REDIRECTS = 10
"""Redirects that are followed for one photo."""
# Seconds before the second and third attempt.
_PAUSES = (0.5, 2.0)
# One server that does not answer leaves time for a second attempt.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
_CHUNK = 1 << 16
_DENIED, _GONE = (401, 403, 451), (404, 410)
_MOVED = (301, 302, 303, 307, 308)
_UNICAST, _NAT64 = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("64:ff9b::/96")
# Metadata of cloud machines at addresses that are public by their number: Oracle's and Azure's.
_METADATA = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))


class PrivateAddress(OSError):
    """A name led to an address that is not on the public internet."""


def fetch(url: str, settings: WebSettings) -> bytes:
    """The file at an address that begins with http:// or https://.

    No cookies, no .netrc and nothing else of the user's is sent. Each redirect is checked as the address was,
    and so is the address that a name leads to, at the moment of the connection. A proxy that the environment
    names is used as it is: it resolves names, so only addresses written as such are checked here.

    Args:
        url: The address.
        settings: Bounds on bytes and time, and whether private addresses may be asked.

    Raises:
        Unreadable: The address is malformed or private, or there is no such file within the bounds.
    """
    end = time.monotonic() + settings.photo_timeout
    for pause in (*_PAUSES, 0.0):
        try:
            return _attempt(url, settings, end - time.monotonic())
        except Unreadable as reason:
            if str(reason) != "unreachable" or not pause or time.monotonic() + pause >= end:
                raise
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def is_public(address: str) -> bool:
    """Whether a numeric IP address is one of the public internet's: none of this machine or its network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in _METADATA)
    inner = ip.ipv4_mapped or ip.sixtofour
    if ip in _NAT64:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return is_public(str(inner)) if inner else ip in _UNICAST and ip.is_global


def _attempt(url: str, settings: WebSettings, seconds: float) -> bytes:
    clients = {private: _client(private) for private in (False, True)}
    try:
        # The loop's own timeout ends the request; this one is for a loop that is busy.
        data: bytes = sync(clients[False].loop, _get, url, settings, seconds, clients, timeout=seconds + 10)
        return data
    except (DenseCLIError, Unreadable):
        raise
    except ValueError as error:
        # An address or a redirect that yarl, idna or aiohttp cannot read.
        raise Unreadable("malformed-address") from error
    except Exception as error:
        # Whatever a resolver or a server does to the client, it is about this photo alone.
        refused = isinstance(getattr(error, "os_error", None), PrivateAddress)
        raise Unreadable("private-address" if refused else "unreachable") from error


def _client(private: bool) -> HTTPFileSystem:
    """fsspec keeps one for each thread, and closes it. private: whether it may connect to any address."""
    return HTTPFileSystem(get_client=_any_session if private else _public_session)


async def _get(url: str, settings: WebSettings, seconds: float, clients: dict[bool, HTTPFileSystem]) -> bytes:
    try:
        async with asyncio.timeout(max(seconds, 0)) as limit:
            at = URL(url)
            for _ in range(MOST_REDIRECTS + 1):
                _check(at, settings)
                proxy = _proxy(at)
                session = await clients[settings.allow_private or proxy is not None].set_session()
                async with session.get(at, allow_redirects=False, proxy=proxy, timeout=_TIMEOUT) as response:
                    location = response.headers.get("Location")
                    if response.status not in _MOVED or location is None:
                        return await _body(response, settings.max_bytes)
                    at = at.join(URL(location))
    except TimeoutError:
        if not limit.expired():
            raise
        raise Unreadable("too-slow") from None
    raise Unreadable("too-many-redirects")


def _check(url: URL, settings: WebSettings) -> None:
    """Raises Unreadable for an address that cannot be asked or may not be."""
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise Unreadable("malformed-address")
    host = url.raw_host.rstrip(".")
    number = _numeric(host)
    local = host == "localhost" or host.endswith(".localhost")
    if not settings.allow_private and (local or (number and not is_public(number))):
        raise Unreadable("private-address")


def _numeric(host: str) -> str | None:
    """The IP address that a host is, in any spelling that programs read (2130706433, 0x7f.1); else None."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _proxy(url: URL) -> URL | None:
    """The proxy that the environment names for an address."""
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(url.raw_host or ""):
        return None
    try:
        found = URL(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        found = URL()
    if found.scheme not in ("http", "https") or not found.raw_host:
        raise DenseCLIError(
            f"Photos cannot be fetched through the proxy that the environment names for {url.scheme}.",
            hint=f"Set {url.scheme}_proxy to http://HOST:PORT, or unset it.",
        )
    return found


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if response.status in _GONE:
        raise Unreadable("missing")
    if response.status in _DENIED:
        raise Unreadable("forbidden")
    if response.status != 200:
        raise Unreadable("unreachable")
    if (response.content_length or 0) > max_bytes:
        raise Unreadable("too-many-bytes")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise Unreadable("unknown-encoding")
    packed = encoding not in ("", "identity")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    data, received = bytearray(), 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        received += len(chunk)
        try:
            data += unpacker.decompress(chunk, max_bytes + 1 - len(data)) if packed else chunk
        except zlib.error as error:
            raise Unreadable("corrupt") from error
        if len(data) > max_bytes or received > max_bytes + _CHUNK:
            raise Unreadable("too-many-bytes")
        if packed and unpacker.eof:
            # zlib would keep, and copy, all that follows.
            break
    if packed and data and not unpacker.eof:
        raise Unreadable("truncated")
    return bytes(data)


async def _any_session(**options: Any) -> aiohttp.ClientSession:
    return _session(aiohttp.TCPConnector(), options)


async def _public_session(**options: Any) -> aiohttp.ClientSession:
    return _session(aiohttp.TCPConnector(socket_factory=_public_socket), options)


def _session(connector: aiohttp.TCPConnector, options: dict[str, Any]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        # Bodies are unpacked here, within bounds; trust_env would send what .netrc holds.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
        trust_env=False,
        **options,
    )


def _public_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket for a connection to a public address; asked at the moment of the connection."""
    family, kind, protocol, _, address = info
    if not is_public(address[0]):
        raise PrivateAddress("a private address")
    return socket.socket(family, kind, protocol)
