"""Photos with random crops, on which a Refiner is trained without regions or teachers."""

import numpy as np
from PIL import Image

from densecli.core.random_words import random_words
from densecli.shards.geometry import RESAMPLE, Canvas
from densecli.shards.joined import Record
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Store
from densecli.train.batch import Sample
from densecli.train.stream import Stream
from densecli.train.trainer_config import LoaderConfig

SCALE = (0.3, 0.7)
RATIO = (3 / 4, 4 / 3)
"""Area and aspect ratio of a crop, each as a fraction of the photo's."""


class CropLoader(Stream):
    """Batches of photos with one target, `pixels`: (N, side, side, 3) uint8, the crops resized to squares."""

    def __init__(
        self,
        store: Store,
        config: LoaderConfig,
        *,
        crops: int,
        side: int,
        scale: tuple[float, float] = SCALE,
        lanes: int | None = None,
        table: ShardTable | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Opens the photos of a store.

        Args:
            store: The store.
            config: How batches are read.
            crops: Crops of each photo; every epoch has others.
            side: Side of a crop, in pixels.
            scale: See `random_crops`.
            lanes: See `Stream`.
            table: See `Stream`.
            rank: Number of this process.
            world_size: Number of processes.

        Raises:
            DenseCLIError: The photos are not finished.
        """
        canvas = Canvas(store.canvas)
        super().__init__(
            [store.images], canvas, config, lanes=lanes, table=table, rank=rank, world_size=world_size
        )
        self.crops, self.side, self.scale = crops, side, scale

    def decode(self, record: Record, epoch: int, canvas: np.ndarray | None = None) -> Sample:
        """Decodes a sample. Its crops depend only on key, epoch and seed."""
        image = record.image()
        corners = random_crops(
            record.key, epoch, self.config.seed, self.crops, image.shape[1::-1], self.scale
        )
        photo = Image.fromarray(image)
        size = (self.side, self.side)
        return Sample(
            key=record.key,
            image=self._canvas.pad(image, canvas),
            boxes=(corners / self._canvas.size).astype(np.float32),
            photo=self.photo_box(record),
            targets={
                "pixels": np.stack(
                    [np.asarray(photo.crop(tuple(c)).resize(size, RESAMPLE)) for c in corners.tolist()]
                )
            },
        )


def random_crops(
    key: str, epoch: int, seed: int, count: int, size: tuple[int, int], scale: tuple[float, float] = SCALE
) -> np.ndarray:
    """Draws crops, the same on every machine.

    The area is uniform in `scale`, the aspect ratio log-uniform in RATIO (both as fractions of the photo's),
    the place uniform.

    Args:
        key: Key of the sample.
        epoch: Counted from 0.
        seed: Seed of the training.
        count: Number of crops.
        size: Width and height of the photo in pixels.
        scale: Smallest and largest area of a crop, as fractions of the photo's.

    Returns:
        (count, 4) int64 xyxy in pixels.
    """
    words = random_words(f"crop/{seed}/{epoch}/{key}", 4 * count)
    area, ratio, x, y = (words >> np.uint64(11)).reshape(4, count) * 2.0**-53
    area = scale[0] + (scale[1] - scale[0]) * area
    aspect = RATIO[0] * (RATIO[1] / RATIO[0]) ** ratio
    sides = np.sqrt(np.stack([area * aspect, area / aspect], axis=1))
    first = np.stack([x, y], axis=1) * (1 - sides)
    limits = np.array(size)
    start = np.floor(first * limits).astype(np.int64)
    end = np.maximum(np.ceil((first + sides) * limits).astype(np.int64), start + 1)
    return np.concatenate([start, np.minimum(end, limits)], axis=1)
