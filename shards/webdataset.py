"""Joined columns as the first stage of somebody's own webdataset pipeline."""

from collections.abc import Iterator, Sequence
from typing import Any

from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.reader import StoreReader


class JoinedSamples:
    """A source for `wds.DataPipeline`: samples with the fields `__key__` and `PART.EXTENSION` (`images.jpg`,
    `regions.npz`, `vitl14.npz`), as bytes, which `wds.decode` knows by their extension.

    Every process and every DataLoader worker gets a part of the epoch, together all of it once. `epoch` and
    `start`, the position in it, may be set between epochs; see `StoreReader.iter`.
    """

    def __init__(
        self, columns: Sequence[Column], *, seed: int = 0, shuffle: bool = True, cache: Cache | None = None
    ) -> None:
        """Raises DenseCLIError as `StoreReader`."""
        self.reader = StoreReader(columns, seed=seed, shuffle=shuffle, cache=cache)
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return len(self.reader)

    def __call__(self) -> Iterator[dict[str, Any]]:
        # It loads torch, which the store does without.
        from webdataset.utils import pytorch_worker_info

        rank, world_size, worker, workers = pytorch_worker_info()
        share = {"rank": rank * workers + worker, "world_size": world_size * workers}
        for record in self.reader.iter(self.epoch, self.start, **share):
            members = {
                f"{part}.{extension}": bytes(data)
                for part, files in record.parts.items()
                for extension, data in files.items()
            }
            yield {"__key__": record.key, **members}
