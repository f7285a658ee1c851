"""Listings of millions of photos in tars and folders, kept as arrays and turned into items on access."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from densecli.core import fs
from densecli.core.find import Entry
from densecli.core.lazy_sequence import LazySequence
from densecli.core.passed_over import PassedOver
from densecli.core.prefetch import prefetch
from densecli.core.progress import Progress, say
from densecli.pipeline.sources.base import (
    MAX_KEY,
    Index,
    Item,
    SourceRequest,
    Span,
    distinct_keys,
    listing_digest,
    safe_keys,
)
from densecli.pipeline.sources.cut import WINDOW
from densecli.pipeline.sources.packed import Parted, Texts
from densecli.pipeline.sources.tars import Choose, Row, Scanned, TarLister
from densecli.shards.npz import decode_npz
from densecli.shards.writer import npz_bytes

THREADS = 16
"""Number of tars or folders that are read at the same time."""
MANY_TARS = 64
"""Largest number of tars elsewhere that are listed without a word about --tars-per-part."""
MAX_PREFIX = 40
"""Longest part of a key, in characters, that comes from the tar's name."""


class Volume(NamedTuple):
    """A tar or a folder of photos.

    Attributes:
        name: Path below the source's root.
        photos: A `table`.
        passed: What was left out of it.
        kept: Whether an index can remember it.
    """

    name: str
    photos: np.ndarray
    passed: PassedOver
    kept: bool = False

    @property
    def is_tar(self) -> bool:
        """Whether it is a tar rather than a folder."""
        return self.name.lower().endswith(".tar")

    @property
    def digest(self) -> str:
        """sha256 of the names and sizes of its photos and masks, in hex; offsets do not matter."""
        digest = hashlib.sha256(b"\n".join(self.photos["name"].tolist()))
        digest.update(self.photos["size"].tobytes() + self.photos["masks_size"].tobytes())
        return digest.hexdigest()


class Listing(Parted):
    """The photos of volumes, one volume after another."""

    def __init__(
        self, volumes: Iterable[Volume], limit: int | None = None, *, prefixed: bool = False
    ) -> None:
        """Joins volumes into one listing.

        Args:
            volumes: Tars and folders, in their order.
            limit: Number of photos to keep, from the start; None for all.
            prefixed: Whether keys start with the volume's name, for names that repeat from tar to tar.
        """
        self.volumes = list(volumes)
        self._ends = list(accumulate(len(volume.photos) for volume in self.volumes))
        total = self._ends[-1] if self._ends else 0
        self._n = total if limit is None else min(limit, total)
        self._prefixes = safe_keys([volume.name for volume in self.volumes], MAX_PREFIX) if prefixed else {}
        # The photos of a shard are in one volume or in two, or in those that are shuffled together.
        mean = max(1, total // max(1, len(self.volumes)))
        self._keys = lru_cache(maxsize=2 + 2 * WINDOW // mean)(self._make_keys)

    @property
    def blocks(self) -> list[int]:
        """Number of photos of each volume."""
        ends = [min(end, self._n) for end in self._ends]
        return [end - start for start, end in pairwise([0, *ends])]

    @property
    def digest(self) -> str:
        """sha256 over the volumes, in hex."""
        return listing_digest(f"{v.name}\t{len(v.photos)}\t{v.digest}" for v in self.volumes)

    @property
    def index_bytes(self) -> int:
        """Bytes of an index that remembers the volumes."""
        return sum(
            len(_entry(volume.photos[:0], volume.passed)) + volume.photos.nbytes
            for volume in self.volumes
            if volume.kept
        )

    @property
    def passed(self) -> PassedOver:
        """The files that were left out of the volumes."""
        total = PassedOver()
        for volume in self.volumes:
            total.update(volume.passed, volume.name)
        return total

    def __len__(self) -> int:
        return self._n

    def at(self, i: int) -> Item:
        """See `LazySequence.at`."""
        v = bisect_right(self._ends, i)
        volume = self.volumes[v]
        place = i - self._ends[v]
        row = volume.photos[place].item()
        return _item_of(volume.name, volume.is_tar, row, self._keys(v)[place])

    def part(self, places: np.ndarray) -> "ListingPart":
        """Returns the photos at these places, in that order, without making their items."""
        volumes = np.searchsorted(self._ends, places, side="right")
        slices = []
        for v in sorted(set(volumes.tolist())):
            volume, keys = self.volumes[v], self._keys(v)
            within = places[volumes == v] - self._ends[v]
            of_photos = Texts.of([keys[place] for place in within.tolist()])
            slices.append(VolumeSlice(volume.name, volume.is_tar, volume.photos[within], of_photos))
        return ListingPart(tuple(slices), np.argsort(volumes, kind="stable"))

    def _make_keys(self, v: int) -> list[str]:
        """The keys of a volume's photos, in their order."""
        volume = self.volumes[v]
        names = _all_decoded(volume.photos["name"].tolist())
        # No key that `safe_keys` makes has a "+", so no two tars make the same key.
        prefix = self._prefixes[volume.name] + "+" if volume.name in self._prefixes else ""
        longest = MAX_KEY - len(prefix)
        if len(set(names)) == len(names):
            keys = distinct_keys(names, longest)
        else:
            by_name = safe_keys(names, longest)
            keys = [by_name[name] for name in names]
        return [prefix + key for key in keys] if prefix else keys


class VolumeSlice(NamedTuple):
    """Some photos of a volume: its name, whether it is a tar, rows of its table, and their keys."""

    volume: str
    is_tar: bool
    photos: np.ndarray
    keys: Texts

    def items(self) -> Iterator[Item]:
        """Makes the items of the photos."""
        for row, key in zip(self.photos.tolist(), self.keys.split(), strict=True):
            yield _item_of(self.volume, self.is_tar, row, key)


@dataclass(frozen=True, eq=False)
class ListingPart(LazySequence[Item]):
    """Photos of a listing as arrays: they become items where they are read.

    Attributes:
        slices: The photos, by volume.
        places: (N,) place in the part of each photo of the slices.
    """

    slices: tuple[VolumeSlice, ...]
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def at(self, i: int) -> Item:
        """See `LazySequence.at`."""
        return self._items[i]

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __reduce__(self) -> tuple[object, ...]:
        # Without the items, if they were made here.
        return ListingPart, (self.slices, self.places)

    @cached_property
    def _items(self) -> list[Item]:
        items = [item for part in self.slices for item in part.items()]
        return [items[place] for place in np.argsort(self.places).tolist()]


def _item_of(volume: str, is_tar: bool, row: Row, key: str) -> Item:
    name, offset, size, masks_offset, masks_size = row
    path = _decoded(name)
    ref = fs.join(volume, path) if volume else path
    masks_file = volume if is_tar else ref.removesuffix(".jpg") + ".json"
    return Item(
        key=key,
        ref=ref,
        photo=Span(volume if is_tar else ref, offset, size),
        masks=Span(masks_file, masks_offset, masks_size) if masks_size else None,
    )


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _all_decoded(names: list[bytes]) -> list[str]:
    """The names, in one pass: a tar of SA-1B has 11,000."""
    found = _decoded(b"\0".join(names)).split("\0")
    return found if len(found) == len(names) else list(map(_decoded, names))


def tar_volumes(
    root: str,
    tars: Mapping[str, Entry],
    choose: Choose,
    request: SourceRequest,
) -> Iterator[Volume]:
    """Lists tars until they hold as many photos as are asked for.

    Args:
        root: Folder or URL of the tars.
        tars: The tars by their path below `root`.
        choose: Chooses the photos of a tar among its members.
        request: Has the limit, the index that remembers the contents of tars, and what lists them.

    Raises:
        DenseCLIError: A file is not a complete tar.
    """

    limit = request.limit
    # A limit may need no more than the first tars.
    local = limit is not None or fs.is_local(root)
    lister = TarLister() if local else request.lister
    threads = THREADS if local else lister.at_once
    readers = max(1, lister.requests // min(threads, max(1, len(tars))))
    note = ""
    if not local and request.tars is None and len(tars) > MANY_TARS:
        note = (
            f"Building begins when all {len(tars):,} tars are listed; with --tars-per-part {MANY_TARS} it "
            f"begins when the first {MANY_TARS} are."
        )

    def scan(name: str) -> Scanned:
        return lister.scan(fs.join(root, name), choose, size=tars[name].size, readers=readers)

    return list_volumes(
        root,
        tars,
        scan,
        "tars listed",
        limit=limit,
        index=request.index,
        threads=threads,
        around=lister.around,
        note=note,
    )


def list_volumes(
    root: str,
    entries: Mapping[str, Entry],
    scan: Callable[[str], Scanned],
    unit: str,
    *,
    limit: int | None,
    index: Index | None,
    threads: int | None = None,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    note: str = "",
) -> Iterator[Volume]:
    """Lists tars or folders until they hold `limit` photos.

    Args:
        root: Folder or URL of the volumes.
        entries: The volumes by their path below `root`.
        scan: Makes the `table` of a volume, and counts what is left out. It is called for each that the index
            does not know, and for each whose file system does not tell whether it has changed.
        unit: What the progress line counts, such as "tars listed".
        limit: Number of photos after which no other volume is read; None for all.
        index: Remembers the contents of volumes.
        threads: Number of volumes that are read at the same time; None for `THREADS`.
        around: Makes what all calls of `scan` need around them, if the index does not know all volumes.
        note: A line for the user before the first volume is read; none if the index knows them all.
    """
    kept = {
        name: f"{listing_digest([fs.join(root, name), entry.stamp])[:24]}.npz"
        for name, entry in entries.items()
        if entry.stamp
    }
    unknown = {name for name in entries if not (index and kept.get(name, "") in index)}

    def volume(name: str) -> Volume:
        known = name in kept
        if index and known and (data := index.get(kept[name])):
            # A damaged entry is made again, as is one from before it told what was left out.
            with suppress(ValueError, KeyError, TypeError):
                return Volume(name, *_read_entry(data), known)
        photos, passed = scan(name)
        if index and known:
            index.put(kept[name], _entry(photos, passed))
        if name in unknown:
            progress.advance(1)
        return Volume(name, photos, passed, known)

    if unknown and note:
        say(note)
    n, threads = 0, threads or THREADS
    with (
        around() if unknown else nullcontext(),
        closing(Progress(len(unknown), unit)) as progress,
        closing(prefetch(volume, entries, threads=threads, window=threads)) as volumes,
    ):
        for found in volumes:
            yield found
            n += len(found.photos)
            if limit is not None and n >= limit:
                return


def _entry(photos: np.ndarray, passed: PassedOver) -> bytes:
    """The entry of a volume in an index."""
    return npz_bytes({"photos": photos, "passed": np.frombuffer(passed.to_json(), np.uint8)})


def _read_entry(data: bytes) -> Scanned:
    arrays = decode_npz(data)
    return arrays["photos"], PassedOver.from_json(arrays["passed"].tobytes())
