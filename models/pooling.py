"""Region embeddings from a dense map: boxes by RoIAlign, masks by a weighted mean."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from densecli.shards.geometry import Canvas


def region_pool(dense: Tensor, boxes: Tensor, batch_index: Tensor, *, normalize: bool = True) -> Tensor:
    """Pools boxes by RoIAlign to 1x1 on the token grid, as CLIPSelf, DenseVLM and DeCLIP do.

    Args:
        dense: (B, D, h, w) dense maps.
        boxes: (R, 4) xyxy normalised to the canvas.
        batch_index: (R,) which map each box belongs to.
        normalize: Whether to scale the result to unit norm.

    Returns:
        (R, D) float32. RoIAlign has scale 1, adaptive sampling (-1), and is aligned.
    """
    pooled = _roi_align(dense, boxes, batch_index, 1)[:, :, 0, 0]
    return F.normalize(pooled, dim=1) if normalize else pooled


def region_tokens(dense: Tensor, boxes: Tensor, batch_index: Tensor, side: int | tuple[int, int]) -> Tensor:
    """Samples a grid of tokens in each box by RoIAlign.

    This is linear in the map. So if X = F V^T with orthonormal V, the tokens of F have the same correlations
    as those of X.

    Args:
        dense: (B, D, h, w) dense maps.
        boxes: (R, 4) xyxy normalised to the canvas.
        batch_index: (R,) which map each box belongs to.
        side: Side of the grid, or its (height, width).

    Returns:
        (R, side * side, D) float32, not normalised.
    """
    return _roi_align(dense, boxes, batch_index, side).flatten(2).transpose(1, 2)


def _roi_align(dense: Tensor, boxes: Tensor, batch_index: Tensor, side: int | tuple[int, int]) -> Tensor:
    """(B, D, h, w), (R, 4), (R,) -> float32 (R, D, side, side), or (R, D, *side)."""
    dense = dense.float()
    height, width = dense.shape[-2:]
    left, top, right, bottom = boxes.to(dense).unbind(dim=1)
    # Python numbers scale the boxes: a tensor of them would make the GPU wait for its copy.
    rois = torch.stack(
        [batch_index.to(dense), left * width, top * height, right * width, bottom * height], dim=1
    )
    found: Tensor = roi_align(dense, rois, side, spatial_scale=1.0, sampling_ratio=-1, aligned=True)
    return found


def mask_pool(dense: Tensor, masks: Tensor, counts: Sequence[int], *, normalize: bool = True) -> Tensor:
    """Pools masks by the weighted mean of their tokens, sum(feature * mask) / sum(mask).

    Args:
        dense: (B, D, h, w) dense maps.
        masks: (R, h, w) bool, or weights such as the share of each token's cell that a mask covers; those of
            the first map, then those of the second, and so on.
        counts: How many masks belong to each of the B maps. Numbers on the CPU, so that nobody waits for a
            GPU to count.
        normalize: Whether to scale the result to unit norm.

    Returns:
        (R, D) float32; zeros for a mask without tokens.
    """
    tokens, weights = dense.float().flatten(2).transpose(1, 2), masks.float().flatten(1)
    # One image at a time: a copy of the map for every region would take R * D * h * w numbers.
    each = zip(weights.split(list(counts)), tokens.unbind(), strict=True)
    sums = torch.cat([of_map @ of_tokens for of_map, of_tokens in each])
    pooled = sums / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return F.normalize(pooled, dim=1) if normalize else pooled


def token_masks(masks: np.ndarray, tokens: int) -> Tensor:
    """Resizes the masks of a photo to the token grid of its canvas.

    The masks are resized like the photo (longest side to `tokens`) and padded at the right and the bottom. A
    token belongs to a mask if its bicubic value is above 0, as in the released code of CLIPSelf.

    Args:
        masks: (N, H, W) bool of the photo's size.
        tokens: Side of the token grid.

    Returns:
        (N, tokens, tokens) bool.
    """
    width, height = Canvas(tokens).fit(masks.shape[2], masks.shape[1])
    values = torch.from_numpy(masks).float()[:, None]
    # The released code relied on a default of `antialias` that torchvision has changed since. It matters: the
    # antialiasing filter is wider than a token, so that `> 0` includes neighbours that the segment does not
    # touch (1.5 times as many tokens on 50 photos of COCO val2017 at 32 x 32); without it, a tenth of the
    # segments vanish.
    values = F.interpolate(values, size=(height, width), mode="bicubic", align_corners=False, antialias=False)
    return F.pad(values[:, 0] > 0, (0, tokens - width, 0, tokens - height))
