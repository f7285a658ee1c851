"""Finds the shard of a sample by its key."""

from contextlib import closing

from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.shards.key_index import shards_with
from densecli.shards.manifest import read_manifest
from densecli.shards.receipts import Receipt
from densecli.shards.store import Store

_THREADS, _WINDOW = 16, 64


def find_shard(store: Store, key: str) -> str:
    """The name of the shard that holds a key.

    Takes three requests if the photos have a manifest: for it, for a part of the index of the keys, and for
    the receipt of the shard. Otherwise reads receipts until one lists the key.

    Raises:
        DenseCLIError: There is no such sample, or its shard is not built yet.
    """
    images, names = store.images, store.shard_names
    manifest = read_manifest(images)
    if manifest is None or manifest.keys_index is None:
        shards = names
    else:
        found = shards_with(
            images.url,
            key,
            samples=int(manifest.samples.sum()),
            shards=len(names),
            digest=manifest.keys_index,
        )
        # If no shard holds the key, the first one has others to name.
        filled = manifest.samples.nonzero()[0]
        shards = tuple(names[i] for i in (found or filled[:1]))
    others: list[str] = []
    with closing(prefetch(images.receipt, shards, threads=_THREADS, window=_WINDOW)) as receipts:
        for receipt in receipts:
            if receipt and f"{key}.jpg" in receipt.members:
                return receipt.shard
            if receipt and len(others) < 3:
                others += _keys(receipt)
    raise DenseCLIError(
        f"The store at {store.root} has no sample {key}.",
        hint=f"Its samples are called {', '.join(others[:3])}, ..." if others else "Build it first.",
    )


def _keys(receipt: Receipt) -> list[str]:
    return [name.removesuffix(".jpg") for name in receipt.members if name.endswith(".jpg")][:3]
