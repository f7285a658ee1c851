"""Networks and their weights. Other programs load a trained student with `densecli.load`."""

from pathlib import Path
from typing import TYPE_CHECKING

from densecli.core.addresses import expanded
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
    """Loads an exported student for use in other programs.

    Args:
        path: An exported weights file, or the folder of a finished run.
        student: Name of the model. By default it is read from the model card; a file without a card needs it.
        mode: How the last block is read out. By default the mode in the model card, else "value".
        canvas: Side in pixels of the square that photos are fitted into. By default that of the model card,
            else 512.
        device: "auto", "cpu", "cuda" or any other torch device.

    Returns:
        An encoder that turns photos into embeddings.

    Raises:
        DenseCLIError: The file does not hold a complete student, or nothing says which model it is.
    """
    # Imported here because other modules of this package must load without torch.
    from densecli.core.device import pick_device
    from densecli.models.encoder import Encoder
    from densecli.models.model_card import read_card, run_export
    from densecli.models.student import load_student

    path = Path(expanded(path))
    weights, card = run_export(path) if path.is_dir() else (path, read_card(path) or {})
    name = student or card.get("student")
    if name is None:
        raise DenseCLIError(
            f"There is no model card beside {path} that says which model it is.",
            hint="Name the model, such as student='eva02-b16'.",
        )
    model, _ = load_student(name, str(weights), pick_device(device))
    return Encoder(
        model,
        canvas=canvas or card.get("image_size") or 512,
        mode=mode or card.get("mode") or "value",
        card=card,
    )
