"""Photos with random crops, on which a Refiner is trained without regions or teachers."""

import numpy as np
import xxhash
from PIL import Image

from densecli.shards.geometry import RESAMPLE, Canvas
from densecli.shards.joined import Record
from densecli.shards.store import Store
from densecli.train.dataloader import Sample, Stream
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
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Opens the photos of a store.

        Args:
            store: The store.
            config: How batches are read.
            crops: Number of crops of each photo; they differ from epoch to epoch.
            side: Side of a crop, in pixels.
            rank: Number of this process.
            world_size: Number of processes.

        Raises:
            DenseCLIError: The photos are not finished.
        """
        super().__init__([store.images], config, rank=rank, world_size=world_size)
        self.crops, self.side = crops, side
        self._canvas = Canvas(store.canvas)

    def decode(self, record: Record, epoch: int) -> Sample:
        """Decodes a sample. Its crops depend only on key, epoch and seed."""
        image = record.image()
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
    """Draws crops, the same on every machine.

    The area is uniform in SCALE and the aspect ratio log-uniform in RATIO, both relative to the photo's. The
    place is uniform.

    Args:
        key: Key of the sample.
        epoch: Counted from 0.
        seed: Seed of the training.
        count: Number of crops.
        size: Width and height of the photo in pixels.

    Returns:
        (count, 4) int64 xyxy in pixels.
    """
    # Raw Philox output: numpy keeps its bit streams stable, but its distributions may change with a release.
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
