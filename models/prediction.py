"""What a CLIP sees in a photo among some names: a name for every pixel, named regions, heat maps."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.models.naming import MIN_SHARE, SCALE
from densecli.models.pooling import region_pool
from densecli.shards.geometry import Canvas

NAMES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class NamedRegion:
    """A box with its name.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the photo.
        name: The most probable name.
        probability: Softmax of the scaled cosines over all names; the mean over the pixels of a part.
        cosine: The cosine with the name; the mean over the pixels of a part.
        share: The share of the photo's pixels that the part covers; None for a box that was given.
    """

    box: tuple[float, float, float, float]
    name: str
    probability: float
    cosine: float
    share: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A photo as a CLIP sees it among D names.

    Attributes:
        names: The D names.
        width, height: The photo's own size in pixels.
        image: (h, w, 3) uint8, the photo at the scale of the canvas.
        labels: (h, w) int16 at that scale: the number of each pixel's name, -1 where none is probable enough.
        regions: The named boxes: those that were given, else those around the parts of the segmentation.
        cosines: (D, gh, gw) float32, of the tokens of the whole canvas with each name.
        canvas: The canvas.
    """

    names: tuple[str, ...]
    width: int
    height: int
    image: NDArray[np.uint8]
    labels: NDArray[np.int16]
    regions: tuple[NamedRegion, ...]
    cosines: NDArray[np.float32]
    canvas: Canvas

    def full_labels(self) -> NDArray[np.int16]:
        """(H, W) `labels` at the photo's own size, by the nearest pixel: classes have no mean."""
        small = Image.fromarray(self.labels.astype(np.int32))
        large = small.resize((self.width, self.height), Image.Resampling.NEAREST)
        return np.asarray(large).astype(np.int16)

    def shares(self) -> dict[str, float]:
        """The share of the photo that each name covers, the largest first; without names that cover none."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return {self.names[c]: float(counts[c] / self.labels.size) for c in order if counts[c]}

    def heat(self, name: str) -> NDArray[np.float32]:
        """Computes the cosine of every pixel with a name.

        Args:
            name: One of `names`.

        Returns:
            (h, w) float32, at the scale of `labels`.

        Raises:
            DenseCLIError: The name is not one of `names`.
        """
        if name not in self.names:
            raise DenseCLIError(f"{name!r} is not among the names.", hint=f"Names: {', '.join(self.names)}.")
        row = torch.from_numpy(self.cosines[[self.names.index(name)]])
        return on_photo(row, self.image.shape[:2], self.canvas)[0].numpy()

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the maps."""
        return {
            "width": self.width,
            "height": self.height,
            "shares": self.shares(),
            "regions": [asdict(region) for region in self.regions],
        }


@dataclass(frozen=True, kw_only=True)
class Names:
    """What photos are compared with.

    Attributes:
        names: D names.
        text: (D, C) unit embeddings.
        thing: (D,) bool, the names whose parts are regions; None for all.
        scale: See `densecli.models.naming`.
        threshold: Pixels whose best name is less probable than this have none.
        min_share: See `densecli.models.naming`.
    """

    names: tuple[str, ...]
    text: Tensor
    thing: NDArray[np.bool_] | None = None
    scale: float = SCALE
    threshold: float = 0.0
    min_share: float = MIN_SHARE


def predict(
    dense: Tensor,
    image: NDArray[np.uint8],
    size: tuple[int, int],
    boxes: NDArray[np.float64] | None,
    canvas: Canvas,
    names: Names,
) -> Prediction:
    """Names the pixels and the regions of one photo.

    Args:
        dense: (C, gh, gw) dense map of the canvas.
        image: (h, w, 3) the photo at the scale of the canvas.
        size: Width and height of the photo itself.
        boxes: (N, 4) xyxy in pixels of the photo; None for boxes around the parts of the segmentation.
        canvas: The canvas.
        names: The names.

    Raises:
        DenseCLIError: The model gives features that are not finite.
    """
    cosines = torch.einsum("dc,chw->dhw", names.text, F.normalize(dense.float(), dim=0))
    if not torch.isfinite(cosines).all():
        raise DenseCLIError(
            "The model gives features that are not finite.",
            hint="The weights are damaged or the training diverged: use an earlier checkpoint.",
        )
    cosines = cosines.cpu()
    best, probability = nearest_names(cosines, image.shape[:2], canvas, names.scale)
    labels = torch.where(probability < names.threshold, -1, best).to(torch.int16).numpy()
    if boxes is None:
        regions = part_regions(labels, probability.numpy(), cosines, size, canvas, names)
    else:
        regions = box_regions(dense, boxes, size, canvas, names)
    return Prediction(
        names=names.names,
        width=size[0],
        height=size[1],
        image=image,
        labels=labels,
        regions=tuple(regions),
        cosines=cosines.numpy(),
        canvas=canvas,
    )


def on_photo(values: Tensor, size: Sequence[int], canvas: Canvas) -> Tensor:
    """(D, gh, gw) values of the canvas's tokens -> (D, h, w) = `size`, bilinear, of the photo's pixels."""
    large = F.interpolate(values[None], size=(canvas.size, canvas.size), mode="bilinear", align_corners=False)
    return large[0, :, : size[0], : size[1]]


def nearest_names(
    cosines: Tensor, size: Sequence[int], canvas: Canvas, scale: float
) -> tuple[Tensor, Tensor]:
    """The most probable name of each pixel, and its probability.

    Args:
        cosines: (D, gh, gw).
        size: h and w of the photo at the scale of the canvas.
        canvas: The canvas.
        scale: Factor of the cosines before their softmax.

    Returns:
        (h, w) int64 and (h, w) float32.
    """
    best = torch.full(tuple(size), -torch.inf)
    mass, name = best.clone(), torch.zeros(tuple(size), dtype=torch.int64)
    # All names at once would take gigabytes on a large canvas.
    for start in range(0, len(cosines), NAMES_AT_ONCE):
        part = on_photo(cosines[start : start + NAMES_AT_ONCE], size, canvas) * scale
        mass = torch.logaddexp(mass, part.logsumexp(0))
        most, which = part.max(0)
        name = torch.where(most > best, which + start, name)
        best = torch.maximum(best, most)
    return name, (best - mass).exp()


def box_regions(
    dense: Tensor, boxes: NDArray[np.float64], size: tuple[int, int], canvas: Canvas, names: Names
) -> list[NamedRegion]:
    """Names given boxes by RoIAlign on the dense map, in their order."""
    normalised = torch.from_numpy(canvas.to_canvas(boxes, *size)).to(dense.device)
    pooled = region_pool(dense[None], normalised, torch.zeros(len(boxes), dtype=torch.long).to(dense.device))
    cosines = (pooled @ names.text.T).cpu()
    probabilities, which = (cosines * names.scale).softmax(1).max(1)
    return [
        NamedRegion(
            box=_box(box), name=names.names[c], probability=probability, cosine=float(cosines[row, c])
        )
        for row, (box, c, probability) in enumerate(
            zip(boxes, which.tolist(), probabilities.tolist(), strict=True)
        )
    ]


def part_regions(
    labels: NDArray[np.int16],
    probability: NDArray[np.float32],
    cosines: Tensor,
    size: tuple[int, int],
    canvas: Canvas,
    names: Names,
) -> list[NamedRegion]:
    """The boxes around connected pixels of one name, the largest part first.

    Nothing tells two objects apart that touch: they are one part.
    """
    numbers, counts = np.unique(connected_parts(labels), return_inverse=True, return_counts=True)[1:]
    numbers = numbers.reshape(labels.shape)
    scale = np.array([size[0] / labels.shape[1], size[1] / labels.shape[0]] * 2)
    heat: dict[int, NDArray[np.float32]] = {}
    found = []
    for part in np.argsort(-counts, kind="stable"):
        if counts[part] < names.min_share * labels.size:
            break
        ys, xs = np.nonzero(numbers == part)
        name = int(labels[ys[0], xs[0]])
        if name < 0 or (names.thing is not None and not names.thing[name]):
            continue
        if name not in heat:
            heat[name] = on_photo(cosines[[name]], labels.shape, canvas)[0].numpy()
        corners = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        found.append(
            NamedRegion(
                box=_box(corners * scale),
                name=names.names[name],
                probability=float(probability[ys, xs].mean()),
                cosine=float(heat[name][ys, xs].mean()),
                share=float(counts[part] / labels.size),
            )
        )
    return found


def connected_parts(labels: NDArray[Any]) -> NDArray[np.int64]:
    """(h, w) labels -> (h, w): pixels have the same number if neighbours of their own label join them.

    Neighbours share a side. Each pixel points to the lowest pixel of its part that is known so far; pairs of
    neighbours pass the lower one on, and pointers are followed to their end (Shiloach and Vishkin, 1982).
    """
    number = np.arange(labels.size).reshape(labels.shape)
    beside = labels[:, 1:] == labels[:, :-1]
    below = labels[1:] == labels[:-1]
    first = np.concatenate([number[:, :-1][beside], number[:-1][below]])
    second = np.concatenate([number[:, 1:][beside], number[1:][below]])
    root = number.ravel().copy()
    while (differ := root[first] != root[second]).any():
        first, second = first[differ], second[differ]
        low = np.minimum(root[first], root[second])
        np.minimum.at(root, root[first], low)
        np.minimum.at(root, root[second], low)
        while (followed := root[root]).tobytes() != root.tobytes():
            root = followed
    return root.reshape(labels.shape)


def _box(corners: NDArray[Any]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (round(float(value), 2) for value in corners)
    return x0, y0, x1, y1
