"""The layout of a store: one dataset on one canvas, cut into shards, each teacher's targets a column."""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.geometry import RESAMPLE
from densecli.shards.keys import canonical_json, column_key, short_id
from densecli.shards.receipts import Receipt

FORMAT_VERSION = 1

# How every photo of a store is made. It stands in store.json, so that photos made otherwise never mix.
# decode: a JPEG is decoded at the smallest of its scales that is this many times the resized photo. At 2 the
# stored photo differs from that of a full decode by less than its own compression does; at 1 by more.
PHOTOS: dict[str, Any] = {"codec": "jpeg", "decode": 2, "quality": 95, "resample": RESAMPLE.name.lower()}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One thing said of every sample, in a folder of shards: `key` is the hash of `spec`, not of `info`."""

    url: str
    spec: dict[str, Any]
    shard_names: tuple[str, ...]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """images, regions or targets."""
        return self.spec["kind"]

    @property
    def name(self) -> str:
        """images, the region plan, or the teacher."""
        return self.spec["name"]

    @property
    def key(self) -> str:
        return column_key(self.spec)

    @property
    def id(self) -> str:
        return short_id(self.key)

    @property
    def part(self) -> str:
        """Where a joined record keeps this column: "images", "regions" or the teacher's name."""
        return self.name if self.kind == "targets" else self.kind

    def tar_url(self, shard: str) -> str:
        return fs.join(self.url, f"{shard}.tar")

    def receipt_url(self, shard: str) -> str:
        return fs.join(self.url, f"{shard}.json")

    def receipt(self, shard: str) -> Receipt | None:
        """The shard's receipt, or None where the shard was never finished. Raises DenseCLIError at damage."""
        url = self.receipt_url(shard)
        try:
            receipt = Receipt.from_json(fs.read_bytes(url))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DenseCLIError(
                f"The receipt {url} is damaged.",
                hint="Delete it and run the build again: it redoes this shard only.",
            ) from error
        if (receipt.column, receipt.shard) != (self.key, shard):
            raise DenseCLIError(
                f"The receipt {url} is of shard {receipt.shard} of column {short_id(receipt.column)}, "
                f"not of {shard} of {self.id}.",
                hint="It was copied here from elsewhere: delete it and its tar, and run the build again.",
            )
        return receipt

    def has(self, shard: str) -> bool:
        """Whether the shard is built."""
        return all(fs.exists(fs.join(self.url, name)) for name in _files(shard))

    def missing(self) -> list[str]:
        """Shards still to be built. One listing of the folder, where `has` would ask for every file."""
        names = set(fs.listdir(self.url))
        return [shard for shard in self.shard_names if not names.issuperset(_files(shard))]

    @property
    def complete(self) -> bool:
        return not self.missing()


@dataclass(frozen=True, kw_only=True)
class Store:
    """A folder with store.json: the dataset's identity, the canvas, the samples planned for every shard, and
    how the photos were made."""

    root: str
    dataset: dict[str, Any]
    canvas: int
    shard_sizes: tuple[int, ...]
    photos: dict[str, Any] = field(default_factory=lambda: dict(PHOTOS))

    @classmethod
    def create(cls, root: str | os.PathLike, dataset: dict, canvas: int, shards: list[int]) -> "Store":
        """Make the store at `root`, or open it where it is the same; `shards` are the samples planned.

        Raises DenseCLIError when a store of another dataset, canvas or cut is there, or one whose photos were
        made otherwise.
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
            ("cut into shards", found.shard_sizes, wanted.shard_sizes),
            ("way of making photos", found.photos, wanted.photos),
        ):
            if canonical_json(old) != canonical_json(new):
                raise DenseCLIError(
                    f"The store at {found.root} has another {what}: {_short(old)}, not {_short(new)}.",
                    hint="Ask for what it was made with, or write to another store (--store).",
                )
        return found

    @classmethod
    def open(cls, root: str | os.PathLike) -> "Store":
        """Raises DenseCLIError when there is no store at `root`, or one of another format version."""
        fs.check(os.fspath(root))
        url = fs.join(root, "store.json")
        try:
            document = json.loads(fs.read_bytes(url))
            version = document["format"]
            if version == FORMAT_VERSION:
                return cls(
                    root=os.fspath(root),
                    dataset=document["dataset"],
                    canvas=document["canvas"],
                    shard_sizes=tuple(document["shards"]),
                    photos=document["photos"],
                )
        except FileNotFoundError as error:
            raise DenseCLIError(
                f"There is no store at {os.fspath(root)}.",
                hint="Build one with densecli build-shards, or name another with --store.",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DenseCLIError(
                f"{url} is not a store's description: it is damaged.",
                hint="Restore it, or build into an empty folder.",
            ) from error
        raise DenseCLIError(
            f"The store at {os.fspath(root)} has format version {version}, not {FORMAT_VERSION}.",
            hint="Read it with the densecli that wrote it, or build it again.",
        )

    def document(self) -> dict:
        """What store.json holds."""
        return {
            "format": FORMAT_VERSION,
            "dataset": self.dataset,
            "canvas": self.canvas,
            "shards": list(self.shard_sizes),
            "photos": self.photos,
        }

    @property
    def shard_names(self) -> tuple[str, ...]:
        return tuple(f"{i:06d}" for i in range(len(self.shard_sizes)))

    @property
    def data(self) -> dict:
        """What ties a column to this store: the canvas, and the sha256 of store.json's canonical JSON."""
        return {"canvas": self.canvas, "store": column_key(self.document())}

    @property
    def images(self) -> Column:
        """The photos; their key follows from store.json alone, so they need no column.json."""
        spec = {"kind": "images", "name": "images", "data": self.data}
        return Column(url=fs.join(self.root, "images"), spec=spec, shard_names=self.shard_names)

    def column(self, kind: str, name: str, spec: dict, info: dict | None = None) -> Column:
        """The column that `add_column` would make; nothing is read or written."""
        full = {**spec, "kind": kind, "name": name, "data": self.data}
        if len(full) != len(spec) + 3:
            raise ValueError("spec uses a name that the store fills in: kind, name or data")
        # Through JSON and back, so that a column just made equals the same one opened later.
        full = json.loads(canonical_json(full))
        column_id = short_id(column_key(full))
        folder = column_id if kind == "regions" else f"{fs.file_name(name)}-{column_id}"
        url = fs.join(self.root, kind, folder)
        return Column(url=url, spec=full, info=info or {}, shard_names=self.shard_names)

    def add_column(self, kind: str, name: str, spec: dict, info: dict | None = None) -> Column:
        """The column of this very spec, made where it is not there yet; `info` is not part of its key.

        `kind` is "regions" or "targets". Nothing of another column is touched. `spec` must not use the names
        kind, name and data, which the store fills in itself.
        """
        return self.make(self.column(kind, name, spec, info))

    def make(self, column: Column) -> Column:
        """The column of `column`, as `add_column`."""
        url = fs.join(column.url, "column.json")
        if not fs.exists(url):
            document = {"key": column.key, "spec": column.spec, "info": column.info}
            fs.write_atomic(url, canonical_json(document) + b"\n")
        return self.open_column(column.url)

    def columns(self, kind: str | None = None) -> list[Column]:
        """Every region and target column, or those of one kind, by folder name."""
        urls = [
            fs.join(self.root, k, folder)
            for k in ("regions", "targets")
            if kind in (None, k)
            for folder in fs.listdir(fs.join(self.root, k))
        ]
        return [self.open_column(url) for url in urls if fs.exists(fs.join(url, "column.json"))]

    def find(self, kind: str, name: str) -> Column:
        """The one column of a kind called `name` or `name`-`id`. Raises DenseCLIError at none or several."""
        columns = self.columns(kind)
        found = [c for c in columns if name in (c.name, f"{c.name}-{c.id}")]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(f"{c.name}-{c.id}" for c in (found or columns)) or "none"
        raise DenseCLIError(
            f"The store at {self.root} has {len(found) or 'no'} {kind} columns named {name!r}.",
            hint=f"Name one of these: {listed}." if found else f"Build it first; the store has: {listed}.",
        )

    def regions_of(self, target: Column) -> Column:
        """The regions column that a target column was made for, or the only one where it holds for any boxes.

        Raises DenseCLIError where it is gone, and where there are several to choose from.
        """
        columns = self.columns("regions")
        wanted = target.spec.get("regions")
        if wanted is None and len(columns) == 1:
            return columns[0]
        if wanted is None:
            raise DenseCLIError(
                f"The column {target.name} holds for any boxes, and the store at {self.root} has "
                f"{len(columns) or 'no'} region plans.",
                hint="Read it beside a column that was made for one of them.",
            )
        for column in columns:
            if column.key == wanted:
                return column
        raise DenseCLIError(
            f"The store at {self.root} lacks the regions {short_id(wanted)} of its column {target.name}.",
            hint="Run its build-shards command again: it makes what is missing.",
        )

    def open_column(self, url: str) -> Column:
        """The column in a folder with a column.json. Raises DenseCLIError where it is not this store's."""
        try:
            document = json.loads(fs.read_bytes(fs.join(url, "column.json")))
            column = Column(
                url=url, spec=document["spec"], info=document["info"], shard_names=self.shard_names
            )
            genuine = column.key == document["key"] and url.endswith(column.id)
            data = column.spec["data"]
        except (ValueError, KeyError, TypeError):
            genuine = False
        if not genuine:
            raise DenseCLIError(
                f"{url}/column.json does not hash to the id in its folder's name.",
                hint="It was edited or the folder renamed: restore it, or delete the folder and build again.",
            )
        if data["canvas"] != self.canvas:
            raise DenseCLIError(
                f"The column {url} was made for canvas {data['canvas']}, not this store's {self.canvas}.",
                hint="Delete the folder and build the column here: cached maps cannot be resized.",
            )
        if data != self.data:
            raise DenseCLIError(
                f"The column {url} was made for another dataset or another cut into shards.",
                hint="Move it back to the store it came from, or delete it and build it here.",
            )
        return column


def _files(shard: str) -> tuple[str, str]:
    """What is in a column's folder where the shard exists."""
    return f"{shard}.tar", f"{shard}.json"


def _short(value: Any) -> str:
    text = canonical_json(value).decode()
    return text if len(text) < 120 else f"{text[:117]}..."
