"""Answers of web servers: damaged, endless, packed, moved. Each gives a photo's bytes or a reason."""

import gzip
import random
import socket
import threading
from pathlib import Path
from unittest.mock import patch

from densecli.pipeline.config import WebSettings
from densecli.pipeline.sources import web

from .frame import Target
from .inputs import mutated, odd_text

MOST = 100_000
SETTINGS = WebSettings(allow_private=True, max_bytes=MOST, photo_timeout=2.0)
LINES = (
    "Content-Length: 10", "Content-Length: 0", "Content-Length: -1",
    "Content-Length: 99999999999999999999", "Content-Length: ten", "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked", "Content-Encoding: gzip", "Content-Encoding: deflate",
    "Content-Encoding: br", "Content-Encoding: gzip, gzip", "Location: /again", "Location: http://[::1",
    "Location: file:///etc/passwd", "Location: //", "Location: ?", "Set-Cookie: a=b", "Connection: close",
    "Connection: upgrade", "Upgrade: websocket", "X: " + "x" * 9000, "Content-Type: image/jpeg",
    "Content-Range: bytes 0-1/2", ": empty", "no colon", "\x00: \xff",
)  # fmt: skip
BODIES = (
    b"", b"0123456789", b"x" * 2 * MOST, gzip.compress(b"0123456789"), gzip.compress(bytes(100 * MOST)),
    b"a\r\n0123456789\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\nx\r\n", b"\r\n" * 5000,
)  # fmt: skip


def answer(rng: random.Random) -> bytes:
    """What a server sends."""
    status = rng.choice(
        (200, 200, 200, 100, 101, 204, 206, 301, 302, 304, 401, 404, 416, 429, 500, 999, -1, "")
    )
    version = rng.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2", "ICY"))
    lines = [f"{version} {status} {rng.choice(('OK', '', odd_text(rng)))}"]
    lines += rng.choices(LINES, k=rng.randrange(5))
    head = "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n"
    whole = head + rng.choice(BODIES)
    return mutated(rng, whole) if rng.random() < 0.4 else whole


def try_server(rng: random.Random, _: Path) -> None:
    """Asks a server for a photo, and lets it say what it likes, again and again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    try:
                        client.settimeout(5)
                        client.recv(65536)
                        client.sendall(answer(rng))
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        try:
            with patch.object(web, "_PAUSES", (1e-9, 1e-9)):
                data = web.fetch(f"http://127.0.0.1:{port}/a.jpg", SETTINGS)
        finally:
            server.shutdown(socket.SHUT_RDWR)
    assert len(data) <= MOST


TARGET = Target(
    name="web-servers", try_one=try_server, quick=150, megabytes=100, hosts=frozenset({"127.0.0.1"})
)
