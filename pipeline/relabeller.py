"""The relabeller: makes the labels of a shard from its features or crops."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.prefetch import Stopped
from densecli.core.stage_timer import StageTimer
from densecli.models.pooling import mask_pool, region_pool
from densecli.pipeline.shard_builder import build_regions
from densecli.pipeline.teachers.labels import encode_labels, retrieve
from densecli.pipeline.unit import Report, Unit
from densecli.shards.codecs import Arrays, Errors, Features, TopK, combine_errors
from densecli.shards.joined import read_joined
from densecli.shards.kinds import KINDS
from densecli.shards.receipts import Receipt
from densecli.shards.regions import GridPlan, ProposalPlan, Regions
from densecli.shards.store import Column
from densecli.shards.writer import ShardWriter, npz_bytes


@dataclass(frozen=True, kw_only=True)
class Relabeller:
    """Builds units of labels. Nothing has to be loaded: every worker uses a copy.

    Attributes:
        images: The column of photos.
        plan: The region plan, if the column of boxes may not be finished.
        regions: The column of boxes.
        features: The finished column of features or crops.
        labels: The column to fill.
        codec: Codec of the labels.
        text: Text embeddings (D, C) float32, unit norm.
        tau: Softmax temperature.
        device: Always the CPU.
    """

    images: Column
    plan: GridPlan | ProposalPlan | None
    regions: Column
    features: Column
    labels: Column
    codec: TopK
    text: np.ndarray
    tau: float
    device: str = "cpu"

    def builder(self, threads: int = 1) -> "Relabeller":
        """Returns itself."""
        return self

    def build(self, unit: Unit, stop: Event | None = None) -> Report:
        """Makes the labels of the unit's shard, and its boxes if they are missing.

        Raises:
            Stopped: `stop` was set.
        """
        seconds = Counter[str]()
        if self.plan and not self.regions.has(unit.shard):
            seconds.update(build_regions(self.plan, self.images, self.regions, unit.shard).seconds)
        receipt = self._build_labels(unit.shard, stop or Event())
        seconds.update(receipt.seconds)
        return Report(shard=unit.shard, samples=receipt.samples, skipped={}, seconds=dict(seconds))

    def _build_labels(self, shard: str, stop: Event) -> Receipt:
        writer, timer, errors = ShardWriter(self.labels, shard), StageTimer(), list[Errors]()
        photos = [self.images] if self.regions.computed else []
        records = read_joined([*photos, self.features, self.regions], shard)
        features = self.features.receipt(shard)
        assert features
        for record in records:
            if stop.is_set():
                raise Stopped
            with timer("decode"):
                stored = record.arrays(self.features.part)
                found = record.regions()
            with timer("retrieve"):
                regions, max_norm = self.embeddings(stored, found, features.error)
                p = retrieve(F.normalize(regions, dim=1), torch.from_numpy(self.text), self.tau).numpy()
            with timer("encode"):
                arrays, error = encode_labels(self.codec, p)
                # Of crops, the views that were cropped.
                data = npz_bytes({**arrays, **({"views": stored["views"]} if "views" in stored else {})})
            writer.add(record.key, {"npz": data})
            errors.append({**error, "max_cosine": cosine_error(regions, max_norm)})
        return writer.commit(seconds=timer.seconds, error=combine_errors(errors))

    def embeddings(self, stored: Arrays, found: Regions, error: Mapping[str, float]) -> tuple[Tensor, float]:
        """Returns the embeddings of a photo's regions, (N, C), not normalised, and a bound on an error.

        Args:
            stored: The photo's features or crops as stored; of crops, those of the stored views alone.
            found: The N regions, which features are pooled over.
            error: Figures of the shard's receipt.
        """
        if KINDS[self.features.target_kind].layout == "map":
            return self.pool(stored, found), error["max_norm"]
        crops = torch.from_numpy(self.features.codec.decode(stored))
        return crops, error["max_abs"] * crops.shape[1] ** 0.5

    def pool(self, stored: Arrays, found: Regions) -> Tensor:
        """Pools a photo's features over its regions, as the P-VLM itself would.

        Pooling is linear in the map, so it can pool the factor, with r numbers for a token instead of C.

        Args:
            stored: The photo's features as stored.
            found: The N regions.

        Returns:
            (N, C).
        """
        map_codec = self.features.codec
        assert isinstance(map_codec, Features)
        factor, basis = map(torch.from_numpy, map_codec.factors(stored))
        dense = factor.T.reshape(1, -1, *stored["grid"])
        if found.masks:
            height, width = dense.shape[-2:]
            masks = torch.from_numpy(found.coverage((height, width)))
            return mask_pool(dense, masks, [len(masks)], normalize=False) @ basis
        of_image = torch.zeros(len(found.boxes), dtype=torch.long)
        return region_pool(dense, torch.tensor(found.boxes), of_image, normalize=False) @ basis


def cosine_error(regions: Tensor, max_norm: float) -> float:
    """Returns a bound on the error of the cosine between any region and any text.

    The unit vectors of a and b differ by at most 2 |a - b| / (|a| + |b|) (Dunkl and Williams, 1964).

    Args:
        regions: (N, C), not normalised.
        max_norm: Largest norm of a token's error, and so of the error of any mean of tokens.
    """
    norms = regions.norm(dim=1)
    bound = 2 * max_norm / torch.maximum(2 * norms - max_norm, norms)
    return float(bound.clamp(max=2).max()) if len(regions) else 0.0
