"""Networks. `models.load` is what other programs need of them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.encoder import Encoder


def load(
    path: str | Path,
    *,
    student: str | None = None,
    mode: str | None = None,
    canvas: int | None = None,
    device: str = "auto",
) -> "Encoder":
    """An exported student, by its file or the folder of its run; see `models.encoder.load_encoder`."""
    # Imported here: other modules of this package are for those that do without torch.
    from models.encoder import load_encoder

    return load_encoder(path, student=student, mode=mode, canvas=canvas, device=device)
