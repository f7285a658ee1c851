"""Photos by the million: tars and folders, listed as arrays and turned into items when asked for."""

import hashlib
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, overload

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.pipeline.sources.base import MAX_KEY, Index, Item, Span, listing_digest, safe_keys
from densecli.shards.reader import decode_npz
from densecli.shards.writer import npz_bytes

# Tars whose headers are read, or folders that are listed, at the same time.
THREADS = 16
# Of a key, what may go to the tar's name.
MAX_PREFIX = 40

Row = tuple[bytes, int, int, int, int]


class Volume(NamedTuple):
    """A tar, or a folder, of photos. name: below the source's root. photos: see `table`. kept: whether an
    index can keep it."""

    name: str
    photos: np.ndarray
    kept: bool = False

    @property
    def is_tar(self) -> bool:
        return self.name.endswith(".tar")

    @property
    def digest(self) -> str:
        """sha256 of what it holds, wherever in it."""
        digest = hashlib.sha256(b"\n".join(self.photos["name"].tolist()))
        digest.update(self.photos["size"].tobytes() + self.photos["masks_size"].tobytes())
        return digest.hexdigest()


def table(rows: Sequence[Row]) -> np.ndarray:
    """(N,) of name, offset and bytes of the photo, and of its masks (0 bytes: it has none), 24 bytes a photo
    beside its name."""
    width = max((len(row[0]) for row in rows), default=1)
    numbers = [("offset", "<i8"), ("size", "<u4"), ("masks_offset", "<i8"), ("masks_size", "<u4")]
    return np.array(rows, dtype=[("name", f"S{width}"), *numbers])


class Listing(Sequence[Item]):
    """The photos of volumes, one volume after another; `limit`: the first of them only.

    prefixed: begin keys with the volume's name, for photos that are named anew in every tar.
    """

    def __init__(
        self, volumes: Iterable[Volume], limit: int | None = None, *, prefixed: bool = False
    ) -> None:
        self.volumes = list(volumes)
        self._ends = list(accumulate(len(volume.photos) for volume in self.volumes))
        total = self._ends[-1] if self._ends else 0
        self._n = total if limit is None else min(limit, total)
        self._prefixes = safe_keys([volume.name for volume in self.volumes], MAX_PREFIX) if prefixed else {}
        # A shard's photos are neighbours: they are in one volume, or in two.
        self._keys = lru_cache(maxsize=2)(self._make_keys)

    @property
    def digest(self) -> str:
        return listing_digest(f"{v.name}\t{len(v.photos)}\t{v.digest}" for v in self.volumes)

    @property
    def index_bytes(self) -> int:
        """What an index that keeps the volumes takes."""
        photos = [volume.photos for volume in self.volumes if volume.kept]
        return sum(len(npz_bytes({"photos": each[:0]})) + each.nbytes for each in photos)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        found = range(self._n)[index]
        return self._item(found) if isinstance(found, int) else [self._item(i) for i in found]

    def _item(self, i: int) -> Item:
        v = bisect_right(self._ends, i)
        volume = self.volumes[v]
        name, offset, size, masks_offset, masks_size = volume.photos[i - self._ends[v]].item()
        name = name.decode("utf-8", "surrogateescape")
        ref = fs.join(volume.name, name) if volume.name else name
        masks_file = volume.name if volume.is_tar else ref.removesuffix(".jpg") + ".json"
        return Item(
            key=self._keys(v)[name],
            ref=ref,
            photo=Span(volume.name if volume.is_tar else ref, offset, size),
            masks=Span(masks_file, masks_offset, masks_size) if masks_size else None,
        )

    def _make_keys(self, v: int) -> dict[str, str]:
        volume = self.volumes[v]
        names = [name.decode("utf-8", "surrogateescape") for name in volume.photos["name"].tolist()]
        if volume.name not in self._prefixes:
            return safe_keys(names)
        # "+" is in no key that `safe_keys` makes, so two tars never make the same one.
        prefix = self._prefixes[volume.name] + "+"
        return {name: prefix + key for name, key in safe_keys(names, MAX_KEY - len(prefix)).items()}


def tar_volumes(
    root: str,
    tars: dict[str, fs.Entry],
    wanted: Callable[[str], bool],
    *,
    limit: int | None,
    index: Index | None,
) -> Iterator[Volume]:
    """The volumes of `tars`, names below `root`, until they hold `limit` photos.

    wanted: which members are photos, or, if `.json`, their masks. Raises DenseCLIError for a file that is not
    a whole tar.
    """

    def scan(name: str) -> np.ndarray:
        return scan_tar(fs.join(root, name), wanted)

    return list_volumes(root, tars, scan, "tars listed", limit=limit, index=index)


def list_volumes(
    root: str,
    entries: dict[str, fs.Entry],
    scan: Callable[[str], np.ndarray],
    unit: str,
    *,
    limit: int | None,
    index: Index | None,
) -> Iterator[Volume]:
    """The volumes of `entries`, names below `root`, until they hold `limit` photos.

    scan: makes the `table` of an entry that the index does not know, or whose file system does not tell
    whether it changed. unit: what that is called.
    """
    kept = {
        name: f"{listing_digest([fs.join(root, name), entry.stamp])[:24]}.npz"
        for name, entry in entries.items()
        if entry.stamp
    }
    there = set(fs.listdir(index.folder)) if index else set()

    def volume(name: str) -> Volume:
        known = name in kept
        if index and known and kept[name] in there:
            with suppress(ValueError, KeyError):  # One that is damaged is made again.
                photos = decode_npz(fs.read_bytes(fs.join(index.folder, kept[name])))["photos"]
                return Volume(name, photos, known)
        photos = scan(name)
        if index and known and index.save:
            fs.write_atomic(fs.join(index.folder, kept[name]), npz_bytes({"photos": photos}))
        if kept.get(name) not in there:
            progress.advance(1)
        return Volume(name, photos, known)

    names, n = list(entries), 0
    unknown = sum(kept.get(name) not in there for name in names)
    with ThreadPoolExecutor(THREADS) as pool, closing(Progress(unknown, unit)) as progress:
        for first in range(0, len(names), THREADS):
            for found in pool.map(volume, names[first : first + THREADS]):
                yield found
                n += len(found.photos)
                if limit is not None and n >= limit:
                    return


def scan_tar(url: str, wanted: Callable[[str], bool]) -> np.ndarray:
    """The photos of a tar, in its order, with the masks beside them. Reads headers, seeks over the rest.

    wanted: see `tar_volumes`. Raises DenseCLIError where it is not whole.
    """
    photos: dict[str, tuple[int, int]] = {}
    masks: dict[str, tuple[int, int]] = {}
    with fs.open_to_seek(url) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while member := tar.next():
                    # TarFile remembers every member it has seen.
                    tar.members.clear()  # type: ignore[attr-defined]
                    name = member.name.removeprefix("./")
                    if member.isreg() and wanted(name):
                        stem, _, extension = name.rpartition(".")
                        found, key = (masks, stem) if extension == "json" else (photos, name)
                        found[key] = member.offset_data, member.size
                # Behind the last member are zeros, unless the tar is cut or the next header is damaged.
                file.seek(tar.offset)
                rest = file.read(tarfile.RECORDSIZE)
                whole = len(rest) >= tarfile.BLOCKSIZE and not any(rest)
        except tarfile.TarError:
            whole = False
    if not whole:
        raise DenseCLIError(
            f"{url} is not a whole tar: it is damaged, compressed, or ends too early.",
            hint="Fetch it again, or move it away to do without its photos.",
        )
    none = (0, 0)
    return table(
        [
            (name.encode("utf-8", "surrogateescape"), *span, *masks.get(name.rpartition(".")[0], none))
            for name, span in photos.items()
        ]
    )
