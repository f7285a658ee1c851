"""Shares columns of a store without its photos: the targets, digests of the photos, and a card."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.pipeline.manifests import publish_manifests
from densecli.pipeline.photo_digests import digest_of, write_digests
from densecli.pipeline.share_config import ShareConfig
from densecli.pipeline.store_card import store_card
from densecli.shards.info import describe
from densecli.shards.joined import read_joined
from densecli.shards.keys import canonical_json
from densecli.shards.npz import decode_npz
from densecli.shards.specs import ColumnDocument, ColumnInfo
from densecli.shards.store import Column, Store

CARD, DOCUMENT = "README.md", "share.json"
VERSION = 1


def share(config: ShareConfig) -> dict[str, Any]:
    """Copies finished columns, with digests of the photos in place of the photos, and writes a card.

    The same call continues where it stopped. The result is a store without its column of photos, which
    `adopt` adds to a store of the same photos.

    Returns:
        JSON values: `shared`, `columns`, `samples`, `bytes`, and `paths_removed`, the number of places of
        weights on this machine that are left out.

    Raises:
        DenseCLIError: A column is not finished, or holds pictures.
    """
    store = Store.open(fs.absolute(config.store))
    columns = _chosen(store, config.columns)
    out = fs.absolute(config.out or fs.join("shared", store.root.rstrip("/").rpartition("/")[2]))
    if fs.exists(fs.join(out, "images")):
        raise DenseCLIError(
            f"{fs.shown(out)} has a column of photos.", hint="Give --out a folder of its own."
        )
    _check_folder(out, columns)
    fs.write_atomic(fs.join(out, "store.json"), fs.read_bytes(fs.join(store.root, "store.json")))
    removed = sum(_write_description(column, store.root, out) for column in columns)
    written = [column for column in columns if not column.computed]
    progress = Progress(sum(store.shard_sizes), "photos")
    samples = 0
    for shard, planned in zip(store.shard_names, store.shard_sizes, strict=True):
        photos = read_joined([store.images], shard)
        digests = [digest_of(photo.parts["images"]["jpg"]) for photo in photos]
        for column in written:
            _copy_shard(column, shard, store.root, out)
        # Last: who reads digests finds the targets.
        write_digests(out, shard, digests)
        samples += len(photos)
        progress.advance(planned)
    progress.close()
    shared = Store.open(out)
    publish_manifests([_copy(column, store.root, out) for column in written])
    described = describe(store, columns=[store.images, *columns])
    found = [column for column in described["columns"] if column["kind"] != "images"]
    size = sum(column["bytes"] for column in found)
    document = {
        "version": VERSION,
        "columns": [column.full_name for column in columns],
        "samples": samples,
        "bytes": size,
        "licence": config.licence,
    }
    fs.write_atomic(fs.join(out, DOCUMENT), canonical_json(document) + b"\n")
    card = store_card(
        shared,
        columns,
        found,
        samples=samples,
        licence=config.licence,
        all_columns=store.columns("targets"),
    )
    fs.write_atomic(fs.join(out, CARD), card.encode())
    return {"shared": fs.shown(out), **document, "paths_removed": removed}


def _chosen(store: Store, names: Sequence[str]) -> list[Column]:
    """The columns to share, and the boxes that they are about.

    Raises:
        DenseCLIError: There are none, or one is not finished.
    """
    targets = [store.find("targets", name) for name in names]
    if not names:
        targets = [column for column in store.columns("targets") if column.complete]
    if not targets:
        raise DenseCLIError(
            f"The store at {fs.shown(store.root)} has no finished column of targets.",
            hint="Build one with densecli build-shards --teacher NAME.",
        )
    regions = {c.regions_key: store.regions_of(c) for c in targets if c.regions_key}
    columns = [*regions.values(), *targets]
    for column in [store.images, *columns]:
        if not column.computed and (missing := column.missing()):
            raise DenseCLIError(
                f"The column {column.full_name} lacks {len(missing)} of {len(store.shard_names)} shards.",
                hint="Run its build again: it continues where it stopped.",
            )
    return columns


def _check_folder(out: str, columns: Sequence[Column]) -> None:
    """Raises DenseCLIError if a folder has other columns, of which the card would not tell."""
    known = {column.url.rpartition("/")[2] for column in columns}
    there = {name for kind in ("regions", "targets") for name in fs.listdir(fs.join(out, kind))}
    if strays := sorted(there - known):
        raise DenseCLIError(
            f"{fs.shown(out)} has columns that are not to be shared now: {', '.join(strays)}.",
            hint="Give --out another folder, or name these too with --column.",
        )


def _write_description(column: Column, root: str, out: str) -> int:
    """Copies a column.json. Returns the number of places on this machine that it no longer names."""
    places = {name: value for name, value in column.info.items() if _is_place(value)}
    info: Mapping[str, Any] = {**column.info, **{n: str(v).rpartition("/")[2] for n, v in places.items()}}
    document: ColumnDocument = {"key": column.key, "spec": column.spec, "info": ColumnInfo(**info)}  # type: ignore[typeddict-item]
    fs.write_atomic(fs.join(_moved(column, root, out), "column.json"), canonical_json(document) + b"\n")
    return len(places)


def _is_place(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("/", "file:", "~"))


def _moved(column: Column, root: str, out: str) -> str:
    return fs.join(out, column.url.removeprefix(root).lstrip("/"))


def _copy(column: Column, root: str, out: str) -> Column:
    return replace(column, url=_moved(column, root, out))


def _copy_shard(column: Column, shard: str, root: str, out: str) -> None:
    """Copies the tar, then its receipt, if they are not there yet. Raises DenseCLIError for pictures."""
    copy = _copy(column, root, out)
    receipt = fs.read_bytes(column.receipt_url(shard))
    if copy.has(shard) and fs.read_bytes(copy.receipt_url(shard)) == receipt:
        return
    # Checked against its receipt, as readers do.
    for record in read_joined([column], shard):
        check_no_picture(column, record.key, record.parts[column.part])
    fs.write_atomic(copy.tar_url(shard), fs.read_bytes(column.tar_url(shard)))
    fs.write_atomic(copy.receipt_url(shard), receipt)


def check_no_picture(column: Column, key: str, members: Mapping[str, bytes | memoryview]) -> None:
    """Raises DenseCLIError for a sample that may hold a picture.

    Args:
        column: The column.
        key: Key of the sample.
        members: Its members by extension.
    """
    strays = [extension for extension in members if extension != "npz"]
    pixels = [] if strays else [n for n, array in decode_npz(members["npz"]).items() if _may_be_pixels(array)]
    if strays or pixels:
        what = f"a member .{strays[0]}" if strays else f"an array {pixels[0]!r} like a picture's pixels"
        raise DenseCLIError(
            f"The sample {key} of {column.full_name} has {what}.",
            hint="Only targets are shared. Choose other columns with --column.",
        )


def _may_be_pixels(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim >= 3
