"""Joined columns as the first stage of a webdataset pipeline."""

from collections.abc import Iterator, Sequence
from typing import Any

from densecli.core.documents import parse
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.joined import Record
from densecli.shards.reader import StoreReader


class JoinedSamples:
    """A source for `wds.DataPipeline`: samples as bytes, which `wds.decode` decodes by their extension.

    Their fields are `__key__` and `PART.EXTENSION`, such as `images.jpg`, `regions.npz` and `vitl14.npz`. The
    processes and their DataLoader workers share the epoch's samples: each has a lane of its own.

    Attributes:
        decode: Whether fields are decoded here: photos to (h, w, 3) uint8 RGB, .npz to arrays by name, .json
            to values, and a damaged one is told with its sample and its shard.
        epoch: May be set between epochs.
        start: Position in the epoch to begin at, see `StoreReader.iter`.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        seed: int = 0,
        shuffle: bool = True,
        cache: Cache | None = None,
        decode: bool = False,
    ) -> None:
        """See `StoreReader`, which raises the same errors."""
        self.decode = decode
        self.reader = StoreReader(columns, seed=seed, shuffle=shuffle, cache=cache)
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return len(self.reader)

    def __call__(self) -> Iterator[dict[str, Any]]:
        # Imported here: it loads torch, which the store does without.
        from webdataset.utils import pytorch_worker_info

        rank, world_size, worker, workers = pytorch_worker_info()
        readers, number = world_size * workers, rank * workers + worker
        self.reader.deal(readers)
        share = {"batch": 64 * readers, "rank": number, "world_size": readers}
        for record in self.reader.iter(self.epoch, self.start, **share):
            yield {"__key__": record.key, **(_decoded(record) if self.decode else _bytes(record))}


def _bytes(record: Record) -> dict[str, bytes]:
    return {
        f"{part}.{extension}": bytes(data)
        for part, files in record.parts.items()
        for extension, data in files.items()
    }


def _decoded(record: Record) -> dict[str, Any]:
    """Raises DenseCLIError for a damaged sample."""
    found: dict[str, Any] = {}
    for part, files in record.parts.items():
        for extension, data in files.items():
            with record.reading(part):
                if extension == "jpg":
                    found[f"{part}.jpg"] = record.image()
                elif extension == "npz":
                    found[f"{part}.npz"] = record.arrays(part)
                elif extension == "json":
                    found[f"{part}.json"] = parse(bytes(data))
                else:
                    found[f"{part}.{extension}"] = bytes(data)
    return found
