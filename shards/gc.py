"""Garbage in a store: columns that no run uses, and files that killed writers left."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, NotRequired, TypedDict

from densecli.core import fs
from densecli.core.documents import read_document
from densecli.shards.column import Column
from densecli.shards.manifest import FILE as MANIFEST
from densecli.shards.manifest import lacks_manifest, manifest_url
from densecli.shards.parted_store import PartedStore
from densecli.shards.receipt_totals import describe_shards
from densecli.shards.store import Store

_RESTORE = "Restore or delete it: until then nobody knows which columns the run uses."


class _RunConfig(TypedDict):
    columns: NotRequired[dict[str, str]]
    part_columns: NotRequired[list[str]]
    regions: NotRequired[str | None]


class Garbage(NamedTuple):
    """A file, or the folder of a whole column, that may be deleted: its size, and why."""

    url: str
    bytes: int
    why: str
    column: bool


def garbage(
    store: Store,
    *,
    runs: str,
    keep: Sequence[str] = (),
    min_age: float,
    leftovers: bool = False,
) -> list[Garbage]:
    """Finds what may be deleted.

    A target column may go if no run and nothing in `keep` names it; a region plan if no remaining column and
    no run uses it. If nothing names any column, all stay: the runs are then somewhere else.

    Args:
        store: To look through.
        runs: Folder of the runs, whose config.json name the columns that they use.
        keep: Columns to keep, NAME or NAME-ID.
        min_age: Nothing younger than this many seconds may go: somebody may still be writing it. A date in
            the future says no more than one as far in the past.
        leftovers: Whether only what killed writers left may go.

    Raises:
        DenseCLIError: A column.json is damaged, a name in `keep` is unknown, or the store has parts.
    """
    if isinstance(store, PartedStore):
        raise store.several()
    now = time.time()

    def old(file: fs.File) -> bool:
        return abs(now - file.modified) >= min_age

    found = []
    for column in [] if leftovers else _unnamed(store, runs, keep):
        files = _files(column)
        if all(map(old, files)):
            found.append(Garbage(column.url, sum(file.bytes for file in files), "named by no run", True))
    gone = {item.url for item in found}
    for folder in _folders(store):
        if folder not in gone:
            found += [
                Garbage(fs.join(folder, name), file.bytes, "left by a killed writer", False)
                for name, file in fs.temporary_files(folder).items()
                if old(file)
            ]
    return found


def _files(column: Column) -> list[fs.File]:
    """The files of a column. Elsewhere than on this machine its manifest stands for all, if it has one."""
    if fs.is_local(column.url) or column.computed or lacks_manifest(column):
        return list(fs.files(column.url).values())
    # It was written after them.
    written = fs.file(manifest_url(column)).modified
    there = describe_shards(column)
    size = int(there.tar_bytes.sum()) + there.totals["run"]["receipt_bytes"] + there.file_bytes
    return [fs.File(size, written), fs.file(fs.join(column.url, "column.json"))]


def delete(items: Sequence[Garbage]) -> None:
    """Deletes what `garbage` found. If killed in the middle of a column, it leaves an unfinished one."""
    for item in items:
        if not item.column:
            fs.remove(item.url)
            continue
        # The manifest first: it says that the column is finished. Then the receipts: without its receipt, a
        # shard does not exist. The description last: without it nobody knows that the folder is a column.
        names = [name for name in fs.listdir(item.url) if name not in (MANIFEST, "column.json")]
        for name in [MANIFEST, *sorted(names, key=lambda name: not name.endswith(".json"))]:
            with suppress(FileNotFoundError):
                fs.remove(fs.join(item.url, name))
        fs.remove_folder(item.url)


def _unnamed(store: Store, runs: str, keep: Sequence[str]) -> list[Column]:
    targets, regions = store.columns("targets"), store.columns("regions")
    for name in set(keep) - _names(regions):
        store.find("targets", name)
    configs = list(_configs(runs))
    named = {key for config in configs for key in config.get("columns", {}).values()}
    named |= {key for config in configs for key in config.get("part_columns", [])}
    plans = {config.get("regions") for config in configs}
    kept = [c for c in targets if c.key in named or _names([c]) & set(keep)]
    if not kept:
        return []
    of_kept = {c.regions_key for c in kept}
    # A map holds for any boxes: the configs of its runs name the plan they used, or there was only one.
    any_boxes = None in of_kept and not plans - {None}
    kept += [
        c for c in regions if any_boxes or c.key in of_kept or c.name in plans or _names([c]) & set(keep)
    ]
    return [c for c in (*targets, *regions) if c not in kept]


def _names(columns: Sequence[Column]) -> set[str]:
    return {name for c in columns for name in (c.name, c.full_name)}


def _configs(runs: str) -> Iterator[dict[str, Any]]:
    """The config.json of the runs in a folder, and of those one level deeper, as an ablation has them."""
    for run in fs.listdir(runs):
        folder = fs.join(runs, run)
        for place in (folder, *(fs.join(folder, name) for name in fs.listdir(folder))):
            try:
                url = fs.join(place, "config.json")
                yield read_document(url, _RunConfig, noun="The run's configuration", hint=_RESTORE)
            except (FileNotFoundError, NotADirectoryError):
                continue


def _folders(store: Store) -> list[str]:
    below = [
        fs.join(store.root, kind, folder)
        for kind in ("regions", "targets", "index")
        for folder in fs.listdir(fs.join(store.root, kind))
    ]
    return [store.root, store.images.url, *below]
