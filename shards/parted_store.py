"""Several stores read as one: the parts of a large data set, or the stores that a training joins."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypedDict, TypeVar, cast

import numpy as np
import xxhash

from densecli.core import fs
from densecli.core.documents import check, parse
from densecli.core.errors import DenseCLIError
from densecli.shards.column import Column
from densecli.shards.keys import canonical_json, column_key
from densecli.shards.parted_column import PartedColumn, ShardNames
from densecli.shards.specs import ColumnInfo, ColumnSpec, DatasetIdentity, DataSpec
from densecli.shards.store import PARTS, Store

JOIN = " + "
"""Stands between the addresses of stores that are read as one."""
FAN_OUT = 1000
"""Folders of parts in one folder."""
COMPARED = 20_000_000
"""Most keys that are compared to find those that occur twice."""
_FORMAT = 1
_THREADS = 16
# Entries of a column's spec that lead to a store or another column of it.
_LINKS = ("regions", "features")

T = TypeVar("T")
R = TypeVar("R")


class PartsDocument(TypedDict):
    """parts.json."""

    format: int
    dataset: dict[str, str]
    """`name` and `split`."""
    tars_per_part: int
    parts: int


class Twice(NamedTuple):
    """Keys that occur more than once: how many, and one of them. None: there are too many to compare."""

    number: int | None
    example: str = ""


def part_url(root: str, part: int) -> str:
    """The folder of a part: ROOT/parts/000/000123."""
    return fs.join(root, "parts", f"{part // FAN_OUT:03d}", f"{part:06d}")


def read_parts(root: str) -> PartsDocument | None:
    """The description of a store of parts; None if there is none.

    Raises:
        DenseCLIError: It is damaged, or has another format version.
    """
    url = fs.join(root, PARTS)
    try:
        document = parse(fs.read_bytes(url))
        check(document, PartsDocument)
        if document["format"] != _FORMAT or document["parts"] < 1:
            raise ValueError("its format or its number of parts is another")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DenseCLIError(
            f"{url} does not describe the parts of a store: {error}.",
            hint="Restore it, or read the parts below it one by one (--store).",
        ) from error
    found: PartsDocument = document
    return found


def write_parts(root: str, document: PartsDocument) -> None:
    """Writes or replaces the description of a store of parts."""
    fs.write_atomic(fs.join(root, PARTS), canonical_json(document) + b"\n")


def parts_of(store: Store) -> tuple[Store, ...]:
    """The parts of a store; a store without parts is its only one."""
    return store.parts if isinstance(store, PartedStore) else (store,)


def open_store(root: str | os.PathLike[str]) -> Store:
    """Opens a store, a store of parts, or several stores as one.

    Args:
        root: Folder or address of a store; or several with ` + ` between them.

    Raises:
        DenseCLIError: See `Store.open`; or the stores cannot be read as one.
    """
    root = os.fspath(root)
    if JOIN in root:
        return PartedStore.of(root, [open_store(each) for each in root.split(JOIN)])
    root = fs.expanded(root)
    fs.check(root)
    document = None if fs.exists(fs.join(root, "store.json")) else read_parts(root)
    if document is None:
        return Store.open(root)
    urls = [part_url(root, part) for part in range(document["parts"])]
    return PartedStore.of(root, _in_threads(Store.open, urls))


@dataclass(frozen=True, kw_only=True)
class PartedStore(Store):
    """Several stores read as one: a column is there if every part has it.

    Attributes:
        parts: The stores.
    """

    parts: tuple[Store, ...]

    @classmethod
    def of(cls, root: str | os.PathLike[str], stores: Sequence[Store]) -> "PartedStore":
        """Joins stores.

        Args:
            root: How they are called in messages.
            stores: The stores, of which one may itself have parts.

        Raises:
            DenseCLIError: They have other canvases, or store photos in other ways.
        """
        parts = tuple(part for store in stores for part in parts_of(store))
        first = parts[0]
        for part in parts:
            for what, one, other in (
                ("canvas", first.canvas, part.canvas),
                ("storage of photos", first.photos, part.photos),
            ):
                if one != other:
                    raise DenseCLIError(
                        f"{part.root} has another {what} than {first.root}: {other}, not {one}.",
                        hint="Only stores of one canvas can be read as one.",
                    )
        digest = column_key({"parts": [part.dataset for part in parts]})
        dataset: DatasetIdentity = {
            **first.dataset,
            "digest": digest,
            "n": sum(p.dataset["n"] for p in parts),
        }
        sizes = tuple(size for part in parts for size in part.shard_sizes)
        return cls(
            root=os.fspath(root),
            dataset=dataset,
            canvas=first.canvas,
            shard_sizes=sizes,
            photos=first.photos,
            parts=parts,
        )

    @cached_property
    def shard_names(self) -> Sequence[str]:
        """Names of all shards in order: 0/000000, 0/000001, ..., 1/000000, ..."""
        return ShardNames([len(part.shard_sizes) for part in self.parts])

    @cached_property
    def data(self) -> DataSpec:
        """The part of a column's spec that ties it to these stores."""
        return {"canvas": self.canvas, "store": column_key({"parts": [p.data["store"] for p in self.parts]})}

    @property
    def images(self) -> Column:
        """The column of photos."""
        spec = {"kind": "images", "name": "images", "data": self.data}
        return self._joined([part.images for part in self.parts], spec)

    def columns(self, kind: str | None = None) -> list[Column]:
        """Returns the region and target columns that every part has, sorted by name."""
        return [column for column in self._columns if kind in (None, column.kind)]

    @cached_property
    def _columns(self) -> list[Column]:
        found: defaultdict[str, dict[int, Column]] = defaultdict(dict)
        for part, columns in enumerate(_in_threads(lambda part: part.columns(), self.parts)):
            by_key = {column.key: column for column in columns}
            for column in columns:
                found[_identity(column, by_key)].setdefault(part, column)
        complete = {name: [*c.values()] for name, c in found.items() if len(c) == len(self.parts)}
        keys: dict[str, str] = {}
        joined = []
        # Those that others link to come first.
        first = {columns[0].key: columns[0] for columns in complete.values()}
        for columns in sorted(complete.values(), key=lambda c: _depth(c[0], first)):
            column = self._joined(columns, _relinked({**columns[0].spec, "data": self.data}, keys))
            keys[columns[0].key] = column.key
            joined.append(column)
        return sorted(joined, key=lambda column: column.full_name)

    def _joined(self, columns: Sequence[Column], spec: Mapping[str, Any]) -> PartedColumn:
        random = any(column.random_weights for column in columns)
        info: ColumnInfo = {**columns[0].info}
        if random:
            info["random_weights"] = True
        return PartedColumn(
            url=fs.join(self.root, columns[0].url.removeprefix(f"{self.parts[0].root}/")),
            spec=cast(ColumnSpec, spec),
            shard_names=self.shard_names,
            info=info,
            parts=tuple(columns),
        )

    def column(
        self, kind: str, name: str, spec: Mapping[str, object], info: ColumnInfo | None = None
    ) -> Column:
        """Raises DenseCLIError: columns are made in the parts."""
        raise self.several()

    def several(self) -> DenseCLIError:
        """The error for what is done to one store at a time."""
        return DenseCLIError(
            f"{self.root} is several stores, and this is done to each of them.",
            hint=f"Name one with --store, such as {self.parts[0].root}.",
        )

    def keys_twice(self) -> Twice:
        """Counts the photos whose key another photo of these stores has. Reads the receipts of the photos."""
        if self.dataset["n"] > COMPARED:
            return Twice(None)
        hashes: list[np.ndarray] = []
        names = [(part.images, shard) for part in self.parts for shard in part.shard_names]
        for keys in _in_threads(lambda each: _keys(*each), names):
            hashes.append(np.array([xxhash.xxh3_64_intdigest(key.encode()) for key in keys], np.uint64))
        values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]), return_counts=True)
        twice = values[counts > 1]
        if not len(twice):
            return Twice(0)
        shard = next(i for i, found in enumerate(hashes) if np.isin(found, twice).any())
        row = int(np.flatnonzero(np.isin(hashes[shard], twice))[0])
        return Twice(int((counts - 1)[counts > 1].sum()), _keys(*names[shard])[row])


def _keys(images: Column, shard: str) -> list[str]:
    receipt = images.receipt(shard)
    return list(dict.fromkeys(name.split(".", 1)[0] for name in receipt.members)) if receipt else []


def _identity(column: Column, by_key: Mapping[str, Column]) -> str:
    """What a column is, whatever its store: equal ones of several parts are one, stored or computed."""
    spec = {name: value for name, value in column.spec.items() if name not in ("data", "stored")}
    named = {key: _identity(by_key[key], by_key) for key in _links(spec) if key in by_key}
    return canonical_json(_relinked(spec, named)).decode()


def _links(spec: Mapping[str, Any]) -> list[str]:
    """Keys of the other columns that a spec names."""
    return [*(spec[link] for link in _LINKS if spec.get(link)), *spec.get("mixed", ())]


def _relinked(spec: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    """A spec that names other columns as `named` says."""
    found = {**spec, **{link: named.get(spec[link], spec[link]) for link in _LINKS if spec.get(link)}}
    if "mixed" in spec:
        found["mixed"] = {named.get(key, key): weight for key, weight in spec["mixed"].items()}
    return found


def _depth(column: Column, by_key: Mapping[str, Column]) -> int:
    """How many columns lie on the longest way through what a column is made of."""
    return 1 + max((_depth(by_key[key], by_key) for key in _links(column.spec) if key in by_key), default=0)


def _in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    with ThreadPoolExecutor(_THREADS, "parts") as pool:
        return list(pool.map(work, items))
