"""A server on loopback that speaks the Hugging Face Hub's protocol, with faults on request."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_API = re.compile(r"/api/models/([^/]+/[^/?]+)(?:/revision/([^/?]+))?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LFS = re.compile(r"/lfs/([^/]+/[^/]+)/(.+)")


@dataclass
class Hub:
    """What the server holds and how it fails.

    Attributes:
        address: Its own, for HF_ENDPOINT.
        repos: Files by name, of each repository.
        licences: Of each repository that has a model card.
        gated: Repositories that answer with 401.
        cut: Bytes after which the connection of a download is closed.
        cuts: How many downloads are cut.
        wrong: Whether a byte of each download is wrong.
        pause: Seconds before each chunk of a download.
        asked: Method and path of every request.
        ranges: The ranges that downloads asked for.
    """

    address: str = ""
    repos: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: int = 0
    cuts: int = 0
    wrong: bool = False
    pause: float = 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def downloads(self) -> list[str]:
        return [path for method, path in self.asked if method == "GET" and _LFS.fullmatch(path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append((self.command, path))
        if found := _LFS.fullmatch(path):
            self._download(self.hub.repos[found[1]][found[2]])
            return
        found = _API.fullmatch(path) or _RESOLVE.fullmatch(path)
        if found is None or found[1] not in self.hub.repos:
            # The hub does not tell a missing repository from a private one.
            self._answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif found[1] in self.hub.gated:
            self._answer(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif found[2] not in (None, "main", COMMIT):
            self._answer(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        elif path.startswith("/api/"):
            self._describe(found[1])
        else:
            self._resolve(found[1], found[3])

    def _answer(self, status: int, headers: Mapping[str, str] = {}, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _describe(self, repo: str) -> None:
        files = [
            {
                "rfilename": name,
                "size": len(data),
                "blobId": "0" * 40,
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134},
            }
            for name, data in self.hub.repos[repo].items()
        ]
        licence = self.hub.licences.get(repo)
        card = {"cardData": {"license": licence}} if licence else {}
        about = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": files, "tags": [], **card}
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(about).encode())

    def _resolve(self, repo: str, name: str) -> None:
        commit = {"X-Repo-Commit": COMMIT}
        if name not in self.hub.repos[repo]:
            self._answer(404, {**commit, "X-Error-Code": "EntryNotFound", "X-Error-Message": "No entry"})
            return
        data = self.hub.repos[repo][name]
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"'}
        # Downloads come from a host of another name, as the hub's do.
        elsewhere = self.hub.address.replace("127.0.0.1", "localhost")
        self._answer(302, {**commit, **linked, "Location": f"{elsewhere}/lfs/{repo}/{name}"})

    def _download(self, data: bytes) -> None:
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.hub.ranges.append(wanted)
        if self.hub.wrong:
            data = data[:-1] + bytes([data[-1] ^ 1])
        body = data[start:]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.hub.cuts:
            self.hub.cuts -= 1
            self.wfile.write(body[: self.hub.cut])
            self.close_connection = True
            return
        for at in range(0, len(body), 2**16):
            time.sleep(self.hub.pause)
            self.wfile.write(body[at : at + 2**16])


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub for the length of the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
