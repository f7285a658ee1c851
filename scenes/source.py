"""The generated world as a source. Scenes are rendered when they are loaded, the same on every machine."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.base import Decoded, Item, Source, SourceRequest, listing_digest
from densecli.scenes.world import GENERATOR_VERSION, SPLITS, render
from densecli.shards.geometry import Canvas
from densecli.shards.segmentation import Annotation, PhotoMasks, packed

DEFAULT_LIMIT = 512
"""Number of scenes by default; the world itself is unlimited."""


@dataclass(frozen=True, kw_only=True)
class SceneLoader:
    """Renders the scene whose index is `item.ref`."""

    seed: int
    split: str

    def __call__(self, item: Item, canvas: Canvas) -> Decoded:
        """Renders a scene at its own size, whatever the canvas."""
        image = Image.fromarray(render(seed=self.seed, split=self.split, index=int(item.ref)).image)
        return Decoded(image, *image.size)


@dataclass(frozen=True, kw_only=True)
class SceneMasks:
    """Reads the segments of the scene whose index is `item.ref`, things and stuff alike."""

    seed: int
    split: str

    def __call__(self, item: Item) -> PhotoMasks:
        """The masks of all segments."""
        panoptic = render(seed=self.seed, split=self.split, index=int(item.ref)).panoptic
        masks = [panoptic == segment for segment in np.unique(panoptic)]
        size = list(panoptic.shape)
        return PhotoMasks(
            annotations=[Annotation({"size": size, "counts": counts.decode()}) for counts in packed(masks)]
        )


def scenes_source(request: SourceRequest) -> Source:
    """Lists the first scenes of a split.

    Args:
        request: `split`, `limit` and `seed`; `data` is not used.

    Raises:
        DenseCLIError: There is no such split.
    """
    split, seed = request.split, request.seed
    if split not in SPLITS:
        raise DenseCLIError(
            f"The generated world has no split {split}.", hint=f"Its splits: {', '.join(SPLITS)}."
        )
    n = DEFAULT_LIMIT if request.limit is None else request.limit
    digest = listing_digest([f"scenes\t{GENERATOR_VERSION}\t{seed}\t{split}\t{n}"])
    items = [Item(f"{split}-{index:08d}", str(index)) for index in range(n)]
    return Source(
        name="scenes",
        split=split,
        digest=digest,
        items=items,
        load=SceneLoader(seed=seed, split=split),
        masks=SceneMasks(seed=seed, split=split),
        options={"seed": seed},
    )
