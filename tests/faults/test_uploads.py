"""Transfers that fail: no partial object is ever visible as a shard or read as one, and the same command goes
on."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from s3fs import S3FileSystem

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.cache import Cache
from densecli.shards.reader import StoreReader
from densecli.shards.store import Store
from densecli.shards.tars import read_shard, read_tar
from densecli.shards.writer import ShardWriter

pytestmark = pytest.mark.slow

ALWAYS = 10**6


class Proxy(ThreadingHTTPServer):
    """Stands before an S3 server and breaks the next `times` transfers, by `method`, of addresses that end
    with `victim`."""

    daemon_threads = True
    fault = ""
    method = "PUT"
    victim = ""
    times = 0

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(server).netloc
        self.broken = 0

    def shall_break(self, request: str) -> bool:
        if not (self.fault and urlsplit(request).path.endswith(self.victim) and self.broken < self.times):
            return False
        self.broken += 1
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = (
            self.server.fault
            if self.command == self.server.method and self.server.shall_break(self.path)
            else ""
        )
        if fault == "answered 500":
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        upstream = http.client.HTTPConnection(self.server.upstream)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                upstream.putheader(name, value)
        upstream.endheaders(body[: len(body) // 2] if fault == "cut halfway" else body)
        if fault in ("answer cut halfway", "answer with a flipped bit"):
            self._answer(upstream, fault)
            return
        if fault == "cut halfway":
            upstream.close()
        if fault:
            if fault == "never answered":
                upstream.getresponse().read()
            self.close_connection = True
            self.connection.close()
            return
        self._answer(upstream)

    def _answer(self, upstream: http.client.HTTPConnection, fault: str = "") -> None:
        answer = upstream.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        if fault == "answer with a flipped bit":
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.wfile.write(data[: len(data) // 2] if fault == "answer cut halfway" else data)
        if fault == "answer cut halfway":
            self.close_connection = True
            self.connection.close()
        upstream.close()

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(s3_server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        S3FileSystem.clear_instance_cache()
        yield server
        server.shutdown()


@pytest.fixture
def store(s3: str) -> Store:
    return Store.create(f"{s3}/store", {"name": "x"}, 64, [1, 1])


def commit(store: Store, shard: str) -> None:
    writer = ShardWriter(store.images, shard)
    writer.add(shard, {"json": b"{}", "jpg": bytes(range(256)) * 400})
    writer.commit()


FAULTS = ("cut halfway", "answered 500", "never answered")


@pytest.mark.parametrize("victim", ["000001.tar", "000001.json"])
@pytest.mark.parametrize("fault", FAULTS)
def test_upload__that_fails_for_good_leaves_no_shard_and_is_made_by_the_same_commit(
    proxy, store, survived, fault, victim
):
    commit(store, "000000")
    proxy.fault, proxy.victim, proxy.times = fault, victim, ALWAYS
    with pytest.raises(
        DenseCLIError, match=rf"^Could not write {store.root}/images/{victim}: .*\.$"
    ) as caught:
        commit(store, "000001")
    assert "nothing half written was published" in caught.value.hint
    assert 1 <= proxy.broken <= 10
    visible = fault == "never answered" and victim == "000001.json"
    assert store.images.has("000001") == visible
    assert store.images.missing() == ([] if visible else ["000001"])
    if not visible:
        with pytest.raises(DenseCLIError, match=r"has no receipt|has not been built"):
            read_shard(store.images, "000001")
    proxy.fault = ""
    commit(store, "000001")
    assert store.images.missing() == []
    assert [len(parts["jpg"]) for _, parts in read_shard(store.images, "000001")] == [256 * 400]
    survived(f"upload: {fault}, for good")


@pytest.mark.parametrize("fault", ["cut halfway", "never answered"])
def test_upload__that_fails_twice_is_tried_again(proxy, store, survived, fault):
    proxy.fault, proxy.victim, proxy.times = fault, "000000.tar", 2
    commit(store, "000000")
    assert proxy.broken == 2
    assert len(read_shard(store.images, "000000")) == 1
    survived(f"upload: {fault}, twice")


def test_upload__answered_500_is_tried_again(proxy, store, survived, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    S3FileSystem.clear_instance_cache()
    proxy.fault, proxy.victim, proxy.times = "answered 500", "000000.tar", 2
    commit(store, "000000")
    assert proxy.broken == 2
    assert len(read_shard(store.images, "000000")) == 1
    survived("upload: answered 500, twice")


def test_upload__in_parts_shows_nothing_before_the_last(proxy, s3, survived, monkeypatch):
    # s3fs uploads in parts from 100 MiB on; here from 10.
    monkeypatch.setattr(S3FileSystem._pipe_file, "__defaults__", (5 * 2**20, None, "overwrite"))
    url, data = f"{s3}/large", bytes(11 * 2**20)
    proxy.fault, proxy.victim, proxy.times = "answered 500", "large", 1
    with pytest.raises(DenseCLIError, match="Could not write"):
        fs.write_atomic(url, data)
    assert proxy.broken == 1
    assert not fs.exists(url)
    assert fs.listdir(s3) == []
    proxy.fault = ""
    fs.write_atomic(url, data)
    assert fs.read_bytes(url) == data
    survived("upload: one of several parts failed")


def test_server_that_is_gone__one_sentence_without_the_endpoint(store, s3_server, survived, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://somebody:password@127.0.0.1:9")
    S3FileSystem.clear_instance_cache()
    for call in (lambda: commit(store, "000000"), lambda: Store.open(store.root)):
        with pytest.raises(DenseCLIError, match=r"Could not (read|write) s3://") as caught:
            call()
        assert "password" not in f"{caught.value} {caught.value.hint}"
        assert "credentials in the environment" in caught.value.hint
    survived("object store out of reach")


DOWNLOADS = ("answer cut halfway", "answered 500")


@pytest.mark.parametrize("fault", DOWNLOADS)
def test_download__that_fails_twice_is_tried_again(proxy, store, survived, monkeypatch, fault):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    S3FileSystem.clear_instance_cache()
    commit(store, "000000")
    proxy.method, proxy.fault, proxy.victim, proxy.times = "GET", fault, "000000.tar", 2
    assert len(read_shard(store.images, "000000")) == 1
    assert proxy.broken == 2
    survived(f"download: {fault}, twice")


@pytest.mark.parametrize("fault", DOWNLOADS)
def test_download__that_fails_for_good_is_one_sentence_and_nothing_is_kept(
    proxy, store, survived, tmp_path, fault
):
    for shard in store.shard_names:
        commit(store, shard)
    cache = Cache(tmp_path / "cache", 10**9)
    reader = StoreReader([store.images], shuffle=False, cache=cache)
    whole = [record.key for record in reader.iter(0)]
    for path in cache.folder.glob("*.tar"):
        path.unlink()
    proxy.method, proxy.fault, proxy.victim, proxy.times = "GET", fault, "000001.tar", ALWAYS
    threads = set(threading.enumerate())
    with pytest.raises(DenseCLIError, match=rf"^Could not read {store.root}/images/000001.tar: .*\.$"):
        list(reader.iter(0))
    assert not {t.name for t in set(threading.enumerate()) - threads if t.name.startswith("shards")}
    assert [path.name.split("-")[1] for path in cache.folder.glob("*.tar")] == ["000000"]
    proxy.fault = ""
    assert [record.key for record in reader.iter(0)] == whole
    survived(f"download: {fault}, for good")


def test_download__with_a_flipped_bit_is_tried_again_then_refused_and_not_kept(
    proxy, store, survived, tmp_path
):
    commit(store, "000000")
    cache = Cache(tmp_path / "cache", 10**9)
    proxy.method, proxy.fault, proxy.victim = "GET", "answer with a flipped bit", "000000.tar"
    proxy.times = ALWAYS
    with pytest.raises(DenseCLIError, match=r"000000\.tar.*(Checksum|has changed)"):
        read_tar(store.images, "000000", cache)
    assert not list(cache.folder.glob("*.tar"))
    assert 1 < proxy.broken < 10
    proxy.broken, proxy.times = 0, 1
    assert read_tar(store.images, "000000", cache)[0] == read_tar(store.images, "000000")[0]
    assert proxy.broken == 1
    survived("download: a flipped bit")
