"""The card of an exported model: json beside its weights that says what they are and how to read them."""

import json
from pathlib import Path
from typing import Any

from densecli.core.errors import DenseCLIError

WEIGHTS = "student.safetensors"
CARD = "card.json"
"""What a run leaves in its folder export/."""


def card_path(weights: str | Path) -> Path:
    """Where the card of an exported file is: x.pt has x.card.json, and a run's WEIGHTS have CARD."""
    weights = Path(weights)
    return weights.with_name(CARD) if weights.name == WEIGHTS else weights.with_suffix(".card.json")


def read_card(weights: str | Path) -> dict[str, Any] | None:
    """The card of an exported file, None where there is none."""
    path = card_path(weights)
    return json.loads(path.read_bytes()) if path.is_file() else None


def run_export(run: str | Path) -> tuple[Path, dict[str, Any]]:
    """The weights and the card of the student that a finished run exported. Raises DenseCLIError."""
    weights = Path(run) / "export" / WEIGHTS
    # A Refiner's run leaves a card too, beside weights of another name.
    for path in (card_path(weights), weights):
        if not path.is_file():
            raise DenseCLIError(
                f"There is no exported student in {run}: no {path}.",
                hint="Let densecli train finish, or name the folder of a finished run.",
            )
    return weights, json.loads(card_path(weights).read_bytes())
