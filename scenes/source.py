"""The generated world as a source: nothing on disk, the same scenes everywhere."""

from dataclasses import dataclass

from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.base import Decoded, Item, Source, listing_digest
from densecli.scenes import GENERATOR_VERSION, SPLITS, render
from densecli.shards.geometry import Canvas

# The world has no end; this many scenes where nobody says how many.
DEFAULT_LIMIT = 512


@dataclass(frozen=True, kw_only=True)
class SceneLoader:
    """Renders the scene whose index is item.ref."""

    seed: int
    split: str

    def __call__(self, item: Item, canvas: Canvas) -> Decoded:
        image = Image.fromarray(render(seed=self.seed, split=self.split, index=int(item.ref)).image)
        return Decoded(image, *image.size)


def scenes_source(split: str = "train", limit: int | None = None, seed: int = 0) -> Source:
    """The first `limit` scenes of a split of the world of `seed`; DenseCLIError for an unknown split."""
    if split not in SPLITS:
        raise DenseCLIError(
            f"The generated world has no split {split}.", hint=f"Its splits: {', '.join(SPLITS)}."
        )
    n = DEFAULT_LIMIT if limit is None else limit
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
