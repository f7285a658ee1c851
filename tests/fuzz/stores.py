"""Stores of strangers: receipts, descriptions and members that were changed, with and without right sums."""

import json
import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.shards import key_index
from densecli.shards.codecs import TopK
from densecli.shards.find_shard import find_shard
from densecli.shards.gc import garbage
from densecli.shards.info import describe
from densecli.shards.joined import read_joined
from densecli.shards.keys import canonical_json, column_key, short_id
from densecli.shards.lint import lint
from densecli.shards.manifest import manifest_url, read_manifest
from densecli.shards.npz import decode_npz, npz_bytes
from densecli.shards.receipt_totals import publish
from densecli.shards.receipts import Receipt
from densecli.shards.store import Column, Store
from densecli.shards.writer import ShardWriter, jpg_bytes
from densecli.train.dataloader import Loader
from densecli.train.trainer_config import LoaderConfig

from .frame import Target
from .inputs import mutated, mutated_value

SHARD = "000000"
PHOTO = jpg_bytes(Image.fromarray(np.arange(32 * 24 * 3, dtype=np.uint8).reshape(24, 32, 3)))
CODEC = TopK(things=(True, False, True), k=2)
P = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32)
MEMBERS: dict[str, dict[str, bytes]] = {
    "images": {"jpg": PHOTO, "json": b'{"height":24,"width":32}'},
    "regions": {
        "npz": npz_bytes(
            {"boxes": np.array([[0, 0, 1, 1], [0, 0, 0.5, 1]], np.float32), "offsets": np.array([0, 2])}
        )
    },
    "targets": {"npz": npz_bytes(CODEC.encode(P)[0])},
}


def build(root: Path, change: Callable[[str, bytes], bytes] = lambda _, data: data) -> None:
    """A store of two photos, each of whose members `change` may replace."""
    store = Store.create(root, {"name": "x", "split": "", "digest": "0", "n": 2}, 32, [2])
    regions = store.add_column("regions", "grid-paper", {"plan": "grid"})
    spec = {"regions": regions.key, "target": {"name": "labels"}, "codec": CODEC.spec}
    for column in (store.images, regions, store.add_column("targets", "v", spec)):
        writer = ShardWriter(column, SHARD)
        for key in ("a", "b"):
            members = MEMBERS[column.kind].items()
            writer.add(key, {name: change(f"{column.kind}/{key}.{name}", data) for name, data in members})
        writer.commit()
        # How long it took is no part of an input, which follows from its seed.
        receipt = Path(column.receipt_url(SHARD))
        document = {
            **json.loads(receipt.read_bytes()),
            "run": {"gpu_seconds": 0.5, "seconds": {"write": 0.25}},
        }
        receipt.write_bytes(canonical_json(document))
        publish(column)


@cache
def files() -> dict[str, bytes]:
    """The files of an unchanged store."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        found = {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*.*")}
    return {str(name): data for name, data in sorted(found.items())}


# Now: what writes them in an input's turn would count as that input's.
files()


def use(root: Path) -> None:
    """Everything that reads a store."""
    list(lint(Store.open(root)))
    store = Store.open(root)
    describe(store)
    garbage(store, runs=str(root / "runs"), min_age=0)
    targets, regions = store.find("targets", "v"), store.columns("regions")[0]
    loader = Loader(store, regions, {"labels": targets}, LoaderConfig(batch_size=2, workers=0))
    assert sum(len(batch.keys) for batch in loader.batches(0)) == len(loader)
    records = read_joined([store.images, regions, targets], SHARD)
    assert {record.key: bytes(record.parts["images"]["jpg"]) for record in records} == dict.fromkeys(
        "ab", PHOTO
    )


def try_documents(rng: random.Random, folder: Path) -> None:
    """A store with a changed JSON file; where it matters, with the sums that a stranger can make right."""
    for name, data in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    name = rng.choice([name for name in files() if name.endswith(".json")])
    data = files()[name]
    if rng.random() < 0.3:
        (folder / name).write_bytes(mutated(rng, data))
    else:
        changed = mutated_value(rng, json.loads(data), rng.choice((1, 1, 2)))
        (folder / name).write_bytes(json.dumps(changed).encode())
        if rng.random() < 0.5 and isinstance(changed, dict):
            _right_sums(folder, name, changed)
    use(folder)


def _right_sums(folder: Path, name: str, changed: dict[str, Any]) -> None:
    path = folder / name
    if path.name == "column.json" and isinstance(changed.get("spec"), dict):
        try:
            key = column_key(changed["spec"])
        except ValueError:  # it has numbers that JSON does not have
            return
        path.write_bytes(json.dumps({**changed, "key": key}).encode())
        stem = path.parent.name.rpartition("-")
        path.parent.rename(path.parent.with_name(f"{stem[0]}{stem[1]}{short_id(key)}"))
    elif path.name == f"{SHARD}.json":
        changed.pop("digest", None)
        path.write_bytes(json.dumps(changed).encode())


def try_members(rng: random.Random, folder: Path) -> None:
    """A store whose sums are right and whose members are not what they should be."""
    chosen = rng.choice(
        [f"{kind}/{key}.{name}" for kind in MEMBERS for key in "ab" for name in MEMBERS[kind]]
    )

    def change(name: str, data: bytes) -> bytes:
        if name != chosen:
            return data
        if not name.endswith(".npz") or rng.random() < 0.3:
            return mutated(rng, data)
        arrays = {"offsets": ODD, "boxes": ODD, "count": ODD, "ids": ODD, "p": ODD, "rest": ODD}
        odd = {each: rng.choice(values) for each, values in arrays.items() if rng.random() < 0.4}
        kept = MEMBERS["regions" if "regions" in name else "targets"]["npz"]
        return npz_bytes({**decode_npz(kept), **odd})

    build(folder, change)
    for column in Store.open(folder).columns():
        _read_receipt(column)
    try:
        use(folder)
    except AssertionError:
        # A photo that was changed before its sum was made is another photo.
        assert chosen.startswith("images")


def try_manifests(rng: random.Random, folder: Path) -> None:
    """A store with a changed manifest or index of keys; where it matters, with the sums made right."""
    for name, data in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    store = Store.open(folder)
    column = rng.choice([store.images, *store.columns()])
    path = Path(manifest_url(column))
    sound = read_manifest(column)
    assert sound is not None
    match rng.randrange(3):
        case 0:
            path.write_bytes(mutated(rng, path.read_bytes()))
        case 1:
            odd = {
                "samples": np.array([rng.choice((0, 1, 3, 2**31 - 1, -1))], np.int32),
                "tar_bytes": np.array([rng.choice((0, -1, 2**62))]),
                "keys_digest": np.zeros((1, 32), np.uint8),
                "totals": mutated_value(rng, sound.totals),
            }
            changed = {name: value for name, value in odd.items() if rng.random() < 0.4}
            try:
                path.write_bytes(replace(sound, **changed).to_parquet(column.key))
            except (ValueError, TypeError):  # what JSON cannot hold
                return
        case _:
            index = folder / "images" / key_index.FILE
            index.write_bytes(mutated(rng, index.read_bytes()))
    for key in ("a", "zz"):
        with suppress(DenseCLIError):
            assert find_shard(store, key) == SHARD and key == "a"
    use(folder)


def _read_receipt(column: Column) -> None:
    receipt = column.receipt(SHARD)
    assert receipt is not None and Receipt.from_json(receipt.to_json()) == receipt
    assert canonical_json(column.spec)


ODD = (
    np.zeros(0, np.int32), np.array(7), np.array([0, 10**15]), np.array([0, -1, 2]), np.array([np.nan] * 3),
    np.full((2, 4), np.inf, np.float32), np.array([0, 2], np.uint64), np.array(["a", "b"]), np.zeros((2, 2)),
    np.array([65535, 65535], np.uint16), np.zeros((0, 4), np.float32), np.ones((1, 4), np.float32),
)  # fmt: skip
"""Arrays that no writer of ours writes."""


TARGETS = (
    Target(name="store documents", try_one=try_documents, quick=60),
    Target(name="store manifests", try_one=try_manifests, quick=60),
    Target(name="store members", try_one=try_members, quick=40),
)
