"""Photos with random crops of them, for training without regions or teachers."""

import numpy as np
import xxhash
from PIL import Image

from densecli.shards.geometry import RESAMPLE, Canvas
from densecli.shards.reader import Record, decode_image
from densecli.shards.store import Store
from densecli.train.dataloader import LoaderConfig, Sample, Stream

SCALE = (0.3, 0.7)
RATIO = (3 / 4, 4 / 3)
"""Of a crop to its photo: the area, and how much wider than high, both beside the photo's own."""


class CropLoader(Stream):
    """The samples have one target, `pixels`: (N, side, side, 3) uint8, each box's own pixels, stretched."""

    def __init__(
        self,
        store: Store,
        config: LoaderConfig,
        *,
        crops: int,
        side: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """crops: N of every photo, others in every epoch. Raises DenseCLIError for unfinished photos."""
        super().__init__([store.images], config, rank=rank, world_size=world_size)
        self.crops, self.side = crops, side
        self._canvas = Canvas(store.canvas)

    def decode(self, record: Record, epoch: int) -> Sample:
        """Crops chosen by (key, epoch, seed) alone."""
        image = decode_image(record.parts["images"]["jpg"])
        corners = random_crops(record.key, epoch, self.config.seed, self.crops, image.shape[1::-1])
        photo = Image.fromarray(image)
        size = (self.side, self.side)
        return Sample(
            key=record.key,
            image=self._canvas.pad(image),
            boxes=(corners / self._canvas.size).astype(np.float32),
            targets={
                "pixels": np.stack(
                    [np.asarray(photo.crop(tuple(c)).resize(size, RESAMPLE)) for c in corners.tolist()]
                )
            },
        )


def random_crops(key: str, epoch: int, seed: int, count: int, size: tuple[int, int]) -> np.ndarray:
    """(count, 4) int64 xyxy in whole pixels of a photo of size (width, height), the same on every machine.

    Area uniform in SCALE, ratio of the sides log-uniform in RATIO (both as fractions of the photo's), place
    uniform.
    """
    # Raw Philox words: numpy promises its bit streams for ever, its distributions until the next release.
    words = np.random.Philox(key=xxhash.xxh3_128_intdigest(f"crop/{seed}/{epoch}/{key}".encode()))
    scale, ratio, x, y = (words.random_raw(4 * count) >> np.uint64(11)).reshape(4, count) * 2.0**-53
    area = SCALE[0] + (SCALE[1] - SCALE[0]) * scale
    aspect = RATIO[0] * (RATIO[1] / RATIO[0]) ** ratio
    sides = np.sqrt(np.stack([area * aspect, area / aspect], axis=1))
    first = np.stack([x, y], axis=1) * (1 - sides)
    limits = np.array(size)
    start = np.floor(first * limits).astype(np.int64)
    end = np.maximum(np.ceil((first + sides) * limits).astype(np.int64), start + 1)
    return np.concatenate([start, np.minimum(end, limits)], axis=1)
