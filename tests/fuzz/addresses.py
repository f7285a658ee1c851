"""Lists of addresses, and the addresses in them: none leads to a connection or to a file of others."""

import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
from pyarrow import parquet

from densecli.pipeline.config import WebSettings
from densecli.pipeline.sources import Unreadable, open_source
from densecli.pipeline.sources.address_loader import read_address
from densecli.shards.geometry import Canvas

from .frame import Target
from .inputs import TEXTS, mutated, odd_text, odd_value

SCHEMES = (
    "http", "http", "https", "HTTP", "hTTp", "s3", "gs", "az", "hf", "file", "ftp", "data", "reference",
    "zip", "filecache", "simplecache", "memory", "github", "dir", "abfs", "s3a", "javascript", "", "é",
    "http ", )  # fmt: skip
HOSTS = (
    "127.0.0.1", "127.1", "0", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "a.localhost",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[fe80::1%25lo]", "[64:ff9b::7f00:1]", "169.254.169.254",
    "10.0.0.1", "[::1", "inside.example", "xn--", "ⓛocalhost", "a b", "..", "", "bucket", "%31%32%37.0.0.1",
    "127.0.0.1\\@inside.example", "inside.example#@127.0.0.1", "127.0.0.1:9", "127.0.0.1:99999", "127.0.0.1:",
    "user:pass@127.0.0.1", "@", ":@",
)  # fmt: skip


def address(rng: random.Random, secret: str) -> str:
    """An address, or something that looks like one; `secret` is the path of a file that none may read."""
    host = rng.choice((*HOSTS, odd_text(rng)))
    path = rng.choice(("/a.jpg", "", "/", "?a=b", f"/{odd_text(rng)}", secret, "/../../outside/secret.txt"))
    one = f"{rng.choice(SCHEMES)}{rng.choice(('://', '://', '://', ':', ':/', '//', ''))}{host}{path}"
    if rng.random() < 0.2:
        one = f"{one}::{rng.choice(SCHEMES)}://{rng.choice(HOSTS)}/refs.json"
    return rng.choice((one, one, one, odd_text(rng), secret, f"file://{secret}"))


@contextmanager
def names_lead_inside() -> Iterator[None]:
    """Every name leads to addresses of this machine and its network."""

    def resolve(host: object, port: object, *rest: object, **_: object) -> list[tuple[object, ...]]:
        if not isinstance(host, str) or not host.isascii() or " " in host:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        inside = ("127.0.0.1", "10.0.0.1", "169.254.169.254")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in inside]

    with patch.object(socket, "getaddrinfo", resolve):
        yield


def try_address(rng: random.Random, folder: Path) -> None:
    """One address: it never gives bytes, nor any end but Unreadable."""
    one = address(rng, str(folder.parent / "outside" / "secret.txt"))
    if one[:5].lower() in ("s3://", "hf://"):
        # The user's own endpoint, which is asked.
        return
    with names_lead_inside():
        data = read_address(one, str(folder), WebSettings(photo_timeout=2.0, max_bytes=1000))
    raise AssertionError(f"{one!r} gave {data!r}")


def try_list(rng: random.Random, folder: Path) -> None:
    """A list of them, whole or damaged, in a file of any kind."""
    damaged = rng.random() < 0.7
    # What is damaged, and where, follows from the seed, not from the length of a temporary folder's name.
    secret = "/etc/passwd" if damaged else str(folder.parent / "outside" / "secret.txt")
    rows = [address(rng, secret) for _ in range(rng.randrange(1, 6))]
    kind = rng.choice((".txt", ".csv", ".tsv", ".jsonl", ".parquet", "", ".json", ".gz"))
    path = folder / f"list{kind}"
    if kind == ".parquet":
        column = pa.array([row.encode() for row in rows], pa.binary())
        parquet.write_table(pa.table({rng.choice(("url", "url", "URL")): column}), path)
        data = path.read_bytes()
    elif kind.startswith(".json"):
        lines = [{"url": row if rng.random() < 0.8 else odd_value(rng)} for row in rows]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    else:
        head = [rng.choice(("url", "url", "text,url", "url\ttext"))] if kind in (".csv", ".tsv") else []
        encoding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16"))
        data = rng.choice(("\n", "\r\n", "\r")).join([*head, *rows, rng.choice(TEXTS)]).encode(encoding)
    path.write_bytes(mutated(rng, data) if damaged else data)
    source = open_source("urls", str(path), limit=rng.choice((None, 2)))
    keys = [item.key for item in source.items]
    assert len(set(keys)) == len(keys) == source.identity["n"]
    for item in source.items[:]:
        assert "\n" not in item.key
        if item.ref[:5].lower() not in ("s3://", "hf://"):
            with names_lead_inside():
                try:
                    source.load(item, Canvas(32))
                except Unreadable:
                    continue
            raise AssertionError(f"{item} was loaded")


TARGETS = (
    Target(name="addresses", try_one=try_address, quick=600),
    Target(name="address-lists", try_one=try_list, quick=300),
)
