"""The file of a Refiner's own weights, which says whose Refiner it is and what it consists of."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors import safe_open

from densecli.core.documents import check, parse
from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import WeightsInfo, load_strictly, seeded
from densecli.models.refiner import Refiner, RefinerShape, make_refiner
from densecli.models.state_dict import read_state_dict
from densecli.models.student import load_student
from densecli.models.weights import random_seed, weights_file

WEIGHTS = "refiner.safetensors"
"""Name of the file in the folder of a run's export."""
METADATA = "refiner"
"""Key in the file's metadata of the JSON of `card_of`."""
VERSION = 2
"""Version of the network. Version 1 had a single linear layer as FC_Inter, and pooled [CLS] after it."""


class _Card(TypedDict):
    """`card_of`, of any version."""

    clip: str
    depth: int
    layers: list[int]
    hidden: int
    version: NotRequired[int]
    fc_inter: NotRequired[bool]
    fc_cls: NotRequired[bool]
    exogenous: NotRequired[bool]
    late: NotRequired[bool]
    pacl: NotRequired[bool]


def load_refiner(name: str, weights: str | None, refiner: str, device: str | torch.device = "cpu") -> Refiner:
    """Loads the Refiner of a model, in eval mode.

    Args:
        name: Name of the model, a CLIP or a VFM.
        weights: The model's, see `load_student`.
        refiner: The Refiner's own, a file that train-refiner wrote or random:SEED.
        device: Where the model is put.

    Raises:
        DenseCLIError: The file is no Refiner's, that of an earlier version, or that of another model.
    """
    encoder, info = load_student(name, weights, device)
    seed = random_seed(refiner)
    if seed is not None:
        return seeded(lambda: make_refiner(encoder), seed)
    file = weights_file(refiner)
    card = read_card(str(file))
    if card["clip"] != info.sha256:
        raise DenseCLIError(
            f"The Refiner {refiner} was trained with other weights of {name} than {info.source}.",
            hint="Give the weights that it was trained with, or train another with densecli train-refiner.",
        )
    fields = {key: card[key] for key in RefinerShape.__dataclass_fields__ if key in card}
    shape = RefinerShape(**{**fields, "layers": tuple(card["layers"])})
    model = seeded(lambda: make_refiner(encoder, shape), 0)
    state = {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}
    load_strictly(model, state | read_state_dict(file), name=f"the Refiner of {name}", source=refiner)
    return model


def default_run(model: str, store: str) -> str:
    """Folder of the run of train-refiner, if none is given, for an architecture and the root of a store."""
    return f"runs/refiner-{model}-{Path(store).name}"


def card_of(refiner: Refiner, info: WeightsInfo) -> dict[str, Any]:
    """The metadata of a Refiner's file; info: the source of the network's weights."""
    return {
        "version": VERSION,
        "clip": info.sha256,
        "architecture": refiner.encoder.arch.name,
        **asdict(refiner.shape),
    }


def read_card(path: str) -> Mapping[str, Any]:
    """Reads the metadata of a Refiner's file. Raises DenseCLIError for other files and earlier versions."""
    if not Path(path).is_file():
        raise DenseCLIError(f"There is no Refiner {path}.", hint="Train it with densecli train-refiner.")
    try:
        with safe_open(path, framework="pt") as file:
            found = parse(file.metadata()[METADATA].encode())
        check(found, _Card)
    except Exception as error:  # of safetensors, json or the look-ups
        raise DenseCLIError(
            f"{path} is not a Refiner.", hint="Give the export/refiner.safetensors of a train-refiner run."
        ) from error
    if found.get("version") != VERSION:
        raise DenseCLIError(
            f"The Refiner {path} is of version {found.get('version', 1)}, not {VERSION}: in version 1, "
            "FC_Inter was one linear layer, and the [CLS] of a region was pooled after it.",
            hint="Train it anew with densecli train-refiner; columns that it has made stay usable.",
        )
    card: Mapping[str, Any] = found
    return card
