"""Random crops: inside the photo, of the sizes that are said, and the pixels that the box covers."""

import numpy as np
from PIL import Image

from densecli.shards.geometry import RESAMPLE
from densecli.shards.joined import decode_image
from densecli.shards.tars import read_shard
from densecli.train.crops import CropLoader, random_crops
from densecli.train.trainer_config import LoaderConfig

SIZE = (512, 300)


def test_random_crops__inside_the_photo_and_of_the_sizes_said() -> None:
    boxes = np.concatenate([random_crops(f"{i}", 0, 0, 4, SIZE) for i in range(500)])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= SIZE).all()
    sides = (boxes[:, 2:] - boxes[:, :2]) / SIZE
    area, ratio = sides.prod(axis=1), sides[:, 0] / sides[:, 1]
    # Corners are whole pixels.
    assert 0.3 - 0.01 < area.min() < 0.32 and 0.68 < area.max() < 0.7 + 0.02
    assert 0.74 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.35
    assert abs(area.mean() - 0.5) < 0.02 and abs(np.log(ratio).mean()) < 0.02


def test_random_crops__depend_on_key_epoch_and_seed_alone() -> None:
    first = random_crops("a", 0, 0, 4, SIZE)
    assert (first == random_crops("a", 0, 0, 4, SIZE)).all()
    for other in (("b", 0, 0), ("a", 1, 0), ("a", 0, 1)):
        assert (first != random_crops(*other, 4, SIZE)).any()


def test_random_crops__of_the_smallest_photo() -> None:
    boxes = random_crops("a", 0, 0, 50, (1, 1))
    assert (boxes == [0, 0, 1, 1]).all()


def test_batches__pixels_are_those_of_the_boxes(tiny_store) -> None:
    stored = {
        key: decode_image(parts["jpg"])
        for shard in tiny_store.store.shard_names
        for key, parts in read_shard(tiny_store.store.images, shard)
    }
    batch = next(CropLoader(tiny_store.store, LoaderConfig(batch_size=3), crops=4, side=48).batches(0))
    assert batch.images.shape == (3, 3, 96, 96) and batch.targets["pixels"].shape == (12, 48, 48, 3)
    assert batch.batch_index.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for box, owner, pixels in zip(batch.boxes, batch.batch_index, batch.targets["pixels"], strict=True):
        x0, y0, x1, y1 = (box.numpy() * 96).round().astype(int)
        patch = Image.fromarray(stored[batch.keys[owner]][y0:y1, x0:x1])
        np.testing.assert_array_equal(pixels, np.asarray(patch.resize((48, 48), RESAMPLE)))


def test_random_crops__known_values() -> None:
    # A run must resume under a later release with the very crops it began with.
    assert random_crops("a", 2, 7, 2, (640, 480)).tolist() == [[14, 99, 577, 427], [59, 41, 623, 377]]
