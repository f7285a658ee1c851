"""Loads weights of vision foundation models, with the names of timm or of their publisher."""

from collections.abc import Mapping
from typing import Any

import torch

from densecli.models.checkpoints import load_strictly, seeded
from densecli.models.state_dict import read_state_dict
from densecli.models.vfm import VFM, build_vfm
from densecli.models.vfms import find_vfm
from densecli.models.weights import random_seed, weights_file


def load_vfm(name: str, weights: str, device: str | torch.device = "cpu") -> VFM:
    """Loads a VFM with its weights, in eval mode.

    Args:
        name: A registered name, or timm/NAME for a ViT of timm.
        weights: As `densecli.models.weights.located` gives them; a file has the names of timm or of its
            publisher.
        device: Where the model is put.

    Raises:
        DenseCLIError: The name is unknown, or the file does not fit; the message names the tensors.
    """
    arch, seed = find_vfm(name), random_seed(weights)
    model = seeded(lambda: build_vfm(arch), seed or 0)
    if seed is None:
        state = _timm_layout(read_state_dict(weights_file(weights)))
        published = model.net.pretrained_cfg
        if published.get("num_classes"):
            # The classifier is not used.
            state = {key: t for key, t in state.items() if not key.startswith(f"{published['classifier']}.")}
        load_strictly(model.net, state, name=name, source=weights)
    return model.to(device)


def _timm_layout(state: Mapping[str, Any]) -> dict[str, Any]:
    """Renames a state dict of facebookresearch's dinov2 or segment-anything to timm's names."""
    sam = "image_encoder."
    if any(key.startswith(sam) for key in state):
        # The prompt encoder and the mask decoder are not used.
        encoder = {key.removeprefix(sam): value for key, value in state.items() if key.startswith(sam)}
        return {key.replace("mlp.lin", "mlp.fc"): value for key, value in encoder.items()}
    # DINOv2 needs the mask token only in pre-training.
    state = {key: value for key, value in state.items() if key != "mask_token"}
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return state
