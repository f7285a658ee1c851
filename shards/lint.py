"""Checks a store: whether everything in it is as its receipts and descriptions say."""

import io
import shlex
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.column import Column
from densecli.shards.store import Store
from densecli.shards.tars import index_of, read_tar

FOLDERS = ("images", "regions", "targets")


class Finding(NamedTuple):
    """Something at `url`: one sentence about what it is, and one about what to do.

    leftover: Whether a killed writer left it, so that nothing of the store is wrong.
    """

    url: str
    trouble: str
    remedy: str
    leftover: bool = False


def lint(store: Store, advance: Callable[[int], None] = lambda shards: None) -> Iterator[Finding]:
    """Yields everything that is wrong with a store. Reads every byte and changes none.

    Args:
        store: To check.
        advance: Called with the number of shards that were just checked.
    """
    yield from _strays(store, store.root, {"store.json", "index", *FOLDERS})
    digests: dict[str, str] = {}
    for column in [store.images, *_folders(store)]:
        if isinstance(column, Finding):
            yield column
            continue
        description = set() if column.kind == "images" else {"column.json"}
        shards = {name for shard in column.shard_names for name in (f"{shard}.tar", f"{shard}.json")}
        yield from _strays(store, column.url, description | shards)
        yield from _whole(store, column)
        there = fs.files(column.url)
        for shard, planned in zip(column.shard_names, store.shard_sizes, strict=True):
            if not {f"{shard}.tar", f"{shard}.json"}.isdisjoint(there):
                try:
                    _check(column, shard, planned, digests)
                except DenseCLIError as error:
                    yield Finding(column.tar_url(shard), str(error), error.hint)
            advance(1)


def count(store: Store) -> int:
    """Number of shards, over all columns, that `lint` checks."""
    return len(store.shard_names) * sum(isinstance(c, Column) for c in (store.images, *_folders(store)))


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


def _whole(store: Store, column: Column) -> Iterator[Finding]:
    there = fs.files(column.url)
    absent = [s for s in column.shard_names if {f"{s}.tar", f"{s}.json"}.isdisjoint(there)]
    if absent:
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


def _check(column: Column, shard: str, planned: int, digests: dict[str, str]) -> None:
    """Raises DenseCLIError for a bad shard. digests: keys digest by shard, filled in by the photos."""
    data, receipt = read_tar(column, shard)
    index_of(column, shard, receipt)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        found = {member.name: (member.offset_data, member.size) for member in tar}
    rebuild = f"Delete the receipt {column.receipt_url(shard)} and run the build again."
    if found != receipt.members:
        raise DenseCLIError(
            f"The receipt {column.receipt_url(shard)} lists other members than its tar has.", hint=rebuild
        )
    if column.kind == "images":
        digests[shard] = receipt.keys_digest
        counted = receipt.samples + sum(receipt.skipped.values())
        if counted != planned:
            raise DenseCLIError(
                f"The receipt {column.receipt_url(shard)} accounts for {counted} photos of {planned}.",
                hint=rebuild,
            )
    elif receipt.keys_digest != digests.get(shard, receipt.keys_digest):
        raise DenseCLIError(
            f"The shard {column.tar_url(shard)} holds other samples than the photos' shard {shard}.",
            hint=f"{rebuild[:-1]}, from the same data.",
        )
