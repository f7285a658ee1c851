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
        student: Name of the model, in place of the one in the model card. A file without a model card needs
            it.
        mode: How the last block is read out, in place of the model card's; "value" if neither says.
        canvas: Side in pixels of the square that photos are put on, in place of the model card's; 512 if
            neither says.
        device: "auto", "cpu", "cuda" or any other device of torch's.

    Returns:
        An encoder: photos in, embeddings out.

    Raises:
        DenseCLIError: The file holds no whole student, or nothing says which model it is.
    """
    # Imported here: other modules of this package are for those that do without torch.
    from densecli.core.device import pick_device
    from densecli.models.encoder import Encoder
    from densecli.models.model_card import read_card, run_export
    from densecli.models.student import load_student

    path = Path(expanded(path))
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
