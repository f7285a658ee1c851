"""A stranger's web server on loopback: it remembers every byte it is sent, and misbehaves where asked."""

import gzip
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


class StrangersServer(ThreadingHTTPServer):
    """Answers a path with what `answers` has for its first part, else with `body`."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = body
        self.answers: dict[str, Answer] = dict(ANSWERS)
        self.paths: list[str] = []
        self.heard = b""

    def url(self, path: str = "", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}/{path}"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what these tests are about."""


@contextmanager
def stranger(body: bytes) -> Iterator[StrangersServer]:
    with StrangersServer(body) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: StrangersServer

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.heard += f"{self.requestline}\n{self.headers}".encode()
        answer = self.server.answers.get(self.path.split("/")[1])
        if answer:
            answer(self)
        else:
            send(self, self.server.body)

    do_HEAD = do_POST = do_PUT = do_OPTIONS = do_GET

    def log_message(self, *_: object) -> None:
        pass


def send(handler: BaseHTTPRequestHandler, body: bytes, **headers: str) -> None:
    """Answers 200 with a body."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def redirect(to: str) -> Answer:
    """Answers that the photo has moved."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def _gzipped(handler: BaseHTTPRequestHandler) -> None:
    assert isinstance(handler.server, StrangersServer)
    send(handler, gzip.compress(handler.server.body), Content_Encoding="gzip")


def _endless_after_gzip(handler: BaseHTTPRequestHandler) -> None:
    assert isinstance(handler.server, StrangersServer)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    handler.wfile.write(gzip.compress(handler.server.body))
    while True:
        handler.wfile.write(bytes(100_000))


def _bomb(handler: BaseHTTPRequestHandler) -> None:
    send(handler, gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(100_000))


def _trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def _slow_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-A: b\r\n")
        time.sleep(0.05)


def _claims_much(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "99999999999")
    handler.end_headers()


def _garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x00\xff" * 500)


ANSWERS: dict[str, Answer] = {
    "gzipped": _gzipped,
    "endless-after-gzip": _endless_after_gzip,
    "bomb": _bomb,
    "cut-gzip": lambda handler: send(handler, gzip.compress(bytes(999))[:-9], Content_Encoding="gzip"),
    "no-gzip": lambda handler: send(handler, b"plain", Content_Encoding="gzip"),
    "other-encoding": lambda handler: send(handler, b"plain", Content_Encoding="br"),
    "claims-much": _claims_much,
    "endless": _endless,
    "trickle": _trickle,
    "slow-headers": _slow_headers,
    "garbage": _garbage,
    "loop": redirect("/loop"),
    "to-nothing": redirect(""),
    "to-file": redirect("file:///etc/passwd"),
    "to-nonsense": redirect("http://[::1/"),
}


def process_secrets(folder: Path) -> dict[str, str]:
    """Environment variables, and a home folder, that no server may ever see."""
    secret = "pl4nted-s3cret"
    (folder / ".netrc").write_text(
        f"default login me password {secret}\nmachine 127.0.0.1 login me password {secret}\n"
    )
    (folder / ".netrc").chmod(0o600)
    names = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN HF_TOKEN GITHUB_TOKEN SECRET PASSWORD"
    return {"HOME": str(folder), "NETRC": str(folder / ".netrc"), **dict.fromkeys(names.split(), secret)}


def said(server: StrangersServer) -> str:
    """Everything that the server has been sent, with escapes undone."""
    text = server.heard.decode("latin-1")
    return text + re.sub("%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), text)
