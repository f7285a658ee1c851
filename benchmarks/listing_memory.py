"""Memory and time of the main process with a listing as large as SA-1B: 11 million photos in 1,000 tars.

    python benchmarks/listing_memory.py [--tars 1000] [--photos-per-tar 11186]

Each row is measured in a process of its own, imports included; peak resident memory is what the kernel
reports. `nothing` only imports. `headers` reads the headers of one generated 11 GB tar, a sparse file.
`coco` lists as many files as train2017 has, 118,287; `sa1b`, `webdataset` and `urls` list all the photos.
Each listing then makes the work units of the first, the middle and the last shard. The tars of `sa1b` and
`webdataset` do not exist: the results of scanning them are generated.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from unittest import mock

from densecli.core.find import Entry
from densecli.core.passed_over import PassedOver
from densecli.pipeline.build_request import prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.sources import tars
from densecli.pipeline.sources.sa1b import choose_photos
from densecli.pipeline.sources.tars import Scanned, table

JPG, JSON = 950_000, 40_000


def headers(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Scans a sparse tar of the size of one of SA-1B's."""
    tar = folder / "sa_000000.tar"
    with open(tar, "wb") as file:
        for i in range(args.photos_per_tar):
            for extension, size in (("jpg", JPG), ("json", JSON)):
                member = tarfile.TarInfo(f"./sa_{i}.{extension}")
                member.size = size
                file.write(member.tobuf(tarfile.USTAR_FORMAT))
                file.seek(-(-size // 512) * 512, os.SEEK_CUR)
        file.write(bytes(1024))
    start = time.perf_counter()
    rows, _ = tars.scan_tar(str(tar), choose_photos)
    return {"photos": len(rows), "bytes": tar.stat().st_size, "list_s": time.perf_counter() - start}


def sa1b(folder: Path, args: argparse.Namespace, dataset: str = "sa1b") -> dict[str, float]:
    """Lists all tars, with generated results of `scan_tar`."""
    names = [f"sa_{i:06d}.tar" for i in range(args.tars)]
    entries = {name: Entry(11 * 10**9, name, False) for name in names}

    def scan(url: str, *_: object, **__: object) -> Scanned:
        first = int(url[-10:-4]) * args.photos_per_tar
        rows = [
            (f"sa_{first + i}.jpg".encode(), i * (JPG + JSON) + 512, JPG, i * (JPG + JSON) + JPG, JSON)
            for i in range(args.photos_per_tar)
        ]
        return table(rows), PassedOver()

    found = mock.patch(f"densecli.pipeline.sources.{dataset}.find", return_value=entries)
    with mock.patch.object(tars, "scan_tar", scan), found:
        return listed(
            BuildConfig(dataset=dataset, data=str(folder), store=str(folder / "store"), dry_run=True)
        )


def webdataset(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    return sa1b(folder, args, "webdataset")


def urls(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Lists a text file with as many addresses of about 60 characters."""
    with open(folder / "urls.txt", "w") as file:
        for i in range(args.tars * args.photos_per_tar):
            file.write(f"s3://some-bucket/photos/{i % 1000:03d}/a-photo-of-something-{i:09d}.jpg\n")
    data = str(folder / "urls.txt")
    return listed(BuildConfig(dataset="urls", data=data, store=str(folder / "store"), dry_run=True))


def coco(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Lists as many empty files as train2017 has."""
    (folder / "train2017").mkdir()
    for i in range(118_287):
        (folder / "train2017" / f"{i:012d}.jpg").touch()
    return listed(BuildConfig(dataset="coco", data=str(folder), store=str(folder / "store"), dry_run=True))


def nothing(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    return {}


def listed(config: BuildConfig) -> dict[str, float]:
    """Lists, makes the store, and takes three units."""
    start = time.perf_counter()
    request, source = prepare(config)
    list_s = time.perf_counter() - start
    request.make_columns()
    shards = request.store.shard_names
    for shard in (shards[0], shards[len(shards) // 2], shards[-1]):
        unit_of(source, shard, config.shard_size)
    size = Path(request.store.root, "store.json").stat().st_size
    return {"photos": len(source.items), "shards": len(shards), "store.json": size, "list_s": list_s}


ROWS = {row.__name__: row for row in (nothing, headers, coco, sa1b, webdataset, urls)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tars", type=int, default=1000)
    parser.add_argument("--photos-per-tar", type=int, default=11_186)
    parser.add_argument("--row", choices=ROWS)
    args = parser.parse_args()
    if args.row:
        with tempfile.TemporaryDirectory() as folder:
            found = ROWS[args.row](Path(folder), args)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps({"row": args.row, "peak_MiB": round(peak), **found}))
        return
    for row in ROWS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--row", row], check=True)


if __name__ == "__main__":
    main()
