"""Checks a store: whether everything in it is as its receipts, manifests and descriptions say."""

import shlex
import tarfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
import xxhash

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.shards import key_index, manifest
from densecli.shards.column import Column
from densecli.shards.manifest import Manifest, manifest_url, read_manifest
from densecli.shards.receipt_totals import ReceiptTotals
from densecli.shards.receipts import BLOCK, Receipt
from densecli.shards.store import Store
from densecli.shards.tars import Buffer, index_of, read_tar

FOLDERS = ("images", "regions", "targets")
SHARED = ("share.json", "README.md", "photos")
"""What `densecli share` writes beside the columns, in place of the photos."""
# A USTAR header: its type is 0 or NUL for a regular file, and a long name would go on in the prefix.
_TYPE, _PREFIX, _REGULAR = 156, slice(345, 500), (0, ord("0"))


class Finding(NamedTuple):
    """Something at `url`: one sentence about what it is, and one about what to do.

    leftover: Whether a killed writer left it, so that nothing of the store is wrong.
    advice: Whether nothing is wrong, but readers would be faster without it.
    """

    url: str
    trouble: str
    remedy: str
    leftover: bool = False
    advice: bool = False

    @property
    def wrong(self) -> bool:
        """Whether something of the store is wrong."""
        return not (self.leftover or self.advice)


def lint(
    store: Store,
    advance: Callable[[int], None] = lambda shards: None,
    *,
    workers: int = 8,
    sample: int | None = None,
    seed: int = 0,
) -> Iterator[Finding]:
    """Yields everything that is wrong with a store. Reads every byte and changes none.

    Args:
        store: To check.
        advance: Called with the number of shards that were just checked.
        workers: Number of threads that read shards.
        sample: Reads only this many shards of each column, the same of all; None reads all.
        seed: Seed of the choice of these shards.
    """
    beside = SHARED if _is_shared(store) else ()
    yield from _strays(store, store.root, {"store.json", "index", *FOLDERS, *beside})
    shards = chosen(store, sample, seed)
    digests: dict[str, str] = {}
    for column in _columns(store):
        if isinstance(column, Finding):
            yield column
            continue
        there = fs.files(column.url)
        yield from _strays_of(store, column)
        yield from _whole(store, column, there)
        yield from _shards(store, column, there, shards, digests, advance, workers)


def chosen(store: Store, sample: int | None, seed: int) -> list[int]:
    """Numbers of the shards that are read, in order.

    Args:
        store: The store.
        sample: How many of each column; None for all.
        seed: Seed of the choice.
    """
    shards = range(len(store.shard_names))
    if sample is None:
        return list(shards)
    return sorted(
        sorted(shards, key=lambda i: xxhash.xxh3_64_intdigest(f"lint/{seed}/{i}".encode()))[:sample]
    )


def count(store: Store, sample: int | None = None) -> int:
    """Number of shards, over all columns, that `lint` checks."""
    columns = sum(isinstance(c, Column) for c in _columns(store))
    return len(chosen(store, sample, 0)) * columns


def _is_shared(store: Store) -> bool:
    return fs.exists(fs.join(store.root, SHARED[0]))


def _columns(store: Store) -> Iterator[Column | Finding]:
    if not _is_shared(store):
        yield store.images
    yield from _folders(store)


def _folders(store: Store) -> Iterator[Column | Finding]:
    for kind in FOLDERS[1:]:
        for folder in fs.listdir(fs.join(store.root, kind)):
            url = fs.join(store.root, kind, folder)
            try:
                yield store.open_column(url)
            except (FileNotFoundError, NotADirectoryError):
                yield Finding(url, f"{url} has no column.json.", "Run its build again, or delete the folder.")
            except DenseCLIError as error:
                yield Finding(url, str(error), error.hint)


def _strays_of(store: Store, column: Column) -> Iterator[Finding]:
    if column.computed:
        yield from _strays(store, column.url, {"column.json"})
        return
    own = {manifest.FILE, *([key_index.FILE] if column.kind == "images" else ["column.json"])}
    shards = {name for shard in column.shard_names for name in (f"{shard}.tar", f"{shard}.json")}
    yield from _strays(store, column.url, own | shards)


def _strays(store: Store, url: str, expected: set[str]) -> Iterator[Finding]:
    for name in sorted({*fs.listdir(url), *fs.files(url)} - expected):
        stray = fs.join(url, name)
        if fs.is_temporary(name):
            yield Finding(
                stray,
                f"{stray} was left by a killed writer, or is being written.",
                "Once nothing writes to the store, run densecli gc --leftovers --min-age 0 --delete --store "
                f"{shlex.quote(store.root)}.",
                leftover=True,
            )
        else:
            yield Finding(stray, f"{stray} is not part of the store.", "Delete it, or move it elsewhere.")


def _absent(column: Column, there: dict[str, fs.File]) -> list[str]:
    return [s for s in column.shard_names if {f"{s}.tar", f"{s}.json"}.isdisjoint(there)]


def _whole(store: Store, column: Column, there: dict[str, fs.File]) -> Iterator[Finding]:
    if not column.computed and (absent := _absent(column, there)):
        yield Finding(
            column.url,
            f"The column {column.url} is not finished: {len(absent)} of {len(column.shard_names)} shards are "
            f"missing, the first is {absent[0]}.",
            "Run its build again: it continues where it stopped.",
        )
    if column.regions_key:
        try:
            store.regions_of(column)
        except DenseCLIError as error:
            yield Finding(column.url, str(error), error.hint)


def _shards(
    store: Store,
    column: Column,
    there: dict[str, fs.File],
    shards: Sequence[int],
    digests: dict[str, str],
    advance: Callable[[int], None],
    workers: int,
) -> Iterator[Finding]:
    """What is wrong with shards of a column, and with its manifest."""
    if column.computed:
        advance(len(shards))
        return
    names = column.shard_names
    to_read = [i for i in shards if not {f"{names[i]}.tar", f"{names[i]}.json"}.isdisjoint(there)]
    if len(to_read) < len(shards):
        advance(len(shards) - len(to_read))
    listed = yield from _manifest_of(column, there)
    counted, differing = ReceiptTotals(column, to_read, with_keys=True), []
    check = partial(_check, column, store.shard_sizes, digests)
    # The totals hold for all shards together: with a bad one among them they say nothing.
    whole = len(to_read) == len(names)
    with closing(prefetch(check, to_read, threads=workers, window=2 * workers)) as checked:
        for i, found in zip(to_read, checked, strict=True):
            advance(1)
            if isinstance(found, DenseCLIError):
                whole = False
                yield Finding(column.tar_url(names[i]), str(found), found.hint)
                continue
            if listed is not None and listed.row_of(found) != manifest.row(found):
                differing.append(names[i])
            if listed is not None and whole:
                counted.add(found, there[f"{names[i]}.json"].bytes)
    url = manifest_url(column)
    if differing:
        yield Finding(
            url,
            f"{url} does not fit the receipts of {len(differing)} shards, the first is {differing[0]}.",
            _delete(url),
        )
    elif listed is not None and whole:
        again, index = counted.manifest()
        # What a build says of itself is not checked, here as in receipts.
        if {**again.totals, "run": None} != {**listed.totals, "run": None}:
            yield Finding(url, f"{url} does not fit the receipts in total.", _delete(url))
        if index is not None:
            yield from _keys(column, listed, index.digest)


def _manifest_of(column: Column, there: dict[str, fs.File]) -> Generator[Finding, None, Manifest | None]:
    """Yields what is wrong with a column's manifest by itself. Returns it, if it can be read."""
    url = manifest_url(column)
    try:
        listed = read_manifest(column)
    except DenseCLIError as error:
        yield Finding(url, str(error), error.hint)
        return None
    if listed is None and all(f"{s}.{end}" in there for s in column.shard_names for end in ("tar", "json")):
        yield Finding(
            url,
            f"The column {column.url} has no manifest, so every reader asks for all of its receipts.",
            "Running its build again writes one.",
            advice=True,
        )
    return listed


def _keys(column: Column, listed: Manifest, digest: str) -> Iterator[Finding]:
    url = fs.join(column.url, key_index.FILE)
    try:
        there = xxhash.xxh3_64_hexdigest(fs.read_bytes(url))
    except FileNotFoundError:
        there = ""
    if not listed.keys_index == digest == there:
        yield Finding(
            url,
            f"{url} does not list the keys of the photos." if there else f"{url} is gone.",
            _delete(manifest_url(column)),
        )


def _delete(url: str) -> str:
    return f"Delete {url} and run the build of its column again, which writes it anew."


def _check(
    column: Column, sizes: Sequence[int], digests: dict[str, str], number: int
) -> Receipt | DenseCLIError:
    """Reads and checks a shard.

    Args:
        column: Its column.
        sizes: Number of photos planned for every shard.
        digests: Digest of the keys by shard, filled in by the photos.
        number: The shard's number.

    Returns:
        Its receipt, or what is wrong with it.
    """
    shard = column.shard_names[number]
    try:
        data, receipt = read_tar(column, shard)
        index_of(column, shard, receipt)
        _check_facts(column, receipt, sizes[number], digests)
    except DenseCLIError as error:
        return error
    if not _has_these_alone(data, receipt):
        return DenseCLIError(
            f"The receipt {column.receipt_url(shard)} lists other members than its tar has.",
            hint=_rebuild(column, shard),
        )
    return receipt


def _check_facts(column: Column, receipt: Receipt, planned: int, digests: dict[str, str]) -> None:
    shard = receipt.shard
    if column.kind == "images":
        digests[shard] = receipt.keys_digest
        counted = receipt.samples + sum(receipt.skipped.values())
        if counted != planned:
            raise DenseCLIError(
                f"The receipt {column.receipt_url(shard)} accounts for {counted} photos of {planned}.",
                hint=_rebuild(column, shard),
            )
    elif receipt.keys_digest != digests.get(shard, receipt.keys_digest):
        raise DenseCLIError(
            f"The shard {column.tar_url(shard)} holds other samples than the photos' shard {shard}.",
            hint=f"{_rebuild(column, shard)[:-1]}, from the same data.",
        )


def _rebuild(column: Column, shard: str) -> str:
    return f"Delete the receipt {column.receipt_url(shard)} and run the build again."


def _has_these_alone(data: Buffer, receipt: Receipt) -> bool:
    """Whether a tar holds regular files at the places that its receipt lists, and nothing else.

    `read_tar` has compared names and sizes with the headers. `tarfile` would say the same of the rest, in a
    hundred times the time.
    """
    blocks = np.frombuffer(data, np.uint8)
    places = np.array(sorted(receipt.members.values()), np.int64).reshape(-1, 2)
    first, behind = places[:, 0], -(-places.sum(axis=1) // BLOCK) * BLOCK
    ends = np.concatenate([[0], behind])
    if len(blocks) % tarfile.RECORDSIZE or (first != ends[:-1] + BLOCK).any() or blocks[ends[-1] :].any():
        return False
    headers = blocks.reshape(-1, BLOCK)[first // BLOCK - 1]
    return bool(np.isin(headers[:, _TYPE], _REGULAR).all()) and not headers[:, _PREFIX].any()
