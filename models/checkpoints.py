"""Finds and loads weights of CLIPs in any published format. Loading is strict and never unpickles objects."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.dense import DenseCLIP
from densecli.models.hugging_face import from_hugging_face, is_hugging_face
from densecli.models.registry import build, resolve
from densecli.models.state_dict import read_state_dict, unwrap
from densecli.models.weights import located, random_seed, weights_file, weights_sha256

Renames = tuple[tuple[str, str], ...]
Network = TypeVar("Network", bound=nn.Module)

# Pairs of (their name, open_clip's name); ^ marks the beginning of a key. The reversed pairs undo a renaming.
# timm's own filter renames the same keys, but silently resamples positions of another resolution.
EVA_CLIP: Renames = (
    ("^visual.", "^visual.trunk."),
    (".attn.q_bias", ".attn.q_proj.bias"),
    (".attn.v_bias", ".attn.v_proj.bias"),
    (".attn.inner_attn_ln.", ".attn.norm."),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.w3.", ".mlp.fc2."),
    (".mlp.ffn_ln.", ".mlp.norm."),
)
PLAIN_TEXT: Renames = tuple(
    (f"^{part}", f"^text.{part}")
    for part in ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")
)
# Constants in checkpoints that the network computes itself, and OpenAI's three integers.
_NOT_WEIGHTS = re.compile(r"(^|\.)rope\.freqs_(cos|sin)$|^(input_resolution|context_length|vocab_size)$")


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """The source of loaded weights.

    Attributes:
        source: A path, `random:SEED`, or the address of a file on the hub; see `densecli.models.weights`.
        sha256: Digest of the file, or of the random values, in hex.
        random: Whether the weights are random.
    """

    source: str
    sha256: str
    random: bool


def load_model(
    name: str, weights: str | None = None, device: str | torch.device = "cpu"
) -> tuple[DenseCLIP, WeightsInfo]:
    """Loads a CLIP with its weights, in eval mode. Leaves torch's random state as it was.

    Args:
        name: A model's name or alias.
        weights: See `densecli.models.weights.located`.
        device: Where the model is put.

    Returns:
        The model, and where its weights are from.

    Raises:
        DenseCLIError: There is no such model, no weights file, or the file does not fit the model.
    """
    arch, weights = resolve(name), located(name, weights)
    seed = random_seed(weights)
    if seed is not None:
        model = seeded(partial(build, arch), seed)
        info = WeightsInfo(source=weights, sha256=values_sha256(model.clip), random=True)
    else:
        path = weights_file(weights)
        state = read_state_dict(path)
        model = seeded(partial(build, arch), 0)
        load_weights(model, state, source=str(path))
        info = WeightsInfo(source=weights, sha256=weights_sha256(weights), random=False)
    return model.to(device), info


def load_weights(
    model: DenseCLIP, weights: str | Path | Mapping[str, Any], *, source: str = "The checkpoint"
) -> None:
    """Loads a checkpoint into a model: every tensor of it, or none.

    Args:
        model: The model.
        weights: A file or a state dict, wrapped or not, with the names of EVA-CLIP (also CLIPSelf, DenseVLM
            and DeCLIP), OpenAI, OpenCLIP or Hugging Face's CLIPModel.
        source: What error messages call the weights.

    Raises:
        DenseCLIError: Tensors are missing, unexpected or of another shape; the message gives the first names
            as the file has them.
    """
    if isinstance(weights, str | Path):
        source, weights = str(weights), read_state_dict(weights)
    else:
        weights = unwrap(weights, source)
    if is_hugging_face(weights):
        weights = from_hugging_face(weights)
    renames = _renames(weights, model.clip.state_dict())
    state = {rename(key, renames): value for key, value in weights.items() if not _NOT_WEIGHTS.search(key)}
    if model.own_weights.isdisjoint(state):
        initial = model.clip.state_dict()
        state |= {name: initial[name] for name in model.own_weights}
    load_strictly(model.clip, state, name=model.arch.name, source=source, theirs=inverse(renames))


def load_strictly(
    network: nn.Module, state: Mapping[str, Any], *, name: str, source: str, theirs: Renames = ()
) -> None:
    """Loads every tensor of a state dict into a network, or none; see `load_weights`.

    Args:
        network: The network.
        state: Tensors by the network's own names.
        name: What error messages call the network.
        source: What error messages call the weights.
        theirs: Renames from the network's names to those in the file, for error messages.
    """
    expected = network.state_dict()
    wrong = {
        "missing": [rename(key, theirs) for key in expected if key not in state],
        "unexpected": [rename(key, theirs) for key in state if key not in expected],
        "of another shape": [
            f"{rename(key, theirs)} {_shape(value)} for {_shape(expected[key])}"
            for key, value in state.items()
            if key in expected and _shape(value) != _shape(expected[key])
        ],
    }
    if any(wrong.values()):
        problems = "; ".join(f"{len(keys)} {what} ({_first(keys)})" for what, keys in wrong.items() if keys)
        raise DenseCLIError(
            f"{source} does not fit {name}: {problems}.",
            hint="Nothing was loaded: the file is incomplete or has the weights of another architecture.",
        )
    network.load_state_dict(state)


def rename(key: str, renames: Renames) -> str:
    """Applies every pair to a key."""
    key = f"^{key}"
    for old, new in renames:
        key = key.replace(old, new)
    return key[1:]


def inverse(renames: Renames) -> Renames:
    """The pairs that undo these."""
    return tuple((new, old) for old, new in renames)


def values_sha256(network: nn.Module, without: str | None = None) -> str:
    """sha256 of the names and values of a network, in hex, leaving out the part called `without`."""
    # Of the values, because the same seed may give others in another release of torch.
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        if without is None or not key.startswith(f"{without}."):
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()


def _renames(state: Iterable[str], expected: Iterable[str]) -> Renames:
    state, expected = set(state), set(expected)
    below_blocks, below_text = (
        [any(key.startswith(part) for key in keys) for keys in (state, expected)]
        for part in ("visual.blocks.", "text.")
    )
    # A plug-in's network may have blocks of that name itself.
    eva = EVA_CLIP if below_blocks == [True, False] else ()
    if below_text == [False, True]:
        return eva + PLAIN_TEXT
    if below_text == [True, False]:
        return eva + inverse(PLAIN_TEXT)
    return eva


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """Calls `build` with torch's random generator at `seed`, and restores the generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def _shape(value: Any) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")
