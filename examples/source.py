"""A data set: the photos in a zip archive, read where it is."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources import Decoded, Item, Source, SourceRequest
from densecli.pipeline.sources.base import files_source
from densecli.pipeline.sources.photos import decode
from densecli.shards.datasets import DATASETS, Dataset
from densecli.shards.geometry import Canvas


@dataclass(frozen=True, kw_only=True)
class ZipLoader:
    """Loads a photo from the archive. It is sent to workers, so it holds the path alone."""

    path: str

    def __call__(self, item: Item, canvas: Canvas) -> Decoded:
        with zipfile.ZipFile(self.path) as archive:
            return decode(archive.read(item.ref), upright=True, canvas=canvas)


def zip_source(request: SourceRequest) -> Source:
    """Lists the photos of the archive `request.data`, those in the folder `request.split` if there is one."""
    if not Path(request.data).is_file():
        raise DenseCLIError(f"There is no archive {request.data}.", hint="Give it with --data FILE.zip.")
    with zipfile.ZipFile(request.data) as archive:
        sizes = {
            member.filename: member.file_size
            for member in archive.infolist()
            if member.filename.lower().endswith((".jpg", ".jpeg", ".png"))
            and member.filename.startswith(f"{request.split}/" if request.split else "")
        }
    if not sizes:
        raise DenseCLIError(f"{request.data} holds no photo.", hint="Photos end in .jpg, .jpeg or .png.")
    return files_source("zip", request.split, sizes, request.limit, ZipLoader(path=request.data))


DATASETS.add("zip", Dataset(source=zip_source), help="Photos in a zip archive.")
