"""A trained student for use in other programs: photos in, embeddings out, as evaluation computes them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import read_photo
from densecli.models.dense import DenseCLIP
from densecli.models.naming import MIN_SHARE, SCALE
from densecli.models.pooling import mask_pool, region_pool, token_masks
from densecli.models.prediction import Names, Prediction, predict
from densecli.models.student import Student
from densecli.models.text import category_embeddings, text_embeddings
from densecli.shards.geometry import Canvas

BATCH = 8
"""Photos in a forward pass."""
Photo = Any
"""A PIL image, a path, or uint8 pixels: a numpy array (H, W, 3) or (H, W), or a tensor (3, H, W).

A file is turned upright according to its EXIF orientation, as in a build from a folder, and regions refer to
the upright photo. If your regions refer to the pixels as stored (as COCO's do), give a PIL image instead: it
is not turned.
"""


class SeenPhoto(NamedTuple):
    """A photo as the model sees it, which may stand for the photo in every method of `Encoder`.

    Attributes:
        pixels: (h, w, 3) uint8, the photo at the scale of the canvas, not padded.
        size: Width and height of the photo itself.
    """

    pixels: np.ndarray
    size: tuple[int, int]


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

        def pool(dense: Tensor, photo: SeenPhoto, boxes: Any) -> Tensor:
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

        def pool(dense: Tensor, photo: SeenPhoto, masks: Any) -> Tensor:
            pixels = np.asarray(masks, bool)
            if pixels.ndim != 3 or pixels.shape[1:] != photo.size[::-1]:
                raise DenseCLIError(
                    f"Masks are {pixels.shape} for a photo of {photo.size[1]} x {photo.size[0]} pixels.",
                    hint="Give bool masks (N, H, W) of the photo's own size.",
                )
            tokens = token_masks(pixels, dense.shape[-1]).to(dense.device)
            return mask_pool(dense[None], tokens, [len(tokens)])

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
        return text_embeddings(self._clip(), names, templates)

    def segment(
        self,
        images: Photo | Sequence[Photo],
        names: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        threshold: float = 0.0,
    ) -> Any:
        """Names every pixel: the name whose text embedding is nearest to the dense map there.

        The cosines of the tokens are enlarged to the canvas bilinearly, the names from there to the photo by
        the nearest pixel. `evaluate --task segmentation` moves a window over the photo instead, which takes
        longer and sees more of small things.

        Args:
            images: A photo or a list of photos.
            names: D names. Every pixel gets one of them, so name what else is in the photos as well.
            templates: See `text`.
            threshold: Pixels whose best name is less probable than this among the names get none.

        Returns:
            (H, W) int16 array of the photo's own size with the number of each pixel's name, -1 for none; for
            a list of photos, a list of such arrays.

        Raises:
            DenseCLIError: The model has no text tower, or a photo cannot be read.
        """
        found = self.predict(images, names, templates=templates, threshold=threshold)
        return (
            found.full_labels() if isinstance(found, Prediction) else [each.full_labels() for each in found]
        )

    def predict(
        self,
        images: Photo | Sequence[Photo],
        names: Sequence[str],
        *,
        boxes: Any = None,
        templates: Sequence[str] | None = None,
        threshold: float = 0.0,
        min_share: float = MIN_SHARE,
    ) -> Any:
        """Names every pixel and every region of photos.

        Regions are the boxes that are given. Without any they are the boxes around the connected parts of the
        segmentation: nothing searches for objects, and two that touch and have one name are one part.

        Args:
            images: A photo or a list of photos.
            names: D names.
            boxes: (N, 4) xyxy in pixels of the photo; for a list of photos, a list of such arrays.
            templates: See `text`.
            threshold: See `segment`.
            min_share: Share of the photo that a part must cover to be a region.

        Returns:
            A `Prediction`; for a list of photos, a list of them.

        Raises:
            DenseCLIError: The model has no text tower, a photo cannot be read, or there are not as many
                arrays of boxes as photos.
        """
        compared = self.names(names, templates=templates, threshold=threshold, min_share=min_share)
        return self.compare(images, compared, boxes=boxes)

    def names(
        self,
        names: Sequence[str],
        *,
        text: Tensor | None = None,
        thing: Any = None,
        templates: Sequence[str] | None = None,
        scale: float = SCALE,
        threshold: float = 0.0,
        min_share: float = MIN_SHARE,
    ) -> Names:
        """Embeds names once, for many calls of `compare`.

        Args:
            names: D names.
            text: (D, C) their unit embeddings; None for those of the model's text tower.
            thing: (D,) bool, the names whose parts are regions; None for all.
            templates: See `text`.
            scale: Factor of the cosines before their softmax.
            threshold: See `segment`.
            min_share: See `predict`.

        Raises:
            DenseCLIError: There is no name, or the model has no text tower.
        """
        if not names:
            raise DenseCLIError("There is no name to compare photos with.", hint="Give one or more names.")
        if text is None:
            text = category_embeddings(self._clip(), names, templates=templates)
        return Names(
            names=tuple(names),
            text=text,
            thing=thing,
            scale=scale,
            threshold=threshold,
            min_share=min_share,
        )

    def compare(self, images: Photo | Sequence[Photo], names: Names, *, boxes: Any = None) -> Any:
        """See `predict`, for names that are embedded already."""

        def named(dense: Tensor, photo: SeenPhoto, boxes: Any) -> Prediction:
            corners = None if boxes is None else np.asarray(boxes, np.float64).reshape(-1, 4)
            return predict(dense, photo.pixels, photo.size, corners, self.canvas, names)

        if boxes is None and not _photos(images)[1]:
            boxes = [None] * len(images)
        return self._each(images, boxes, named)

    def see(self, image: Photo) -> SeenPhoto:
        """Decodes a photo and fits it into the canvas: a large one need not be kept."""
        if isinstance(image, SeenPhoto):
            return image
        opened = _photo(image)
        return SeenPhoto(np.asarray(self.canvas.resize(opened)), opened.size)

    def _clip(self) -> DenseCLIP:
        if not isinstance(self.model, DenseCLIP):
            raise DenseCLIError(
                f"{self.model.arch.name} has no text tower.",
                hint="Load a CLIP to compare regions with texts.",
            )
        return self.model

    def _each(self, images: Any, regions: Any, pool: Callable[[Tensor, SeenPhoto, Any], Any]) -> Any:
        photos, one = _photos(images)
        regions = [regions] if one else regions
        if len(regions) != len(photos):
            raise DenseCLIError(
                f"There are {len(regions)} arrays of regions for {len(photos)} photos.",
                hint="Give a list with one array for each photo.",
            )
        pooled = [pool(*seen, of) for seen, of in zip(self._maps(photos), regions, strict=True)]
        return pooled[0] if one else pooled

    def _maps(self, photos: Sequence[Photo]) -> Iterator[tuple[Tensor, SeenPhoto]]:
        """Yields each photo's map and the photo, with at most one photo open."""
        for start in range(0, len(photos), BATCH):
            seen = [self.see(photo) for photo in photos[start : start + BATCH]]
            yield from zip(self._dense(seen), seen, strict=True)

    @torch.no_grad()
    def _dense(self, photos: Sequence[SeenPhoto]) -> Tensor:
        pixels = np.stack([self.canvas.pad(photo.pixels) for photo in photos])
        device = next(self.model.parameters()).device
        canvases = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
        dense = self.model(self.model.prepare(canvases), self.mode)
        assert isinstance(dense, Tensor)  # it is a tuple only with context
        return dense


def _photos(images: Any) -> tuple[list[Photo], bool]:
    """The photos as a list, and whether a single photo was given."""
    one = isinstance(images, Image.Image | str | Path | SeenPhoto)
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
