"""Folders and tars of strangers: photos listed and read, and all the rest counted."""

import gzip
import io
import json
import os
import random
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources import Index, Source, Unreadable, open_source
from densecli.shards.geometry import Canvas
from densecli.shards.mask_plan import MaskPlan
from densecli.shards.segmentation import PhotoMasks, packed

from .frame import Target
from .inputs import NUMBERS, mutated, mutated_value, odd_text, odd_value

NAMES = (
    "a.jpg", "a.JPG", "a.b.jpg", "0.image.jpg", "0.mask.png", "0.json", "d/a.jpg", "./a.jpg", "../a.jpg",
    "/etc/passwd.jpg", ".hidden.jpg", "._a.jpg", "a", "a.jpg/", "a.txt", "sa_1.jpg", "sa_1.json", "sa_2.jpg",
    "sa_2.json", "sa_0001.jpg", "x" * 300 + ".jpg", "\udce9.jpg", "a\nb.jpg", "a b.jpg", "..jpg", ".jpg",
)  # fmt: skip
TARGETS_OF_LINKS = ("a.jpg", "d/a.jpg", ".", "..", "gone", "../../outside/secret.txt", "/etc/passwd", "l.jpg")
KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.DIRTYPE)
COUNTS = packed([np.eye(30, 40, dtype=bool)])[0].decode()
MASKS = {
    "annotations": [
        {"segmentation": {"size": [30, 40], "counts": COUNTS}, "predicted_iou": 0.9, "stability_score": 0.98},
        {"segmentation": {"size": [30, 40], "counts": [100, 50, 1050]}, "predicted_iou": 0.9},
        {"segmentation": [[1, 2, 30, 2, 30, 20]], "iscrowd": 0},
    ],
    "image": {"file_name": "sa_1.jpg"},
}


@cache
def jpg() -> bytes:
    """A small photo."""
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(data, "JPEG")
    return data.getvalue()


def content(rng: random.Random, name: str) -> bytes:
    """What a file of that name may hold."""
    if name.endswith(".json"):
        value = mutated_value(rng, MASKS, rng.randrange(3))
        data = json.dumps(value).encode("utf-8", "surrogatepass")
        return rng.choice((data, data, mutated(rng, data), b"[" * 5000, b"1" * 5000))
    return rng.choice((jpg(), jpg(), b"", mutated(rng, jpg())))


def tar(rng: random.Random) -> bytes:
    """A tar with odd members, sometimes with a header that lies."""
    buffer = io.BytesIO()
    formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    zipped = rng.random() < 0.1
    with tarfile.open(fileobj=buffer, mode="w", format=rng.choice(formats)) as file:
        for _ in range(rng.randrange(6)):
            name = rng.choice((*NAMES, odd_text(rng)[:200]))
            member = tarfile.TarInfo(name)
            kinds = (
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.GNUTYPE_SPARSE,
                tarfile.DIRTYPE,
            )
            member.type = rng.choice((*[tarfile.REGTYPE] * 6, *kinds))
            data = content(rng, name) if member.type == tarfile.REGTYPE else b""
            member.size, member.linkname = len(data), rng.choice(TARGETS_OF_LINKS)
            if rng.random() < 0.2:
                key = rng.choice(("size", "path", "linkpath", "GNU.sparse.size", "GNU.sparse.map", "mtime"))
                member.pax_headers = {key: rng.choice((str(rng.choice(NUMBERS)), odd_text(rng)[:100]))}
            try:
                file.addfile(member, io.BytesIO(data))
            except (ValueError, OverflowError, UnicodeError):
                continue
    data = bytearray(buffer.getvalue())
    if zipped:
        data = bytearray(gzip.compress(data, mtime=0))
    elif rng.random() < 0.3:
        lie(rng, data)
    return mutated(rng, bytes(data)) if rng.random() < 0.3 else bytes(data)


def lie(rng: random.Random, data: bytearray) -> None:
    """Writes another size or type into a header, with the right checksum."""
    at = 512 * rng.randrange(max(1, len(data) // 512))
    sizes = (
        b"\x80" + rng.choice((2**63, 2**63 - 1, 2**64, 2**40, 1)).to_bytes(11, "big"),
        b"\xff" * 10 + b"\xfe\0", b"\xff" * 12, b"77777777777\0", b"-0000000001\0", b"0" * 12,
        rng.randbytes(12),
    )  # fmt: skip
    data[at + 124 : at + 136] = rng.choice(sizes)
    if rng.random() < 0.5:
        data[at + 156 : at + 157] = bytes([rng.choice(b"0125SLKxgV\0")])
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % (sum(data[at : at + 512]) % 8**6)


def check(source: Source, folder: Path) -> None:
    """Every listed photo is read or passed over, and every count is one."""
    keys = [item.key for item in source.items]
    assert len({key.casefold() for key in keys}) == len(keys) == source.identity["n"]
    assert all(key.isprintable() and not set(key) & set("./ ") for key in keys)
    json.dumps(source.passed.document(), ensure_ascii=False).encode()
    for item in source.items[:]:
        try:
            loaded = source.load(item, Canvas(32))
        except (Unreadable, DenseCLIError):
            continue
        assert loaded.image.mode == "RGB"


def try_tars(rng: random.Random, folder: Path) -> None:
    """A folder of tars, listed twice with an index."""
    for i in range(rng.choice((1, 1, 2))):
        name = rng.choice((f"sa_{i}.tar", f"sa_{i}.tar", f"{i}.TAR", f"é{i}.tar", f"{i}.tar.gz"))
        (folder / name).write_bytes(tar(rng))
    dataset = rng.choice(("webdataset", "webdataset", "sa1b"))
    index = Index(folder=str(folder / "index"), save=True)
    first, again = (open_source(dataset, str(folder), limit=rng.choice((None, 1)), index=index) for _ in "12")
    check(first, folder)
    if len(first.items) == len(again.items):
        assert first.identity == again.identity
        assert first.items[:] == again.items[:]


def try_folder(rng: random.Random, folder: Path) -> None:
    """A folder of files and links, with names of any bytes."""
    root = folder / "data" / "train2017"
    root.mkdir(parents=True)
    for _ in range(rng.randrange(1, 8)):
        name = (
            rng.choice((*NAMES, odd_text(rng))).encode("utf-8", "surrogateescape")[:200].replace(b"\0", b"")
        )
        path = os.path.join(os.fsencode(root), name.lstrip(b"/").replace(b"..", b"__") or b"a.jpg")
        if os.path.lexists(path):
            continue
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if rng.random() < 0.3:
                secret = str(folder.parent / "outside" / "secret.txt")
                os.symlink(rng.choice((*TARGETS_OF_LINKS, secret)), path)
            elif rng.random() < 0.05:
                os.mkfifo(path)
            else:
                with open(path, "wb") as file:
                    file.write(content(rng, os.fsdecode(name)))
        except OSError:
            continue
    dataset, data = rng.choice((("coco", folder / "data"), ("folder", folder / "data"), ("sa1b", root)))
    check(open_source(dataset, str(data), limit=rng.choice((None, 2))), folder)


def try_masks(rng: random.Random, folder: Path) -> None:
    """The annotations of one photo, of SA-1B or in a file for all photos."""
    value = mutated_value(rng, MASKS, rng.randrange(1, 4)) if rng.random() < 0.8 else odd_value(rng)
    data = json.dumps(value).encode("utf-8", "surrogatepass")
    (folder / "sa_1.jpg").write_bytes(jpg())
    (folder / "sa_1.json").write_bytes(mutated(rng, data) if rng.random() < 0.3 else data)
    source = open_source("sa1b", str(folder))
    try:
        masks = source.masks(source.items[0]) if source.masks else PhotoMasks()
    except Unreadable:
        masks = PhotoMasks()
    about = {"width": 40, "height": 30, "valid": [0, 0, 1, 0.75]}
    regions, counts = MaskPlan().of_photo(about, masks, Canvas(32))
    assert counts.photos + counts.on_grids == 1
    share = regions.coverage((4, 4)).astype(np.float64)
    assert (share >= 0).all() and (share <= 1).all() and (share.sum(axis=(1, 2)) > 0).all()


TARGETS = (
    Target(name="tars", try_one=try_tars, quick=250),
    Target(name="folders", try_one=try_folder, quick=150),
    Target(name="masks", try_one=try_masks, quick=200),
)
