"""Model cards: the JSON file beside exported weights that says what they are and how to read them."""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from densecli.core.documents import read_document
from densecli.core.errors import DenseCLIError

WEIGHTS = "student.safetensors"
CARD = "card.json"
"""Files of a run's folder export/."""


def card_path(weights: str | Path) -> Path:
    """The path of an exported file's card: x.card.json for x.pt, and CARD for a run's WEIGHTS."""
    weights = Path(weights)
    return weights.with_name(CARD) if weights.name == WEIGHTS else weights.with_suffix(".card.json")


def read_card(weights: str | Path) -> dict[str, Any] | None:
    """Reads the card of an exported file; None if there is none. Raises DenseCLIError for a damaged one."""
    path = card_path(weights)
    return _read(path) if path.is_file() else None


def run_export(run: str | Path) -> tuple[Path, dict[str, Any]]:
    """The weights and the model card that a finished run exported.

    Args:
        run: Folder of the run, its folder export/, or any exported file.

    Raises:
        DenseCLIError: There are none.
    """
    run = Path(run)
    folder = run if (run / WEIGHTS).is_file() else run / "export"
    weights = run if run.is_file() else folder / WEIGHTS
    # A Refiner's run has a card too, but weights of another name.
    for path in (card_path(weights), weights):
        if not path.is_file():
            raise DenseCLIError(
                f"There is no exported student in {run}: {path} does not exist.",
                hint="Let densecli train finish, or give the folder of a finished run.",
            )
    return weights, _read(card_path(weights), _RunCard)


class _Weights(TypedDict):
    source: str
    sha256: NotRequired[str]


class _Card(TypedDict, total=False):
    """The optional entries of a card that readers use."""

    student: str | None
    mode: str | None
    image_size: int | None


class _RunCard(TypedDict):
    """The entries that the card of a run must have."""

    student: str
    mode: str
    image_size: int
    random_weights: bool
    initial_weights: _Weights


def _read(path: Path, of: Any = _Card) -> dict[str, Any]:
    hint = "Export the weights again, with densecli export."
    card: dict[str, Any] = read_document(path, of, noun="The model card", hint=hint)
    return card
