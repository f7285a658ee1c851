"""A read-out with weights of its own: values of several layers, with a learnt weight for each head.

Our reading of DenseRC (CVPR 2026) by its abstract: dense features come from the values of several layers, and
heads differ in what they are worth. A weight w_lh for each head h of the last layers l scales that head's
values, which then pass the layer's own output projection, as on their way into the residual stream:

    tokens = value path of the last block + sum over l of W_l [w_l1 v_l1, ..., w_lH v_lH]

All w are 0 at first, so that the student begins as CLIPSelf reads it out, mode `value`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecli.core.registry import registry
from densecli.models.architecture import Architecture
from densecli.models.registry import FAMILIES, MODELS
from densecli.models.vit import DenseViT

MODE = "layers"
LAYERS = 3
"""How many blocks before the last one are read, or as many as there are."""


class LayerValuesViT(DenseViT):
    """A ViT with the mode `layers`; its weights w are `clip.visual.value_weights`, (layers, heads)."""

    modes = (*DenseViT.modes, MODE)
    own_weights = frozenset({"visual.value_weights"})

    def __init__(self, clip: Any, arch: Architecture) -> None:
        super().__init__(clip, arch)
        *body, last = self.blocks()
        weights = torch.zeros(min(LAYERS, len(body)), last.attn.num_heads)
        clip.visual.value_weights = nn.Parameter(weights)

    def dense_and_context(self, images: Tensor, mode: str = "value") -> tuple[Tensor, dict[str, Tensor]]:
        if mode != MODE:
            return super().dense_and_context(images, mode)
        x, grid = self._embed(images)
        *body, last = self.blocks()
        weights: Tensor = self.clip.visual.value_weights
        added = torch.zeros_like(x)
        for number, block in enumerate(body):
            if (place := number - (len(body) - len(weights))) >= 0:
                _, _, v = self._qkv(block, x)
                weighted = (v * weights[place, :, None, None]).transpose(1, 2).flatten(2)
                added = added + F.linear(weighted, block.attn.out_proj.weight)
            x = self._checkpointed(self._run, block, x, None)
        x = self._checkpointed(self._value_path, last, x) + added
        return F.normalize(self._to_map(self._head(x), grid).float(), dim=1), {}

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        unread = [] if mode == MODE else ["clip.visual.value_weights"]
        return [*super()._frozen_parts(mode), *unread]


FAMILIES.add("layer-values", LayerValuesViT, help="A ViT that can read the values of several layers.")
for name in ("vit-b16", "scenes-s"):
    values = replace(MODELS[name], name=f"{name}-values", family="layer-values", aliases=())
    MODELS.add(values.name, values, help=f"{name} with the read-out --mode {MODE}.")
registry("ablations").add("examples", Path(__file__).parent, help="Ablations of the examples.")
