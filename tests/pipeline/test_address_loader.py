"""Addresses that strangers wrote: what is read, what is refused, and that nothing of the user's leaves."""

import base64
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here
from stranger import StrangersServer, process_secrets, redirect, said, stranger
from tars import jpg

from densecli.core.errors import Forbidden
from densecli.pipeline.config import WebSettings
from densecli.pipeline.sources import Unreadable, web
from densecli.pipeline.sources.address_loader import read_address
from densecli.pipeline.sources.web import is_public

PHOTO = jpg()
ANY = WebSettings(allow_private=True, allow_local=True, photo_timeout=5.0)
GUARDED = WebSettings(photo_timeout=5.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrangersServer]:
    monkeypatch.setattr(web, "_PAUSES", (1e-9, 1e-9))
    with stranger(PHOTO) as server:
        yield server


def reason(address: str, settings: WebSettings = GUARDED, folder: str = "/nowhere") -> str:
    with pytest.raises(Unreadable) as caught:
        read_address(address, folder, settings)
    return str(caught.value)


PRIVATE = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001",
    "0x7F.1", "127.0.0.1.", "127.255.255.254", "0", "0.0.0.0", "localhost", "LOCALHOST", "localhost.",
    "a.localhost",
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[fe80::1]",
    "[fe80::1%25lo]",
    "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]", "[100::1]", "[4000::1]",
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
    "192.0.0.192", "168.63.129.16", "198.18.0.1", "192.0.2.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "user:password@127.0.0.1",
]  # fmt: skip
ODD = {
    "http://[::1/x.jpg": "malformed-address",
    "http://": "malformed-address",
    "http:///a.jpg": "malformed-address",
    "http:a.jpg": "malformed-address",
    "http:/127.0.0.1/a.jpg": "malformed-address",
    "https://": "malformed-address",
    "http://host:99999/a.jpg": "malformed-address",
    "http://host:port/a.jpg": "malformed-address",
    "http://host:-1/a.jpg": "malformed-address",
    "http://[zz]/a.jpg": "malformed-address",
    "http://[::ffff:1.2.3.4.5]/": "malformed-address",
    f"http://{'a' * 64}.com/": "malformed-address",
    "http://a\x00b/": "malformed-address",
    "http://host/\x1b[31m": "malformed-address",
    "http://host/a\nb": "malformed-address",
    "http://host/a\x9b31m": "malformed-address",
    "http://host/\ufffd": "malformed-address",
    f"http://host/{'a' * 10_000}": "malformed-address",
    "data:": "unknown-scheme",
    f"data:image/jpeg;base64,{base64.b64encode(PHOTO).decode()}"[:8000]: "unknown-scheme",
    "foo://x/y.jpg": "unknown-scheme",
    "ftp://127.0.0.1/a.jpg": "unknown-scheme",
    "sftp://127.0.0.1/a.jpg": "unknown-scheme",
    "ssh://127.0.0.1/a.jpg": "unknown-scheme",
    "smb://127.0.0.1/a.jpg": "unknown-scheme",
    "webhdfs://127.0.0.1/a.jpg": "unknown-scheme",
    "github://a:b@c/a.jpg": "unknown-scheme",
    "git://a/b": "unknown-scheme",
    "memory://a.jpg": "unknown-scheme",
    "arrow_hdfs://a": "unknown-scheme",
    "reference://a.jpg": "unknown-scheme",
    "zip://a.jpg": "unknown-scheme",
    "simplecache://a.jpg": "unknown-scheme",
    "root://a/b": "unknown-scheme",
    "s3a://b/a.jpg": "unknown-scheme",
    "abfs://b/a.jpg": "unknown-scheme",
    "javascript:alert(1)": "unknown-scheme",
    "C:\\photos\\a.jpg": "unknown-scheme",
    "zip://a.jpg::file:///nope.zip": "chained-address",
    "reference://a.jpg::http://127.0.0.1:9/refs.json": "chained-address",
    "filecache::http://127.0.0.1:9/a.jpg": "chained-address",
    "simplecache::s3://b/a.jpg": "chained-address",
    "http://host/a.zip::zip://a.jpg": "chained-address",
    "https://host/a.jpg::file:///etc/passwd": "chained-address",
    "dir::file:///etc": "chained-address",
    "::": "chained-address",
    "s3://": "malformed-address",
    "s3:": "malformed-address",
    "s3:b/a.jpg": "malformed-address",
    "s3:///a.jpg": "malformed-address",
    "s3://b": "malformed-address",
    "s3://b/": "malformed-address",
    "s3://key:secret@b/a.jpg": "malformed-address",
    "s3://b/a.jpg?X-Amz-Signature=1": "malformed-address",
    "s3://../a.jpg": "malformed-address",
    "gs://b@c/a.jpg": "malformed-address",
    "az://c@account.blob.core.windows.net/a.jpg": "malformed-address",
    "hf://": "malformed-address",
    "file:///etc/passwd": "local-file",
    "FILE:///etc/passwd": "local-file",
    "file:/etc/passwd": "local-file",
    "file:a.jpg": "local-file",
    "file://host/share/a.jpg": "local-file",
    "/": "local-file",
    "/etc/passwd": "local-file",
    "//host/a.jpg": "local-file",
    "../a.jpg": "local-file",
    "a.jpg": "local-file",
    "~/a.jpg": "local-file",
    "\\\\host\\share": "local-file",
    "?": "local-file",
    "#": "local-file",
    "{{7*7}}": "local-file",
}  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_private_address__is_refused_in_every_spelling(host: str, server: StrangersServer) -> None:
    user, at, name = host.rpartition("@")
    assert reason(f"http://{user}{at}{name}:{server.server_port}/a.jpg") == "private-address"
    assert not server.paths


@pytest.mark.parametrize("address", ODD)
def test_odd_address__is_a_reason(address: str) -> None:
    assert reason(address) == ODD[address]


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_is_public__of_servers_of_the_internet(address: str) -> None:
    assert is_public(address)


def test_private_address__is_read_where_it_is_allowed(server: StrangersServer) -> None:
    settings = WebSettings(allow_private=True)
    assert read_address(server.url("a.jpg"), "", settings) == PHOTO
    assert read_address(server.url("a.jpg").replace("http", "HTTP"), "", settings) == PHOTO
    assert read_address(server.url("a b.jpg", host="localhost"), "", settings) == PHOTO


def test_name__that_leads_to_a_private_address_is_refused(server: StrangersServer, monkeypatch) -> None:
    """Whatever a name led to before, the address of the connection counts."""
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, port, *rest: real("127.0.0.1", port, *rest))
    assert reason(server.url("a.jpg", host="photos.example.org")) == "private-address"
    assert not server.paths
    assert read_address(server.url("a.jpg", host="photos.example.org"), "", ANY) == PHOTO


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("http://127.0.0.2:{port}/secret", "private-address"),
        ("//127.0.0.2:{port}/secret", "private-address"),
        ("http://localhost:{port}/secret", "private-address"),
        ("http://inside.example.org:{port}/secret", "private-address"),
        ("/again", "private-address"),
        ("file:///etc/passwd", "malformed-address"),
        ("s3://b/a.jpg", "malformed-address"),
        ("reference://a::http://127.0.0.1", "malformed-address"),
        ("http://[::1/", "malformed-address"),
    ],
)
def test_redirect__is_checked_as_an_address_is(
    to: str, said: str, server: StrangersServer, monkeypatch
) -> None:
    """The server at 127.0.0.1 counts as a public one, as far as its first answers go."""
    real = socket.getaddrinfo

    def resolve(host: str, *rest: object) -> list:
        return real("127.0.0.2" if host == "inside.example.org" else "127.0.0.1", *rest)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(web, "is_public", lambda address: address in ("127.0.0.1", "8.8.8.8"))
    server.answers |= {
        "moved": redirect(to.format(port=server.server_port)),
        "again": redirect(f"http://127.0.0.2:{server.server_port}/secret"),
    }
    assert reason(server.url("moved/1", host="photos.example.org")) == said
    assert server.paths and not any("secret" in path for path in server.paths)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("bomb", "too-many-bytes"),
        ("endless", "too-many-bytes"),
        ("claims-much", "too-many-bytes"),
        ("cut-gzip", "truncated"),
        ("no-gzip", "corrupt"),
        ("other-encoding", "unknown-encoding"),
        ("garbage", "unreachable"),
        ("loop", "too-many-redirects"),
        ("to-nothing", "too-many-redirects"),
        ("to-file", "malformed-address"),
        ("to-nonsense", "malformed-address"),
    ],
)
def test_server__that_misbehaves_is_a_reason(path: str, said: str, server: StrangersServer) -> None:
    assert reason(server.url(path), replace(ANY, max_bytes=1_000_000)) == said


@pytest.mark.parametrize("path", ["trickle", "slow-headers"])
def test_server__that_trickles_is_too_slow(path: str, server: StrangersServer) -> None:
    assert reason(server.url(path), replace(ANY, photo_timeout=0.3)) == "too-slow"
    assert server.paths == [f"/{path}"]


def test_body__may_be_packed_and_as_large_as_the_bound(server: StrangersServer) -> None:
    bound = replace(ANY, max_bytes=len(PHOTO))
    assert read_address(server.url("gzipped"), "", bound) == PHOTO
    assert read_address(server.url("endless-after-gzip"), "", bound) == PHOTO
    assert read_address(server.url("a.jpg"), "", bound) == PHOTO
    assert reason(server.url("a.jpg"), replace(bound, max_bytes=len(PHOTO) - 1)) == "too-many-bytes"


def test_local_file__is_read_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(PHOTO)
    os.mkfifo(tmp_path / "pipe")
    local = WebSettings(allow_local=True)
    path = tmp_path / "a b.jpg"
    for address in (f"file://{path}", f"FILE://{path}", str(path), "a b.jpg", "./a b.jpg"):
        assert read_address(address, str(tmp_path), local) == PHOTO
    assert reason("a b.jpg", replace(local, max_bytes=9), str(tmp_path)) == "too-many-bytes"
    found = {
        name: reason(name, local, str(tmp_path)) for name in ("no.jpg", "a b.jpg/x", "pipe", "/", "x" * 300)
    }
    assert list(found.values()) == ["missing", "missing", "not-a-file", "not-a-file", "unreachable"]
    assert reason("/dev/zero", local) == "not-a-file"
    assert reason("reference://a.jpg::file:///a", local) == "chained-address"


def test_object__is_read_with_the_endpoint_of_the_environment(s3: str) -> None:
    from densecli.core import fs

    fs.write_atomic(f"{s3}/a.jpg", PHOTO)
    fs.write_atomic(f"{s3}/empty.jpg", b"")
    assert read_address(f"{s3}/a.jpg", "", GUARDED) == PHOTO
    assert read_address(f"S3{s3[2:]}/a.jpg", "", GUARDED) == PHOTO
    assert reason(f"{s3}/empty.jpg") == "empty"
    assert reason(f"{s3}/no.jpg") == "missing"
    assert reason("s3://no-such-bucket/a.jpg") == "missing"
    assert reason(f"{s3}/a.jpg", replace(GUARDED, max_bytes=len(PHOTO) - 1)) == "too-many-bytes"


def test_object__in_a_store_whose_package_is_not_installed() -> None:
    assert reason("gs://bucket/a.jpg") == "needs-gcsfs"
    assert reason("az://bucket/a.jpg") == "needs-adlfs"


def test_proxy__of_the_environment_is_asked_and_literal_addresses_stay_refused(
    server: StrangersServer, monkeypatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url())
    assert read_address("http://photos.example.org/a.jpg", "", GUARDED) == PHOTO
    assert server.paths == ["http://photos.example.org/a.jpg"]
    for host in ("127.0.0.1", "2130706433", "localhost", "[::1]", "169.254.169.254"):
        assert reason(f"http://{host}/a.jpg") == "private-address"
    assert len(server.paths) == 1
    monkeypatch.setenv("no_proxy", "photos.example.org")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert reason("http://photos.example.org/a.jpg") == "unreachable"
    assert len(server.paths) == 1


@pytest.fixture
def hostile(server: StrangersServer, tmp_path: Path) -> list[str]:
    """Entries of a stranger's list that all lead to the stranger's server, or would send something there."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret.txt").write_text("pl4nted-s3cret")
    there = server.url()
    secret = tmp_path / "home" / "secret.txt"
    return [
        f"reference://a.jpg::{there}refs.json", f"reference://a.jpg::{secret}", f"filecache::{there}a.jpg",
        f"simplecache::{there}a.jpg", f"blockcache::{there}a.jpg", f"zip://a.jpg::{there}a.zip",
        f"zip://*::{there}", f"tar://a.jpg::{there}a.tar", f"{there}x::reference://", f"dir://x::{there}",
        f"jupyter://127.0.0.1:{server.server_port}/?token=x", f"webhdfs://127.0.0.1:{server.server_port}/x",
        f"dask://{there}", f"ftp://127.0.0.1:{server.server_port}/x", f"git://{there}",
        f"github://a:b@{there}",
        f"file://{secret}", str(secret), f"{there}{{SECRET}}", f"{there}$SECRET", f"{there}%(SECRET)s",
        f"{there}{{{{env.SECRET}}}}", f"{there}${{AWS_SECRET_ACCESS_KEY}}", f"{there}`env`",
        f"{there}~/.netrc",
        f"http://user:password@127.0.0.1:{server.server_port}/a.jpg", there, f"HTTP{there[4:]}x",
        f"{there}loop",
        f"{there}to-file", f"{there}refs.json", f"{there}bomb", f"{there}garbage", f"{there}401/x",
        f"s3://127.0.0.1:{server.server_port}/x", f"s3://{there}", f"hf://{there}", f"az://x@{there}",
        "data:", "/",
    ]  # fmt: skip


@pytest.mark.parametrize("allowed", [False, True], ids=["as it is", "with everything allowed"])
def test_hostile_list__shows_no_server_a_secret(
    tiny, tmp_path, server, hostile, monkeypatch, allowed
) -> None:
    """As the build reads it. The templates of `refs.json` would read the environment."""
    for name, value in process_secrets(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server.body = (
        b'{"version": 1, "templates": {"u": "' + server.url("{{ self.__init__ }}").encode() + b'"},'
        b' "refs": {"a.jpg": ["{{u}}", 0, 9]}}'
    )
    good = tmp_path / "good.jpg"
    good.write_bytes(PHOTO)
    (tmp_path / "list.txt").write_text("\n".join([*hostile, str(good)]))
    config = replace(
        tiny, dataset="urls", data=str(tmp_path / "list.txt"), split=None, limit=None, canvas=48, teachers=(),
        weights={}, shard_size=100, allow_private=allowed, allow_local=allowed,
        photo_timeout=2.0, max_bytes=10**6,
    )  # fmt: skip
    _, (report,) = build_here(config)
    assert report.samples == allowed
    assert report.skipped["chained-address"] >= 8
    assert report.samples + sum(report.skipped.values()) == len(hostile) + 1
    assert bool(server.paths) == allowed
    assert "pl4nted-s3cret" not in said(server)
    assert base64.b64encode(b"pl4nted-s3cret").decode()[:16] not in said(server)
    assert not [
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()
    ]


def test_list_of_refused_addresses__says_how_they_may_be_read(tiny, tmp_path, server) -> None:
    (tmp_path / "list.txt").write_text(f"{server.url('a.jpg')}\n/nowhere/a.jpg\n")
    config = replace(
        tiny, dataset="urls", data=str(tmp_path / "list.txt"), split=None, limit=None, canvas=48, teachers=(),
        weights={}, shard_size=100,
    )  # fmt: skip
    with pytest.raises(
        Forbidden, match=r"None of the 2 photos .* \(private-address and local-file\)"
    ) as caught:
        build_here(config)
    assert "--allow-private" in caught.value.hint and "--allow-local" in caught.value.hint
    assert not list((tmp_path / "store").rglob("*.tar"))
