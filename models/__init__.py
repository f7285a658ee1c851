"""Networks. `models.load` is what other programs need of them."""

from pathlib import Path
from typing import TYPE_CHECKING

from densecli.core.errors import DenseCLIError

if TYPE_CHECKING:
    from densecli.models.encoder import Encoder


def load(
    path: str | Path,
    *,
    student: str | None = None,
    mode: str | None = None,
    canvas: int | None = None,
    device: str = "auto",
) -> "Encoder":
    """An exported file, or the folder of a finished run, in the mode and at the size that its card says.

    student, mode, canvas: in place of the card's; a file without a card needs the first, and is read in
    `value` at 512 pixels. Raises DenseCLIError for a file that holds no whole student.
    """
    # Imported here: other modules of this package are for those that do without torch.
    from densecli.core.device import pick_device
    from densecli.models.encoder import Encoder
    from densecli.models.model_card import read_card, run_export
    from densecli.models.student import load_student

    path = Path(path)
    weights, card = run_export(path) if path.is_dir() else (path, read_card(path) or {})
    name = student or card.get("student")
    if name is None:
        raise DenseCLIError(
            f"There is no card beside {path} that says which model it is.",
            hint="Name it: student='eva02-b16'.",
        )
    model, _ = load_student(name, str(weights), pick_device(device))
    return Encoder(
        model,
        canvas=canvas or card.get("image_size") or 512,
        mode=mode or card.get("mode") or "value",
        card=card,
    )
