"""The unit of work of relabel: one shard's labels out of its features."""

from collections import Counter
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.prefetch import Stopped
from densecli.core.stage_timer import StageTimer
from densecli.models.pooling import region_pool
from densecli.pipeline.shard_builder import Report, Unit, build_regions
from densecli.pipeline.teachers.labels import encode_labels, retrieve
from densecli.shards.codecs import Arrays, Errors, Features, TopK, combine_errors
from densecli.shards.reader import decode_npz, read_joined
from densecli.shards.receipts import Receipt
from densecli.shards.regions import RegionPlan
from densecli.shards.store import Column
from densecli.shards.writer import ShardWriter, npz_bytes


@dataclass(frozen=True, kw_only=True)
class Relabeller:
    """Builds units, and is its own builder in every worker.

    plan: of the regions, where their column may not be whole. map_codec, codec: of the features and of the
    labels. text: (D, C) float32, unit norm. tau: the softmax temperature.
    """

    images: Column
    plan: RegionPlan | None
    regions: Column
    features: Column
    labels: Column
    map_codec: Features
    codec: TopK
    text: np.ndarray
    tau: float
    device: str = "cpu"

    def builder(self, threads: int = 1) -> "Relabeller":
        return self

    def build(self, unit: Unit, stop: Event | None = None) -> Report:
        """The labels of the unit's shard, and its regions where they are missing. Raises Stopped soon after
        `stop` is set."""
        seconds = Counter[str]()
        if self.plan and not self.regions.has(unit.shard):
            seconds.update(build_regions(self.plan, self.images, self.regions, unit.shard).seconds)
        receipt = self._build_labels(unit.shard, stop or Event())
        seconds.update(receipt.seconds)
        return Report(shard=unit.shard, samples=receipt.samples, skipped={}, seconds=dict(seconds))

    def _build_labels(self, shard: str, stop: Event) -> Receipt:
        writer, clock, errors = ShardWriter(self.labels, shard), StageTimer(), list[Errors]()
        records = read_joined([self.features, self.regions], shard)
        features = self.features.receipt(shard)
        assert features
        for record in records:
            if stop.is_set():
                raise Stopped
            with clock("decode"):
                stored = decode_npz(record.parts[self.features.part]["npz"])
                boxes = decode_npz(record.parts["regions"]["npz"])["boxes"]
            with clock("retrieve"):
                regions = self.pool(stored, boxes)
                p = retrieve(F.normalize(regions, dim=1), torch.from_numpy(self.text), self.tau).numpy()
            with clock("encode"):
                arrays, error = encode_labels(self.codec, p)
                data = npz_bytes(arrays)
            writer.add(record.key, {"npz": data})
            errors.append({**error, "max_cosine": cosine_error(regions, features.error["max_norm"])})
        return writer.commit(seconds=clock.seconds, error=combine_errors(errors))

    def pool(self, stored: Arrays, boxes: np.ndarray) -> Tensor:
        """A photo's features and boxes (N, 4) -> RoIAlign of its map, (N, C).

        It is linear in the map, so that the r numbers a token of the factor are pooled and not the map's C.
        """
        factor, basis = map(torch.from_numpy, self.map_codec.factors(stored))
        dense = factor.T.reshape(1, -1, *stored["grid"])
        of_image = torch.zeros(len(boxes), dtype=torch.long)
        return region_pool(dense, torch.from_numpy(boxes), of_image, normalize=False) @ basis


def cosine_error(regions: Tensor, max_norm: float) -> float:
    """How far the cosine of any of the regions (N, C), as RoIAlign gives them, with any text may be off.

    max_norm: of the error of a token, hence of a mean of tokens. The unit vectors of a and b differ by at
    most 2 |a - b| / (|a| + |b|) (Dunkl and Williams, 1964).
    """
    norms = regions.norm(dim=1)
    off = 2 * max_norm / torch.maximum(2 * norms - max_norm, norms)
    return float(off.clamp(max=2).max()) if len(regions) else 0.0
