"""The layout of a store: one data set on one canvas, cut into shards, with a column for each teacher."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from densecli.core import fs
from densecli.core.documents import check, parse
from densecli.core.errors import DenseCLIError
from densecli.shards.column import Column
from densecli.shards.geometry import RESAMPLE
from densecli.shards.joined import Record
from densecli.shards.keys import canonical_json, column_key, short_id
from densecli.shards.reader import StoreReader
from densecli.shards.specs import (
    ColumnDocument,
    ColumnInfo,
    ColumnReadable,
    DatasetIdentity,
    DataSpec,
    PhotosSpec,
    StoreDocument,
    StoreReadable,
)

__all__ = ["FORMAT_VERSION", "PHOTOS", "Column", "Store"]

FORMAT_VERSION = 2
"""Format of new stores. Version 2 has computed boxes."""
READABLE = (1, 2)
"""Formats that are read. A store keeps its own: it is part of what its columns' keys depend on."""
PARTS = "parts.json"
"""Describes a store of parts, in place of a store.json."""

# Stands in store.json, so that photos made in different ways never mix. With `decode` 2 the stored photo
# differs from one of a full decode by less than its own compression does; with 1 by more.
PHOTOS = PhotosSpec(codec="jpeg", decode=2, quality=95, resample=RESAMPLE.name.lower())


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store: photos, region plans and teachers' targets of one data set, as joined columns of shards.

    Open one with `Store.open` and read its samples with `samples`:

        store = densecli.Store.open("stores/coco-512")
        labels = store.find("targets", "vitb16")
        for sample in store.samples(labels):
            image = sample.image()                                  # (h, w, 3) uint8 RGB
            boxes = sample.regions().boxes                          # (N, 4) xyxy in 0..1 of the canvas
            p = labels.codec.decode(sample.arrays(labels.part))     # (N, D + 2) probabilities

    Attributes:
        root: Folder or address of the store.
        dataset: Identity of the data set.
        canvas: Side of the square that every photo is fitted into, in pixels.
        shard_sizes: Number of samples planned for every shard.
        photos: How the photos are stored.
        format: Version of its format.
    """

    root: str
    dataset: DatasetIdentity
    canvas: int
    shard_sizes: tuple[int, ...]
    photos: PhotosSpec = field(default_factory=PHOTOS.copy)
    format: int = FORMAT_VERSION

    @classmethod
    def create(
        cls, root: str | os.PathLike[str], dataset: DatasetIdentity, canvas: int, shards: list[int]
    ) -> "Store":
        """Creates the store at `root`, or opens it if it already exists, in whatever format.

        Args:
            root: Folder or address.
            dataset: Identity of the data set.
            canvas: Side of the canvas in pixels.
            shards: Number of samples planned for every shard.

        Returns:
            The store.

        Raises:
            DenseCLIError: `root` has a store with another data set, canvas, division into shards or storage
                of photos.
        """
        wanted = cls(root=os.fspath(root), dataset=dataset, canvas=canvas, shard_sizes=tuple(shards))
        if not fs.exists(fs.join(root, "store.json")):
            fs.write_atomic(fs.join(root, "store.json"), canonical_json(wanted.document()) + b"\n")
            return wanted
        found = cls.open(root)
        for what, old, new in (
            ("canvas", found.canvas, wanted.canvas),
            ("dataset", found.dataset, wanted.dataset),
            ("number of shards", len(found.shard_sizes), len(wanted.shard_sizes)),
            ("division into shards", found.shard_sizes, wanted.shard_sizes),
            ("storage of photos", found.photos, wanted.photos),
        ):
            if canonical_json(old) != canonical_json(new):
                raise DenseCLIError(
                    f"The store at {fs.shown(found.root)} has another "
                    f"{what}: {_short(old)}, not {_short(new)}.",
                    hint="Give the settings that it was made with, or write to another store (--store).",
                )
        return found

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> "Store":
        """Opens a store. Reads only its store.json. See `open_store` for one that has parts.

        Args:
            root: Folder, or address that fsspec knows (s3://, gs://, https://, ...).

        Returns:
            The store.

        Raises:
            DenseCLIError: There is no store at `root`, its description is damaged, or it has another format
                version.
        """
        root = fs.expanded(root)
        fs.check(root)
        url = fs.join(root, "store.json")
        try:
            document = parse(fs.read_bytes(url))
            check(document, dict[str, Any])
            version = document.get("format")
            if version in READABLE:
                check(document, StoreReadable)
                if document["canvas"] < 1 or min(document["shards"], default=0) < 0:
                    raise ValueError("its canvas or a shard's size is not possible")
                return cls(
                    root=os.fspath(root),
                    dataset=document["dataset"],
                    canvas=document["canvas"],
                    shard_sizes=tuple(document["shards"]),
                    photos=document["photos"],
                    format=version,
                )
        except (FileNotFoundError, NotADirectoryError) as error:
            if fs.exists(fs.join(root, PARTS)):
                raise DenseCLIError(
                    f"The store at {os.fspath(root)} has parts, and this is done to each of them.",
                    hint=f"Name one of them, such as {fs.join(root, 'parts/000/000000')}.",
                ) from error
            raise DenseCLIError(
                f"There is no store at {os.fspath(root)}.",
                hint="Build one with densecli build-shards, or name another with --store.",
            ) from error
        except ValueError as error:
            raise DenseCLIError(
                f"{url} does not describe a store: it is damaged ({error}).",
                hint="Restore it, or build into an empty folder.",
            ) from error
        raise DenseCLIError(
            f"The store at {os.fspath(root)} has format version {version}, and this densecli reads "
            f"{' and '.join(map(str, READABLE))}.",
            hint="Read it with the densecli that wrote it, or build it again.",
        )

    def document(self) -> StoreDocument:
        """The content of store.json."""
        return {
            "format": self.format,
            "dataset": self.dataset,
            "canvas": self.canvas,
            "shards": list(self.shard_sizes),
            "photos": self.photos,
        }

    @cached_property
    def shard_names(self) -> Sequence[str]:
        """Names of all shards in order: 000000, 000001, ..."""
        return tuple(map(shard_name, range(len(self.shard_sizes))))

    @cached_property
    def data(self) -> DataSpec:
        """The part of a column's spec that ties it to this store."""
        return {"canvas": self.canvas, "store": column_key(self.document())}

    @property
    def images(self) -> Column:
        """The column of photos."""
        # Its spec follows from store.json alone, so it needs no column.json.
        return Column(
            url=fs.join(self.root, "images"),
            spec={"kind": "images", "name": "images", "data": self.data},
            shard_names=self.shard_names,
        )

    def samples(self, *targets: Column | str) -> Iterator[Record]:
        """Yields all samples in the order of the shards, with their photos and the given targets.

        See `densecli.shards.reader.StoreReader` for shuffling, several processes and a cache.

        Args:
            targets: Target columns, or their names, NAME or NAME-ID.

        Yields:
            Records whose `parts` are "images", each target column under its teacher's name, and "regions" if
            a target is about boxes.

        Raises:
            DenseCLIError: A column is missing or not finished, or the targets are about different boxes.
        """
        columns = [self.find("targets", c) if isinstance(c, str) else c for c in targets]
        regions = {c.regions_key: self.regions_of(c) for c in columns if c.regions_key}
        return StoreReader([self.images, *regions.values(), *columns], shuffle=False).iter(epoch=0)

    def column(
        self, kind: str, name: str, spec: Mapping[str, object], info: ColumnInfo | None = None
    ) -> Column:
        """Returns the column that `add_column` would create, without reading or writing anything.

        Args:
            kind: "regions" or "targets".
            name: Name of the region plan or of the teacher.
            spec: See `add_column`.
            info: See `add_column`.
        """
        full = {**spec, "kind": kind, "name": name, "data": self.data}
        if len(full) != len(spec) + 3:
            raise ValueError("spec uses a key that the store fills in: kind, name or data")
        # Through JSON and back, so that a new column equals the same one opened later.
        full = json.loads(canonical_json(full))
        column_id = short_id(column_key(full))
        folder = column_id if kind == "regions" else f"{fs.file_name(name)}-{column_id}"
        url = fs.join(self.root, kind, folder)
        return Column(url=url, spec=full, info=info or {}, shard_names=self.shard_names)

    def add_column(
        self, kind: str, name: str, spec: Mapping[str, object], info: ColumnInfo | None = None
    ) -> Column:
        """Returns the column with this spec, and creates it if it does not exist. Changes no other column.

        Args:
            kind: "regions" or "targets".
            name: Name of the region plan or of the teacher.
            spec: Everything that the column's bytes depend on, except kind, name and data, which the store
                adds.
            info: Facts for people, which are not part of the column's key.
        """
        return self.make(self.column(kind, name, spec, info))

    def make(self, column: Column) -> Column:
        """Writes the column.json of a column that `column` returned, if it does not exist."""
        url = fs.join(column.url, "column.json")
        if not fs.exists(url):
            document: ColumnDocument = {"key": column.key, "spec": column.spec, "info": column.info}
            fs.write_atomic(url, canonical_json(document) + b"\n")
        return self.open_column(column.url)

    def columns(self, kind: str | None = None) -> list[Column]:
        """Returns the region and target columns, sorted by folder name.

        Args:
            kind: "regions" or "targets"; None for both.
        """
        urls = [
            fs.join(self.root, k, folder)
            for k in ("regions", "targets")
            if kind in (None, k)
            for folder in fs.listdir(fs.join(self.root, k))
        ]
        found = []
        for url in urls:
            # A folder without a description is no column, and asking first would be one request more.
            with suppress(FileNotFoundError, NotADirectoryError):
                found.append(self.open_column(url))
        return found

    def find(self, kind: str, name: str) -> Column:
        """Finds a column by name.

        Args:
            kind: "regions" or "targets".
            name: Name of a region plan or a teacher, NAME or NAME-ID.

        Returns:
            The column.

        Raises:
            DenseCLIError: There is no such column, or more than one. The hint lists the choice.
        """
        columns = self.columns(kind)
        found = [c for c in columns if name in (c.name, c.full_name)]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(c.full_name for c in (found or columns)) or "none"
        raise DenseCLIError(
            f"The store at {fs.shown(self.root)} has {len(found) or 'no'} {kind} columns named {name!r}.",
            hint=f"Give one of these: {listed}." if found else f"Build it first; the store has: {listed}.",
        )

    def regions_of(self, target: Column) -> Column:
        """Returns the region column that a target column is about.

        For a map, which holds for any boxes, this is the only region column of the store.

        Raises:
            DenseCLIError: The region column is missing, or there are several to choose from.
        """
        columns = self.columns("regions")
        wanted = target.regions_key
        if wanted is None and len(columns) == 1:
            return columns[0]
        if wanted is None:
            raise DenseCLIError(
                f"The column {target.name} holds for any boxes, and the store at {fs.shown(self.root)} has "
                f"{len(columns) or 'no'} region plans.",
                hint="Read it together with a column that was made for one of them.",
            )
        for column in columns:
            if column.key == wanted:
                return column
        raise DenseCLIError(
            f"The store at {fs.shown(self.root)} lacks the "
            f"regions {short_id(wanted)} of its column {target.name}.",
            hint="Run its build-shards command again: it makes what is missing.",
        )

    def open_column(self, url: str) -> Column:
        """Opens the column in a folder with a column.json.

        Raises:
            DenseCLIError: The column was edited, renamed, or made for another store.
            FileNotFoundError: There is no column.json.
        """
        try:
            document = parse(fs.read_bytes(fs.join(url, "column.json")))
            check(document, ColumnReadable)
        except ValueError as error:
            raise DenseCLIError(
                f"{url}/column.json is damaged: {error}.",
                hint="Restore it, or delete the folder and build the column again.",
            ) from error
        column = Column(url=url, spec=document["spec"], info=document["info"], shard_names=self.shard_names)
        if column.key != document["key"] or not url.endswith(column.id):
            raise DenseCLIError(
                f"{url}/column.json does not hash to the id in its folder's name.",
                hint="It was edited or the folder renamed: restore it, or delete the folder and build again.",
            )
        if column.computed:
            # Raises if it cannot be.
            _ = column.grids
        data = column.spec["data"]
        if data["canvas"] != self.canvas:
            raise DenseCLIError(
                f"The column {url} was made for canvas {data['canvas']}, not this store's {self.canvas}.",
                hint="Delete the folder and build the column here: cached maps cannot be resized.",
            )
        if data != self.data:
            raise DenseCLIError(
                f"The column {url} was made for another data set or another division into shards.",
                hint="Move it back to the store it came from, or delete it and build it here.",
            )
        return column


def shard_name(number: int) -> str:
    """Name of the shard with this number, from 0."""
    return f"{number:06d}"


def _short(value: Any) -> str:
    text = canonical_json(value).decode()
    return text if len(text) < 120 else f"{text[:117]}..."
