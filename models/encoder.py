"""A trained student for use in other programs: photos in, embeddings out, as evaluation computes them."""

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
"""Photos in a forward pass."""
Photo = Any
"""A PIL image, a path, or uint8 pixels: a numpy array (H, W, 3) or (H, W), or a tensor (3, H, W).

A file is turned upright according to its EXIF orientation, as in a build from a folder, and regions refer to
the upright photo. If your regions refer to the pixels as stored (as COCO's do), give a PIL image instead: it
is not turned.
"""


class Encoder:
    """A model with the mode of its dense read-out and the canvas that photos are fitted into.

    Every method takes one photo and returns one result, or takes a list of photos (or an array with one more
    axis in front) and returns a list of results. Results are float32 tensors on the model's device, without
    gradients. Pooled embeddings have unit norm; tokens have it if the mode says so, as `value` does.

    Attributes:
        model: The network, a CLIP or a vision foundation model.
        canvas: The square that photos are fitted into.
        mode: How the last block is read out.
        card: The model card: what is known of the weights.
    """

    def __init__(
        self, model: Student, *, canvas: int, mode: str = "value", card: dict[str, Any] | None = None
    ) -> None:
        """Wraps a model.

        Args:
            model: The network, in eval mode.
            canvas: Side of the canvas in pixels.
            mode: How the last block is read out.
            card: The model card.
        """
        self.model = model
        self.canvas = Canvas(canvas)
        self.mode = mode
        self.card = card or {}

    def dense(self, images: Photo | Sequence[Photo]) -> Tensor:
        """Computes the token map of the whole canvas.

        The photo fills the top left of the map, its longest side the whole of it. Tokens to the right of it
        or below belong to the black padding (`canvas.valid_box`).

        Args:
            images: A photo or a list of B photos.

        Returns:
            (D, h, w) for a photo, (B, D, h, w) for a list.
        """
        photos, one = _photos(images)
        maps = torch.stack([dense for dense, _ in self._maps(photos)])
        return maps[0] if one else maps

    def regions(self, images: Photo | Sequence[Photo], boxes: Any) -> Any:
        """Computes the embeddings of boxes, by RoIAlign on the token map.

        Args:
            images: A photo or a list of photos.
            boxes: (N, 4) xyxy in pixels of the photo; for a list of photos, a list of such arrays.

        Returns:
            (N, D) unit embeddings; for a list of photos, a list of such tensors.

        Raises:
            DenseCLIError: There are not as many arrays as photos.
        """

        def pool(dense: Tensor, photo: Image.Image, boxes: Any) -> Tensor:
            pixels = np.asarray(boxes, np.float64).reshape(-1, 4)
            normalised = torch.from_numpy(self.canvas.to_canvas(pixels, *photo.size)).to(dense.device)
            return region_pool(dense[None], normalised, _of_one(normalised))

        return self._each(images, boxes, pool)

    def masks(self, images: Photo | Sequence[Photo], masks: Any) -> Any:
        """Computes the embeddings of masks: the mean over the tokens that a mask covers.

        Args:
            images: A photo or a list of photos.
            masks: (N, H, W) bool of the photo's own size; for a list of photos, a list of such arrays.

        Returns:
            (N, D) unit embeddings, or zeros for a mask that covers no token; for a list of photos, a list of
            such tensors.

        Raises:
            DenseCLIError: Masks do not have the photo's size, or there are not as many arrays as photos.
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
        """Computes the text embeddings of category names.

        Args:
            names: N category names.
            templates: Prompt templates with {} for the name; by default those of the model, for most CLIP's
                80.

        Returns:
            (N, D) unit embeddings.

        Raises:
            DenseCLIError: The model has no text tower.
        """
        if not isinstance(self.model, DenseCLIP):
            raise DenseCLIError(
                f"{self.model.arch.name} has no text tower.",
                hint="Load a CLIP to compare regions with texts.",
            )
        return text_embeddings(self.model, names, templates)

    def _each(self, images: Any, regions: Any, pool: Callable[[Tensor, Image.Image, Any], Tensor]) -> Any:
        photos, one = _photos(images)
        regions = [regions] if one else regions
        if len(regions) != len(photos):
            raise DenseCLIError(
                f"There are {len(regions)} arrays of regions for {len(photos)} photos.",
                hint="Give a list with one array for each photo.",
            )
        pooled = [pool(*seen, of) for seen, of in zip(self._maps(photos), regions, strict=True)]
        return pooled[0] if one else pooled

    def _maps(self, photos: Sequence[Photo]) -> Iterator[tuple[Tensor, Image.Image]]:
        """Yields each photo's map and the photo, with at most one batch of photos open."""
        for start in range(0, len(photos), BATCH):
            opened = [_photo(photo) for photo in photos[start : start + BATCH]]
            yield from zip(self._dense(opened), opened, strict=True)

    @torch.no_grad()
    def _dense(self, photos: Sequence[Image.Image]) -> Tensor:
        pixels = np.stack([self.canvas.pad(np.asarray(self.canvas.resize(photo))) for photo in photos])
        device = next(self.model.parameters()).device
        canvases = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
        dense = self.model(self.model.prepare(canvases), self.mode)
        assert isinstance(dense, Tensor)  # it is a tuple only with context
        return dense


def _photos(images: Any) -> tuple[list[Photo], bool]:
    """The photos as a list, and whether a single photo was given."""
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
            f"These pixels cannot be read: {pixels.dtype} of shape {tuple(np.shape(image))}.",
            hint="Give uint8 pixels, an array (H, W, 3) or a tensor (3, H, W), not normalised.",
        )
    return Image.fromarray(pixels)


def _of_one(regions: Tensor) -> Tensor:
    return torch.zeros(len(regions), dtype=torch.long, device=regions.device)
