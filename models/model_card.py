"""Model cards: the JSON file beside exported weights that says what they are and how to read them."""

import json
from pathlib import Path
from typing import Any

from densecli.core.errors import DenseCLIError

WEIGHTS = "student.safetensors"
CARD = "card.json"
"""Files of a run's folder export/."""


def card_path(weights: str | Path) -> Path:
    """The path of an exported file's card: x.card.json for x.pt, and CARD for a run's WEIGHTS."""
    weights = Path(weights)
    return weights.with_name(CARD) if weights.name == WEIGHTS else weights.with_suffix(".card.json")


def read_card(weights: str | Path) -> dict[str, Any] | None:
    """Reads the card of an exported file; None if there is none."""
    path = card_path(weights)
    return json.loads(path.read_bytes()) if path.is_file() else None


def run_export(run: str | Path) -> tuple[Path, dict[str, Any]]:
    """The weights and the model card that a finished run exported. Raises DenseCLIError if there are none."""
    weights = Path(run) / "export" / WEIGHTS
    # A Refiner's run has a card too, but weights of another name.
    for path in (card_path(weights), weights):
        if not path.is_file():
            raise DenseCLIError(
                f"There is no exported student in {run}: {path} does not exist.",
                hint="Let densecli train finish, or give the folder of a finished run.",
            )
    return weights, json.loads(card_path(weights).read_bytes())
