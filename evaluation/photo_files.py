"""Photos in files, without annotations."""

import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import read_photo
from densecli.core.tables import plain
from densecli.evaluation.panoptic import AnnotatedPhoto, PanopticDataset

log = logging.getLogger(__name__)

NAMED = 3
"""So many photos that cannot be read are named."""


class PhotoFiles:
    """The first readable ones of some photos, turned upright. `photos[i]` reads photo i."""

    def __init__(self, paths: Sequence[Path], limit: int) -> None:
        """Looks for photos that can be read.

        Args:
            paths: Files of photos.
            limit: Number of photos to keep.

        Raises:
            DenseCLIError: None of the photos can be read.
        """
        self.unreadable: list[str] = []
        """Why each photo that cannot be read is left out, in a sentence."""
        self._paths: list[Path] = []
        for path in paths:
            if len(self._paths) == limit:
                break
            try:
                _read(path)
            except DenseCLIError as error:
                self.unreadable.append(plain(str(error), 240))
            else:
                self._paths.append(path)
        if not self._paths:
            raise DenseCLIError(_none(self.unreadable), hint="Give --data photos, or folders that hold some.")
        if self.unreadable:
            log.warning("%s", self.left_out)

    @property
    def left_out(self) -> str:
        """How many photos are left out, with the first reasons; empty if there are none."""
        if not self.unreadable:
            return ""
        count = len(self.unreadable)
        said = "1 photo is" if count == 1 else f"{count} photos are"
        more = " ..." if count > NAMED else ""
        return f"{said} left out. {' '.join(self.unreadable[:NAMED])}{more}"

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> AnnotatedPhoto:
        return AnnotatedPhoto(key=self._paths[i].name, photo=_read(self._paths[i]), segments=())


def _none(unreadable: Sequence[str]) -> str:
    """That there is no photo, and why the first that cannot be read is none."""
    if not unreadable:
        return "There is no photo."
    others = f"None of the {len(unreadable)} photos can be read. " if len(unreadable) > 1 else ""
    return others + unreadable[0]


def _read(path: Path) -> Image.Image:
    return read_photo(path, "Give another photo.", turned=True)


Photos = PanopticDataset | PhotoFiles
"""Photos, annotated or not."""
