"""Attention weights of a ViT's blocks, which fused attention does not give."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Layer(NamedTuple):
    """What one block of a ViT does with an image.

    Attributes:
        tokens: (B, C, h, w), the patches after the block.
        attention: (B, N, N) float32 of N = prefix + h * w tokens, a row for each query; rows sum to 1. The
            mean over the block's heads, after the softmax (DeCLIP, Fig. 8).
    """

    tokens: Tensor
    attention: Tensor


def mean_attention(q: Tensor, k: Tensor) -> Tensor:
    """The softmax of q k^T / sqrt(d), averaged over heads.

    Args:
        q: (B, heads, N, d) queries, with positions if there are any.
        k: The keys alike.

    Returns:
        (B, N, N) float32.
    """
    total = torch.zeros(len(q), q.shape[2], k.shape[2], device=q.device)
    # Head by head: all of them at once take 800 MB where a ViT-B sees 1,024 px.
    for queries, keys in zip(q.float().unbind(1), k.float().unbind(1), strict=True):
        total += (queries @ keys.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return total / q.shape[1]


def timm_qkv(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, C) before a block of timm's ViT -> its q, k and v, (B, heads, N, d)."""
    attn = block.attn
    q, k, v = attn.qkv(block.norm1(x)).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return attn.q_norm(q), attn.k_norm(k), v
