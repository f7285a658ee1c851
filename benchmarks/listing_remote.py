"""Requests, bytes and seconds to list tars in an object store: headers alone, beside 64 KB blocks as before.

    python benchmarks/listing_remote.py [--tars 4] [--photos 400] [--photo-kb 100] [--delay-ms 30]

The store is moto's S3 server. A process before it answers for parts of objects, from copies, each after
`--delay-ms`: moto would take longer than the delay for them.
A photo has `--others` further members of `--other-kb`. Both ways list the same tars in the same run.
"""

import argparse
import asyncio
import http.client
import io
import logging
import multiprocessing
import os
import re
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from unittest import mock

import fsspec
from moto.server import ThreadedMotoServer

from densecli.pipeline.sources import open_source, tars
from densecli.pipeline.sources.tars import scan_tar


class Front:
    """Stands before moto: answers for parts of objects, after the delay, and passes on the rest.

    Attributes:
        counts: Parts of objects asked for, their bytes, and the most at once.
    """

    def __init__(self, port: int, delay: float, counts: Any) -> None:
        """Knows no object yet.

        Args:
            port: That of moto.
            delay: Seconds until a part is sent.
            counts: See the class; other processes see them.
        """
        self.counts = counts
        self._moto, self._delay, self._under_way = f"127.0.0.1:{port}", delay, 0
        self._bodies: dict[str, bytes] = {}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of a connection, none of which has a body, until it ends."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, address, _ = head.split(" ", 2)
                fields = {k.lower(): v for k, v in re.findall(r"(?m)^([\w-]+): (.*?)\r$", head)}
                if method == "GET" and "range" in fields:
                    writer.write(await self._part(address, fields))
                else:
                    writer.write(await asyncio.to_thread(_passed_on, self._moto, method, address, fields))
        writer.close()

    async def _part(self, address: str, fields: dict[str, str]) -> bytes:
        first, last = map(int, fields.pop("range").removeprefix("bytes=").split("-"))
        path, counts = address.partition("?")[0], self.counts
        self._under_way += 1
        counts[2] = max(counts[2], self._under_way)
        if path not in self._bodies:
            whole = await asyncio.to_thread(_passed_on, self._moto, "GET", address, fields)
            self._bodies[path] = whole.partition(b"\r\n\r\n")[2]
        await asyncio.sleep(self._delay)
        self._under_way -= 1
        body = self._bodies[path]
        data = body[first : last + 1]
        counts[0] += 1
        counts[1] += len(data)
        place = f"bytes {first}-{first + len(data) - 1}/{len(body)}"
        head = (
            f"HTTP/1.1 206 Partial Content\r\nContent-Range: {place}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


def _passed_on(host: str, method: str, address: str, fields: Mapping[str, str]) -> bytes:
    """moto's answer as it stands on the wire."""
    connection = http.client.HTTPConnection(host)
    connection.request(method, address, headers=dict(fields))
    answer = connection.getresponse()
    body, length = answer.read(), answer.getheader("Content-Length")
    kept = [
        f"{k}: {v}" for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")
    ]
    kept += [] if length else [f"Content-Length: {len(body)}"]
    connection.close()
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *kept]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def serve(port: Any, moto: int, delay: float, counts: Any) -> None:
    """Runs a `Front` until this process is ended."""

    async def run() -> None:
        server = await asyncio.start_server(Front(moto, delay, counts).answer, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())


def tar(photos: int, photo: int, others: int, other: int, first: int) -> bytes:
    """A tar of blank members with sizes that vary by a half."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for i in range(first, first + photos):
            for extension, size in (("jpg", photo), *((f"{k}.txt", other) for k in range(others))):
                member = tarfile.TarInfo(f"{i:09d}.{extension}")
                member.size = size // 2 + (i * 7919) % max(1, size)
                file.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tars", type=int, default=4)
    parser.add_argument("--photos", type=int, default=400, help="in each tar")
    parser.add_argument("--photo-kb", type=float, default=100)
    parser.add_argument("--others", type=int, default=1)
    parser.add_argument("--other-kb", type=float, default=40)
    parser.add_argument("--delay-ms", type=float, default=30)
    args = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    backend = moto.get_host_and_port()[1]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = fsspec.filesystem("s3", endpoint_url=f"http://127.0.0.1:{backend}")
    client.mkdir("photos")
    for i in range(args.tars):
        size, other = round(args.photo_kb * 1000), round(args.other_kb * 1000)
        client.pipe_file(f"photos/{i:06d}.tar", tar(args.photos, size, args.others, other, i * args.photos))
    spawn = multiprocessing.get_context("spawn")
    port, counts = spawn.Value("i", 0), spawn.Array("q", 3)
    arguments = (port, backend, args.delay_ms / 1000, counts)
    front = spawn.Process(target=serve, args=arguments, daemon=True)
    front.start()
    while not port.value:
        time.sleep(0.05)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port.value}"

    def before(url: str, choose: Any, **_: Any) -> Any:
        return scan_tar(url, choose)

    sources = []
    rows: list[tuple[int, int, int, float]] = []
    for name, scan in (("blocks of 64 KB", before), ("headers", scan_tar)):
        counts[:] = [0, 0, 0]
        start, cpu = time.perf_counter(), time.process_time()
        with mock.patch.object(tars, "scan_tar", scan):
            sources.append(open_source("webdataset", "s3://photos"))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        rows.append((counts[0], counts[1], counts[2], seconds))
        print(
            f"{name:16} {counts[0]:7} requests  {counts[1] / 1e6:9.2f} MB  {seconds:7.2f} s"
            f"  (CPU {cpu:.2f} s, at most {counts[2]} at once)"
        )
    assert sources[0].identity == sources[1].identity
    (_, bytes_before, _, before_s), (_, bytes_now, _, now_s) = rows
    print(f"1/{bytes_before / bytes_now:.1f} of the bytes, 1/{before_s / now_s:.1f} of the time")
    front.terminate()
    moto.stop()


if __name__ == "__main__":
    main()
