"""Photos per second of build-shards, compared with a bare loop that decodes and resizes.

    python benchmarks/build.py                                        # generated photos of 640 x 480
    python benchmarks/build.py --size 1500x2250                       # as large as SA-1B's
    python benchmarks/build.py --data data/coco/train2017 --samples 128

The bare loop is a pool of threads that read, decode and resize, and keep nothing; it decodes JPEGs at the
same scale as build-shards. build-shards runs with as many threads in this process: it decodes, resizes,
encodes, digests and writes durable shards. The last row adds a teacher that reads every canvas back and
costs nothing. The start of Ray and the listing are not measured. Rounds are interleaved; figures are
medians.
"""

import argparse
import io
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from turns import compared

from densecli.core.tables import table
from densecli.pipeline.build_request import shard_sizes, unit_of
from densecli.pipeline.shard_builder import BuilderConfig, ShardBuilder
from densecli.pipeline.sources import Source, open_source
from densecli.pipeline.teachers import Photo, Teacher
from densecli.pipeline.worker import UNITS_PER_WORKER
from densecli.shards.codecs import Arrays, Errors
from densecli.shards.geometry import RESAMPLE, Canvas
from densecli.shards.region_plans import region_plan
from densecli.shards.store import PHOTOS, Store

DISTINCT = 32  # number of generated photos; further samples repeat them


class NoTeacher:
    """A teacher that reads the whole canvas and returns a few of its pixels."""

    name, device = "none", torch.device("cpu")

    def inputs(self, photo: Photo) -> np.ndarray:
        return photo.padded()[None]

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures[:, :, 0, :8].float()

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> list[Tensor]:
        return [of_photo[0] for of_photo in outputs]

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        return {"x": target}, {}


def write_photos(folder: Path, size: tuple[int, int], samples: int) -> None:
    """Writes JPEGs with detail at every scale, 0.5 bytes a pixel; COCO's have 0.6."""
    rng = np.random.default_rng(0)
    width, height = size
    for i in range(min(samples, DISTINCT)):
        pixels = rng.normal(128, 11, (height, width, 1)).astype(np.float32)
        for side in (4, 16, 64, 256):
            cells = rng.normal(0, 96 / side**0.5, (3, side * height // width, side)).astype(np.float32)
            pixels = pixels + np.stack(
                [np.asarray(Image.fromarray(c).resize(size, RESAMPLE)) for c in cells], axis=-1
            )
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.jpg", quality=92)
    for i in range(DISTINCT, samples):
        (folder / f"{i:06d}.jpg").write_bytes((folder / f"{i % DISTINCT:06d}.jpg").read_bytes())


def bare(paths: list[Path], canvas: Canvas, threads: int) -> None:
    def resized(path: Path) -> Image.Image:
        image: Image.Image = Image.open(io.BytesIO(path.read_bytes()))
        width, height = canvas.fit(*image.size)
        image.draft(None, (PHOTOS["decode"] * width, PHOTOS["decode"] * height))
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return rgb.resize((width, height), RESAMPLE)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(resized, paths):
            pass


def build(
    source: Source, root: Path, canvas: Canvas, shard: int, threads: int, teachers: list[Teacher]
) -> None:
    store = Store.create(root, source.identity, canvas.size, shard_sizes(len(source.items), shard))
    plan = region_plan("grid-paper")
    config = BuilderConfig(
        canvas=canvas,
        load=source.load,
        plan=plan,
        images=store.images,
        regions=store.add_column("regions", plan.name, plan.spec),
        targets=[(store.add_column("targets", teacher.name, {}), teacher) for teacher in teachers],
        batch_size=16,
        threads=threads,
    )
    builder = ShardBuilder(config)
    with ThreadPoolExecutor(UNITS_PER_WORKER) as units:
        for report in units.map(builder.build, [unit_of(source, name, shard) for name in store.shard_names]):
            assert not report.skipped


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder of photos; generated ones by default")
    parser.add_argument("--size", default="640x480", help="width and height of generated photos")
    parser.add_argument("--folder", help="where to write; by default the folder for temporary files")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--shard-size", type=int, default=64)
    parser.add_argument("--canvas", type=int, default=512)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    canvas = Canvas(args.canvas)
    with TemporaryDirectory(dir=args.folder) as temporary:
        photos = args.data or Path(temporary) / "photos"
        if not args.data:
            photos.mkdir()
            width, height = map(int, args.size.split("x"))
            write_photos(photos, (width, height), args.samples)
        source = open_source("folder", str(photos), None, args.samples, 0, None)
        paths = [photos / item.ref for item in source.items]

        def built(teachers: list[Teacher]) -> None:
            with TemporaryDirectory(dir=temporary) as root:
                build(source, Path(root), canvas, args.shard_size, args.threads, teachers)

        contenders: dict[str, Callable[[], None]] = {
            "bare loop: decode, resize": lambda: bare(paths, canvas, args.threads),
            "build-shards, photos and boxes": lambda: built([]),
            "build-shards, a teacher that costs nothing": lambda: built([NoTeacher()]),
        }
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for _ in range(args.rounds + 1):
            for name, run in contenders.items():
                clock, cpu = time.perf_counter(), time.process_time()
                run()
                took[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    rows = [["", "img/s", "range", "of the bare loop", "img a CPU second", "of the bare loop"]]
    print(table(rows + compared(took, lambda seconds: len(paths) / seconds, 0)))
    print({"threads": args.threads, "photos": len(paths), "python": platform.python_version()})
    print({"pillow": PIL.__version__, "torch": torch.__version__})


if __name__ == "__main__":
    main()
