"""Batches of samples, and how they are made."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densecli.models.pooling import mask_pool, region_pool
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.targets import join


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples with R regions in total.

    Attributes:
        images: (B, 3, S, S) uint8 canvases.
        boxes: (R, 4) float32 xyxy, normalised to the canvas.
        batch_index: (R,) int64, the sample of each box.
        masks: (R, h, w) float16, the share of each of the student's tokens that a region covers; None where
            regions are pooled over their boxes.
        counts: Number of regions of each of the B samples.
        photos: (B, 4) float32 xyxy, the part of each canvas that its photo covers.
        targets: float32 by kind of target; see `TargetReader.read`. `labels` is the teacher's distribution,
            (R, D + 2); see `decoupled_kl`.
        keys: Keys of the B samples. Empty in a process that has no sample of its own in the last batch of an
            epoch; it computes another's with weight 0.
        epoch: Counted from 0.
    """

    images: Tensor
    boxes: Tensor
    batch_index: Tensor
    masks: Tensor | None = None
    counts: tuple[int, ...] = ()
    photos: Tensor
    targets: dict[str, Tensor]
    keys: tuple[str, ...]
    epoch: int

    def to(self, device: torch.device) -> "Batch":
        """Moves the batch to a device; a copy from the CPU to a GPU runs while the GPU computes."""

        def move(tensor: Tensor) -> Tensor:
            # Only pinned memory is copied while the GPU computes; what the GPU decoded is already there.
            tensor = tensor.pin_memory() if (tensor.device.type, device.type) == ("cpu", "cuda") else tensor
            return tensor.to(device, non_blocking=True)

        return Batch(
            # The permutation to planes is cheap only on the GPU.
            images=move(self.images).contiguous(),
            boxes=move(self.boxes),
            batch_index=move(self.batch_index),
            masks=None if self.masks is None else move(self.masks),
            counts=self.counts,
            photos=move(self.photos),
            targets={kind: move(target) for kind, target in self.targets.items()},
            keys=self.keys,
            epoch=self.epoch,
        )

    def pool(self, dense: Tensor) -> Tensor:
        """Pools the regions of dense maps (B, D, h, w), over their masks if they have some, else their boxes.

        Returns:
            (R, D) float32, unit norm.
        """
        if self.masks is None:
            return region_pool(dense, self.boxes, self.batch_index)
        return mask_pool(dense, self.masks, self.counts)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One decoded sample.

    Attributes:
        key: Its key.
        image: (S, S, 3) uint8 canvas, or the JPEG if a `JpegDecoder` decodes it later.
        boxes: (R, 4) float32 xyxy, normalised to the canvas.
        photo: (4,) float32 xyxy, the part of the canvas that the photo covers.
        masks: (R, h, w) float16; see `Batch`.
        targets: Targets by kind; see `TargetReader.read`.
    """

    key: str
    image: Any
    boxes: np.ndarray
    photo: np.ndarray
    masks: np.ndarray | None = None
    targets: dict[str, np.ndarray]


def make_batch(samples: list[Sample], epoch: int, photos: JpegDecoder | Tensor | None = None) -> Batch:
    """Makes a batch of B samples.

    Args:
        samples: The samples.
        epoch: Counted from 0.
        photos: The canvases of B samples or more, (., S, S, 3), by default those that the samples hold; or
            decodes them, if they are still JPEGs.
    """
    counts = tuple(len(sample.boxes) for sample in samples)
    masks = [sample.masks for sample in samples if sample.masks is not None]
    if photos is None:
        photos = torch.from_numpy(np.stack([sample.image for sample in samples]))
    if isinstance(photos, Tensor):
        images = photos[: len(samples)].permute(0, 3, 1, 2)
    else:
        images = photos([sample.image for sample in samples])
    return Batch(
        images=images,
        boxes=torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
        batch_index=torch.arange(len(samples)).repeat_interleave(torch.tensor(counts)),
        masks=torch.from_numpy(np.concatenate(masks)) if masks else None,
        counts=counts,
        photos=torch.from_numpy(np.stack([sample.photo for sample in samples])),
        targets={
            kind: torch.from_numpy(join([sample.targets[kind] for sample in samples]))
            for kind in samples[0].targets
        },
        keys=tuple(sample.key for sample in samples),
        epoch=epoch,
    )
