"""Seconds to write a shard of photos durably, beside a plain tar of the same bytes and webdataset's writers.

    pip install -r benchmarks/requirements.txt
    python benchmarks/write.py [--samples 256] [--bytes 92000] [--folder DIR]

densecli's writer checks keys, digests the tar, writes it to a temporary name, fsyncs it, renames it, fsyncs
the folder, and does the same with the receipt. `tarfile` and webdataset write the members straight into the
file, and leave it to the system when they reach the disk; the row `tarfile, then fsync` does not. Each sample
is a photo of random bytes and a small json; what is to be written lies in memory. Contenders take turns,
figures are medians; --folder says which disk.
"""

import argparse
import io
import os
import tarfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import webdataset
from turns import compared

from densecli.core.tables import table
from densecli.shards.specs import DatasetIdentity
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter

Samples = dict[str, dict[str, bytes]]


def durable(folder: Path, samples: Samples) -> None:
    dataset: DatasetIdentity = {"name": "noise", "split": "", "digest": "", "n": len(samples)}
    writer = ShardWriter(Store.create(folder, dataset, 512, [len(samples)]).images, "000000")
    for key, parts in samples.items():
        writer.add(key, parts)
    writer.commit()


def plain(folder: Path, samples: Samples, fsync: bool = False) -> None:
    with open(folder / "plain.tar", "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, parts in samples.items():
                for extension, data in parts.items():
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        if fsync:
            file.flush()
            os.fsync(file.fileno())


def tar_writer(folder: Path, samples: Samples) -> None:
    with webdataset.TarWriter(str(folder / "webdataset.tar"), encoder=False) as writer:
        for key, parts in samples.items():
            writer.write({"__key__": key, **parts})


def shard_writer(folder: Path, samples: Samples) -> None:
    pattern = str(folder / "webdataset-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=len(samples), encoder=False, verbose=0) as writer:
        for key, parts in samples.items():
            writer.write({"__key__": key, **parts})


CONTENDERS: dict[str, Callable[[Path, Samples], None]] = {
    "tarfile": plain,
    "tarfile, then fsync": lambda folder, samples: plain(folder, samples, fsync=True),
    "densecli, durable": durable,
    "webdataset.TarWriter": tar_writer,
    "webdataset.ShardWriter": shard_writer,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--bytes", type=int, default=92_000, help="of a photo; 92,000 is usual on 512 px")
    parser.add_argument("--folder", help="where to write; by default the folder for temporary files")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    samples = {
        f"{i:08d}": {"jpg": rng.bytes(args.bytes), "json": rng.bytes(120)} for i in range(args.samples)
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(args.rounds + 1):
        for name, write in CONTENDERS.items():
            with TemporaryDirectory(dir=args.folder) as folder:
                # What others wrote before is not this one's to bring to the disk.
                os.sync()
                clock, cpu = time.perf_counter(), time.process_time()
                write(Path(folder), samples)
                took[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    rows = [["", "ms a shard", "range", "of tarfile", "CPU ms", "of tarfile"]]
    print(table(rows + compared(took, lambda seconds: 1000 * seconds, 1)))
    print({"MB": round(args.samples * args.bytes / 1e6, 1), "webdataset": version("webdataset")})


if __name__ == "__main__":
    main()
