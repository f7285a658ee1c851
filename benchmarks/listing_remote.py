"""Requests, bytes and seconds to list tars in an object store: headers alone, beside 64 KB blocks as before.

    python benchmarks/listing_remote.py [--tars 4] [--photos 400] [--photo-kb 100] [--delay-ms 30]

The store is moto's S3 server in a process of its own; each request waits `--delay-ms` before it is answered.
Parts of objects are cut from a copy: moto itself would copy a whole tar for each.
A photo has `--others` further members of `--other-kb`. Both ways list the same tars in the same run.
"""

import argparse
import io
import multiprocessing
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import fsspec

from densecli.pipeline.sources import open_source, tars
from densecli.pipeline.sources.tars import scan_tar


def serve(port: Any, delay: float, counts: Any) -> None:
    """moto's server, slowed down; counts[:] are the objects asked for, their bytes and the most at once."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
    bodies: dict[str, tuple[bytes, list[tuple[str, str]]]] = {}
    under_way = 0

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            pass

    def whole(environ: dict[str, Any]) -> tuple[bytes, list[tuple[str, str]]]:
        headers: list[tuple[str, str]] = []
        del environ["HTTP_RANGE"]
        body = b"".join(app(environ, lambda _, found, *__: headers.extend(found)))
        # The checksum is that of the whole object.
        left_out = ("content-length", "x-amz-checksum", "x-amz-sdk-checksum")
        return body, [(name, value) for name, value in headers if not name.lower().startswith(left_out)]

    def slow(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal under_way
        name, part = environ["PATH_INFO"], environ.get("HTTP_RANGE")
        if environ["REQUEST_METHOD"] != "GET" or not part:
            return app(environ, start)
        with lock:
            under_way += 1
            counts[2] = max(counts[2], under_way)
            if name not in bodies:
                bodies[name] = whole(environ)
        time.sleep(delay)
        body, headers = bodies[name]
        first, last = (int(number) for number in part.removeprefix("bytes=").split("-"))
        data = body[first : last + 1]
        with lock:
            under_way -= 1
            counts[0] += 1
            counts[1] += len(data)
        place = ("Content-Range", f"bytes {first}-{first + len(data) - 1}/{len(body)}")
        start("206 PARTIAL CONTENT", [*headers, place, ("Content-Length", str(len(data)))])
        return [data]

    server = make_server("127.0.0.1", 0, slow, threaded=True, request_handler=Quiet)
    port.value = server.port
    server.serve_forever()


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
    port, counts = multiprocessing.Value("i", 0), multiprocessing.Array("q", 3)
    server = multiprocessing.Process(target=serve, args=(port, args.delay_ms / 1000, counts), daemon=True)
    server.start()
    while not port.value:
        time.sleep(0.05)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port.value}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = fsspec.filesystem("s3")
    client.mkdir("photos")
    for i in range(args.tars):
        size, other = round(args.photo_kb * 1000), round(args.other_kb * 1000)
        client.pipe_file(f"photos/{i:06d}.tar", tar(args.photos, size, args.others, other, i * args.photos))

    def before(url: str, choose: Any, **_: Any) -> Any:
        return scan_tar(url, choose)

    sources, rows = [], []
    for name, scan in (("blocks of 64 KB", before), ("headers", scan_tar)):
        counts[:] = [0, 0, 0]
        start, cpu = time.perf_counter(), time.process_time()
        with mock.patch.object(tars, "scan_tar", scan):
            sources.append(open_source("webdataset", "s3://photos"))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        rows.append((*counts, seconds))
        print(
            f"{name:16} {counts[0]:7} requests  {counts[1] / 1e6:9.2f} MB  {seconds:7.2f} s"
            f"  (CPU {cpu:.2f} s, at most {counts[2]} at once)"
        )
    assert sources[0].identity == sources[1].identity
    (_, bytes_before, _, before_s), (_, bytes_now, _, now_s) = rows
    print(f"1/{bytes_before / bytes_now:.1f} of the bytes, 1/{before_s / now_s:.1f} of the time")
    server.terminate()


if __name__ == "__main__":
    main()
