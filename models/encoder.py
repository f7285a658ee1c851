"""A finished student as other programs use it: photos in, embeddings out, in the geometry of evaluation."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import read_photo
from densecli.models.dense import DenseCLIP
from densecli.models.pooling import mask_pool, region_pool, token_masks
from densecli.models.student import Student
from densecli.models.text import text_embeddings
from densecli.shards.geometry import Canvas

BATCH = 8
"""Photos that the network sees at once."""
Photo = Any
"""A PIL image, the path of one, or uint8 pixels: a numpy array (H, W, 3) or (H, W), or a tensor (3, H, W).

A file is turned upright as its EXIF says, as a build from a folder does, and regions are of the photo as
turned. Where they are of the pixels as stored (COCO's), give the PIL image: it is taken as it is.
"""


class Encoder:
    """A model, the mode of its dense read-out, and the canvas that photos are put on.

    Every method takes one photo and gives one result, or a list of photos (for pixels, an array with one more
    axis in front) and gives as many. What comes out is float32, on the model's device, without gradients, of
    unit norm where it is pooled and where the mode's own tokens are.
    """

    def __init__(
        self, model: Student, *, canvas: int, mode: str = "value", card: dict[str, Any] | None = None
    ) -> None:
        """canvas: its side in pixels. card: what is known of the weights."""
        self.model = model
        self.canvas = Canvas(canvas)
        self.mode = mode
        self.card = card or {}

    def dense(self, images: Photo | Sequence[Photo]) -> Tensor:
        """(D, h, w) of a photo, (B, D, h, w) of B: the token map of the whole canvas.

        The photo is in the map's top left, its longest side the map's; tokens to the right or below are of
        the black that fills the square (`canvas.valid_box`).
        """
        photos, one = _photos(images)
        maps = torch.stack([dense for dense, _ in self._maps(photos)])
        return maps[0] if one else maps

    def regions(self, images: Photo | Sequence[Photo], boxes: Any) -> Any:
        """(N, D) of a photo, a list of such of several: the embeddings of its N boxes, of unit norm.

        boxes: (N, 4) xyxy in pixels of the photo, of several photos a list of such.
        """

        def pool(dense: Tensor, photo: Image.Image, boxes: Any) -> Tensor:
            pixels = np.asarray(boxes, np.float64).reshape(-1, 4)
            normalised = torch.from_numpy(self.canvas.to_canvas(pixels, *photo.size)).to(dense.device)
            return region_pool(dense[None], normalised, _of_one(normalised))

        return self._each(images, boxes, pool)

    def masks(self, images: Photo | Sequence[Photo], masks: Any) -> Any:
        """(N, D) of a photo, a list of such of several: the embeddings of its N masks, of unit norm.

        masks: bool (N, H, W) of the photo's own size, of several photos a list of such. A mask that covers no
        token gives zeros.
        """

        def pool(dense: Tensor, photo: Image.Image, masks: Any) -> Tensor:
            pixels = np.asarray(masks, bool)
            if pixels.ndim != 3 or pixels.shape[1:] != photo.size[::-1]:
                raise DenseCLIError(
                    f"Masks are {pixels.shape} for a photo of {photo.size[1]} x {photo.size[0]} pixels.",
                    hint="Give bool masks (N, H, W) of the photo's own size.",
                )
            tokens = token_masks(pixels, dense.shape[-1]).to(dense.device)
            return mask_pool(dense[None], tokens, _of_one(tokens))

        return self._each(images, masks, pool)

    @torch.no_grad()
    def text(self, names: Sequence[str], *, templates: Sequence[str] | None = None) -> Tensor:
        """(len(names), D) unit embeddings of category names, with CLIP's prompt templates or those given."""
        if not isinstance(self.model, DenseCLIP):
            raise DenseCLIError(
                f"{self.model.arch.name} has no text tower.", hint="Compare its regions with each other."
            )
        return text_embeddings(self.model, names, templates)

    def _each(self, images: Any, regions: Any, pool: Callable[[Tensor, Image.Image, Any], Tensor]) -> Any:
        photos, one = _photos(images)
        regions = [regions] if one else regions
        if len(regions) != len(photos):
            raise DenseCLIError(
                f"There are regions of {len(regions)} photos for {len(photos)} photos.",
                hint="Give a list with an array for every photo.",
            )
        pooled = [pool(*seen, of) for seen, of in zip(self._maps(photos), regions, strict=True)]
        return pooled[0] if one else pooled

    def _maps(self, photos: Sequence[Photo]) -> Iterator[tuple[Tensor, Image.Image]]:
        """Each photo's map and the photo, of which no more than a batch are open."""
        for start in range(0, len(photos), BATCH):
            opened = [_photo(photo) for photo in photos[start : start + BATCH]]
            yield from zip(self._dense(opened), opened, strict=True)

    @torch.no_grad()
    def _dense(self, photos: Sequence[Image.Image]) -> Tensor:
        pixels = np.stack([self.canvas.pad(np.asarray(self.canvas.resize(photo))) for photo in photos])
        device = next(self.model.parameters()).device
        canvases = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
        dense = self.model(self.model.prepare(canvases), self.mode)
        assert isinstance(dense, Tensor)  # a tuple with context, which is not asked for
        return dense


def _photos(images: Any) -> tuple[list[Photo], bool]:
    """The photos, and whether there was one that no list held."""
    one = isinstance(images, Image.Image | str | Path)
    if one or (isinstance(images, np.ndarray | Tensor) and images.ndim < 4):
        return [images], True
    return list(images), False


def _photo(image: Photo) -> Image.Image:
    if isinstance(image, str | Path):
        return read_photo(image, "Give the photo itself, or another file.", turned=True)
    if isinstance(image, Image.Image):
        return image
    pixels = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) and image.ndim == 3 else image
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        raise DenseCLIError(
            f"Pixels are {pixels.dtype} {tuple(np.shape(image))}.",
            hint="Give uint8 pixels, an array (H, W, 3) or a tensor (3, H, W), not normalised.",
        )
    return Image.fromarray(pixels)


def _of_one(regions: Tensor) -> Tensor:
    return torch.zeros(len(regions), dtype=torch.long, device=regions.device)
