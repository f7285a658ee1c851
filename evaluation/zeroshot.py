"""Image-level zero-shot classification: how much of CLIP's original ability dense training has kept.

A photo is prepared as CLIP does (short side resized to the pre-training side, centre crop; Radford et al.
2021) and gets the class whose text embedding is nearest to its image embedding.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.pictures import EXTENSIONS, read_photo
from densecli.core.tables import readable
from densecli.evaluation.batches import batches
from densecli.evaluation.panoptic import NEEDED, PanopticDataset
from densecli.evaluation.region_counts import require_finite
from densecli.models.dense import DenseCLIP
from densecli.shards.geometry import RESAMPLE

_WNID = re.compile(r"n\d{8}")


class FolderImages:
    """Photos in a folder for each class, ROOT/SPLIT/CLASS/ (or ROOT/CLASS/ without a split), as in ImageNet.

    The name of a class is that of its folder, with spaces for `_`. If there are 1,000 folders named by
    WordNet ids, the classes get the names that OpenAI uses for ImageNet.
    """

    def __init__(self, root: Path | str, split: str, limit: int | None = None) -> None:
        place = Path(root) / split
        place = place if place.is_dir() else Path(root)
        folders = sorted(path for path in place.glob("*") if path.is_dir())
        found = [
            (path, label)
            for label, folder in enumerate(folders)
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in EXTENSIONS
        ]
        if not found:
            raise DenseCLIError(
                f"There are no photos in class folders below {place}.",
                hint="Expected CLASS/PHOTO.jpg, as ImageNet's validation set is usually laid out.",
            )
        # Photos are sorted by class: the first N would all be of the first class.
        self._photos = found if limit is None else found[:: -(-len(found) // limit)]
        names = [folder.name for folder in folders]
        if len(names) == len(open_clip.IMAGENET_CLASSNAMES) and all(map(_WNID.fullmatch, names)):
            self.names = tuple(open_clip.IMAGENET_CLASSNAMES)
        else:
            self.names = tuple(readable(name).replace("_", " ") for name in names)

    @property
    def absent(self) -> int:
        """Nothing: there are no segments."""
        return 0

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        path, label = self._photos[i]
        return read_photo(path, NEEDED), label


class DominantThings:
    """A panoptic data set in which the class of a photo is the thing that covers most of it.

    The classes are all things of the category set. A photo without a thing has class -1 and does not count.
    """

    def __init__(self, dataset: PanopticDataset) -> None:
        self._dataset = dataset
        things = np.flatnonzero(dataset.categories.thing_flags())
        self.names = tuple(dataset.categories.names[c] for c in things)
        self._class = {int(c): i for i, c in enumerate(things)}

    @property
    def absent(self) -> int:
        """See `PanopticDataset.absent`."""
        return self._dataset.absent

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        found = self._dataset[i]
        areas = np.zeros(len(self.names), np.int64)
        for segment in found.segments:
            if segment.thing:
                areas[self._class[segment.category]] += segment.area
        return found.photo, int(areas.argmax()) if areas.any() else -1


Images = FolderImages | DominantThings


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """Accuracy over photos in percent."""

    top1: float
    top5: float
    photos: int
    classes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def zero_shot(
    model: DenseCLIP, images: Images, text: Tensor, *, batch_size: int, processes: Distributed
) -> ZeroShot:
    """Classifies every photo.

    Args:
        model: The model under test.
        images: Photos with a class each.
        text: (D, C) unit embeddings of `images.names`.
        batch_size: Photos in a batch.
        processes: The processes that share the photos; each gets the result for all photos.

    Raises:
        DenseCLIError: No photo has a class.
    """

    def read(i: int) -> tuple[np.ndarray, int]:
        photo, label = images[i]
        return centre_crop(photo, model.arch.native_side), label

    counts = torch.zeros(3, dtype=torch.int64, device=processes.device)
    for batch in batches(read, len(images), batch_size, processes):
        if labelled := [(pixels, label) for pixels, label in batch if label >= 0]:
            pixels, labels = zip(*labelled, strict=True)
            counts += _hits(model, np.stack(pixels), np.array(labels), text).to(counts)
    top1, top5, photos = processes.add(counts).tolist()
    if not photos:
        raise DenseCLIError("No photo has a class.", hint="Give another --split or a higher --limit.")
    return ZeroShot(
        top1=100 * top1 / photos, top5=100 * top5 / photos, photos=photos, classes=len(images.names)
    )


def _hits(model: DenseCLIP, pixels: np.ndarray, labels: np.ndarray, text: Tensor) -> Tensor:
    """(B, s, s, 3) uint8 and (B,) classes -> (3,): how many are right, how many in the top five, and B."""
    images = model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(text.device))
    scores = F.normalize(model.encode_image(images).float(), dim=1) @ text.T
    require_finite(scores)
    true = torch.from_numpy(labels).to(scores.device)[:, None]
    # A tie counts against the true class.
    better = (scores >= scores.gather(1, true)).sum(1) - 1
    return torch.stack([(better < 1).sum(), (better < 5).sum(), torch.tensor(len(labels)).to(better)])


def centre_crop(photo: Image.Image, side: int) -> np.ndarray:
    """(side, side, 3) uint8: the centre of a photo, its short side resized to `side` pixels (bicubic)."""
    scale = side / min(photo.size)
    width, height = (max(side, round(length * scale)) for length in photo.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = np.asarray(photo.resize((width, height), RESAMPLE))
    return resized[top : top + side, left : left + side]
