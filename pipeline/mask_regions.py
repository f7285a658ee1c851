"""Masks as regions of a shard: read from the annotations of its photos, counted, and written."""

import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Any

from densecli.core.prefetch import prefetch
from densecli.core.stage_timer import StageTimer
from densecli.pipeline.sources import Item, LoadMasks, Unreadable
from densecli.pipeline.unit import Unit, at_photo
from densecli.shards.codecs import Errors, combine_errors
from densecli.shards.geometry import Canvas
from densecli.shards.mask_plan import MaskCounts, MaskPlan
from densecli.shards.receipts import Receipt
from densecli.shards.regions import Regions
from densecli.shards.segmentation import PhotoMasks
from densecli.shards.store import Column
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter, npz_bytes

AHEAD = 64
"""Photos whose masks are read before they are written."""


@dataclass(frozen=True, kw_only=True)
class MaskRegions:
    """Writes shards of masks.

    Attributes:
        plan: The region plan.
        canvas: Canvas of the store.
        load: Reads the annotations.
    """

    plan: MaskPlan
    canvas: Canvas
    load: LoadMasks

    def build(
        self, unit: Unit, images: Column, regions: Column, pool: ThreadPoolExecutor, stop: Event
    ) -> tuple[Receipt, MaskCounts]:
        """Writes the unit's shard of regions. The photos are not read, but their annotations.

        Args:
            unit: The shard and its photos.
            images: The column of photos.
            regions: The column to write.
            pool: Reads annotations.
            stop: Ends the build once it is set.

        Raises:
            Stopped: `stop` was set.
        """
        writer, timer = ShardWriter(regions, unit.shard), StageTimer()
        items = {item.key: item for item in unit.items}

        def made(sample: tuple[str, Mapping[str, Any]]) -> tuple[str, bytes, MaskCounts]:
            key, members = sample
            with at_photo(key), timer("encode"):
                found, counts = self._made(items[key], json.loads(members["json"]))
                return key, npz_bytes(found.arrays), counts

        total, means = MaskCounts(), list[Errors]()
        samples = read_shard(images, unit.shard)
        for key, data, counts in prefetch(made, samples, threads=pool, window=AHEAD, stop=stop):
            writer.add(key, {"npz": data})
            means.append(counts.means)
            total += counts
        return writer.commit(seconds=timer.seconds, error=combine_errors(means)), total

    def _made(self, item: Item, about: Mapping[str, Any]) -> tuple[Regions, MaskCounts]:
        try:
            annotated = self.load(item)
        except Unreadable as reason:
            annotated = PhotoMasks(malformed=Counter({f"all of a photo ({reason})": 1}))
        return self.plan.of_photo(about, annotated, self.canvas)


def told(counts: Mapping[str, Any]) -> str:
    """What became of the masks of a build, in a sentence. `counts`: `MaskCounts.document`."""
    left_out = ", ".join(f"{reason}: {n}" for reason, n in sorted(counts["left_out"].items()))
    return (
        f"Masks: {counts['masks']} in {counts['photos']} photos; photos on grids for want of masks: "
        f"{counts['on_grids']}; masks left out: {left_out or 'none'}"
    )
