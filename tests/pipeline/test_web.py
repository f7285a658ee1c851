"""Photos on web servers, of which some refuse, fail, hang up or are not there."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from building import build_here
from tars import jpg, tar

from densecli.core import fs
from densecli.core.errors import DenseCLIError, Forbidden, Unreachable
from densecli.pipeline.sources import open_source, web

PHOTO = jpg()
TAR = tar({f"{i}.jpg": PHOTO for i in range(50)})


class Server(ThreadingHTTPServer):
    """Answers /N/... with the status N, /cut/... with half of the photo it promises, /tar/... with a tar of
    photos, others with the photo; /flaky/... only at the third time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        what = self.path.split("/")[1]
        self.server.asked[self.path] += 1
        flaky = what == "flaky" and self.server.asked[self.path] < 3
        status = int(what) if what.isdigit() else 503 if flaky else 200
        self.send_response(status)
        body = TAR if what == "tar" else PHOTO
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if what == "cut" else body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fs, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(web, "_PAUSES", (1e-9, 1e-9))
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def from_web(tiny, tmp_path: Path, server: Server):
    """The build of a list of addresses on the server."""

    def config(*paths: str, shard_size: int = 100):
        (tmp_path / "list.txt").write_text("\n".join(map(server.url, paths)))
        return replace(
            tiny, dataset="urls", data=str(tmp_path / "list.txt"), split=None, limit=None, canvas=48,
            teachers=(), weights={}, shard_size=shard_size, allow_private=True,
        )  # fmt: skip

    return config


def test_photos__that_cannot_be_had_are_skipped_with_their_reason(from_web, server):
    paths = ("ok/1", "404/1", "410/1", "403/1", "401/1", "500/1", "cut/1", "flaky/1")
    _, [report] = build_here(from_web(*paths))
    assert report.samples == 2
    assert report.skipped == {"missing": 2, "forbidden": 2, "unreachable": 2}
    assert server.asked["/500/1"] == server.asked["/flaky/1"] == 3
    assert server.asked["/404/1"] == server.asked["/403/1"] == 1


def test_a_server_that_is_not_there__is_unreachable(from_web, server):
    config = from_web("ok/1")
    with open(config.data, "a") as file:
        file.write("\nhttp://127.0.0.1:9/a.jpg\n")
    _, [report] = build_here(config)
    assert (report.samples, report.skipped) == (1, {"unreachable": 1})


@pytest.mark.parametrize(
    ("status", "kind", "reason"), [("403", Forbidden, "forbidden"), ("503", Unreachable, "unreachable")]
)
def test_everything_out_of_reach__stops_and_publishes_nothing(from_web, status, kind, reason):
    config = from_web(f"{status}/1", f"{status}/2")
    with pytest.raises(kind, match=rf"None of the 2 photos from http.*/1 on could be read \({reason}\)\."):
        build_here(config)
    assert not list(Path(config.store).rglob("*.tar"))


def test_a_small_shard_out_of_reach__is_chance(from_web):
    _, reports = build_here(from_web("ok/1", "ok/2", "403/1", shard_size=2))
    assert [report.samples for report in reports] == [2, 0]


def test_messages__say_the_status_and_no_secret(server):
    with pytest.raises(Unreachable, match=r"Could not read http://[0-9.:]+/503/a: the server answered 503\."):
        fs.read_bytes(server.url("503/a?token=secret"))
    with pytest.raises(Forbidden, match=r"/403/a: the server answered 403\."):
        fs.read_bytes(server.url("403/a?token=secret"))


def test_webdataset__on_a_server_that_gives_no_parts_says_so(server):
    with pytest.raises(DenseCLIError, match=r"the server does not serve parts of files"):
        open_source("webdataset", server.url("tar/{000..001}.tar"))
