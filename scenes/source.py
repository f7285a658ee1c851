"""The generated world as a source. Scenes are rendered when they are loaded, the same on every machine."""

from dataclasses import dataclass

from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.base import Decoded, Item, Source, SourceRequest, listing_digest
from densecli.scenes.world import GENERATOR_VERSION, SPLITS, render
from densecli.shards.geometry import Canvas

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
        options={"seed": seed},
    )
