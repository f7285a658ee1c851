"""Parts of a file by a signed address: connections that stay open, and servers that say later or no."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from densecli.core import signed_file
from densecli.core.signed_file import Refused, SignedFile

DATA = bytes(range(256)) * 8


class _Server(ThreadingHTTPServer):
    """Answers with parts of DATA; `later` requests are refused first, with 503."""

    later = 0
    status = 206
    connections = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def do_GET(self) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        status, body = self.server.status, DATA[first : last + 1]
        if self.server.later:
            self.server.later -= 1
            status, body = 503, b"<Error>SlowDown</Error>"
        self.send_response(status if self.path == "/b/a.tar?sig=1" else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(signed_file, "_PAUSES", (0, 0, 0))
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def file(server: _Server) -> Iterator[SignedFile]:
    file = SignedFile(f"http://127.0.0.1:{server.server_port}/b/a.tar?sig=1")
    yield file
    file.close()


def test_fetch__parts_come_over_one_connection(server, file):
    assert [file.fetch(at, 100) for at in (0, 700, 300)] == [DATA[at : at + 100] for at in (0, 700, 300)]
    assert server.connections == 1


def test_fetch__a_store_that_asks_for_fewer_requests_is_asked_again(server, file):
    server.later = 3
    assert file.fetch(5, 3) == DATA[5:8]
    server.later = 4
    with pytest.raises(OSError, match="fewer requests"):
        file.fetch(5, 3)


@pytest.mark.parametrize("status", [200, 403])
def test_fetch__another_answer_is_refused_at_once(server, file, status):
    server.status = status
    with pytest.raises(Refused, match=f"answered {status}"):
        file.fetch(5, 3)
    server.status = 206
    assert file.fetch(5, 3) == DATA[5:8]


def test_fetch__fewer_bytes_than_asked_for_are_refused(file):
    with pytest.raises(Refused, match="1 bytes"):
        file.fetch(len(DATA) - 1, 3)
