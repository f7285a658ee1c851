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
        path: An exported weights file, the folder of a finished run, or the name of a model, whose weights
            are those that the commands take without --weights.
        student: Name of the model. By default it is read from the model card; a file without a card needs it.
        mode: How the last block is read out. By default the mode in the model card, else "value".
        canvas: Side in pixels of the square that photos are fitted into. By default that of the model card,
            else that of the named model, else 512.
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
    from densecli.models.registry import MODELS
    from densecli.models.student import load_student

    named = str(path)
    path = Path(expanded(path))
    if student is None and named in MODELS and not path.exists():
        model, _ = load_student(named, None, pick_device(device))
        side = canvas or MODELS[named].canvas
        return Encoder(model, canvas=side, mode=mode or "value", card={})
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
