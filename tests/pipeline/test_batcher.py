import numpy as np
import pytest
import torch

from densecli.core.stage_timer import StageTimer
from densecli.pipeline.batcher import Batcher, live_targets
from densecli.pipeline.teachers import Photo
from densecli.shards.geometry import Canvas
from densecli.shards.regions import Regions


class Mean:
    """Says the mean colour of each picture; has room for `room` pictures at once, from the first batch on."""

    name = "mean"
    device = torch.device("cpu")

    def __init__(self, room=None):
        self.room = room
        self.batches = []

    def inputs(self, photo):
        return photo.padded()[None]

    def forward(self, pictures):
        self.batches.append(len(pictures))
        if self.room and len(pictures) > self.room:
            raise torch.OutOfMemoryError("no room")
        return pictures.float().mean((2, 3))

    def target(self, photo, seen):
        return seen[0].numpy()


@pytest.fixture
def photos():
    whole = Regions(np.array([[0, 0, 1, 1]], np.float32), np.array([0, 1], np.int32))
    pixels = np.random.default_rng(0).integers(0, 255, (19, 8, 8, 3), np.uint8)
    return [Photo(key=str(i), image=image, canvas=Canvas(8), regions=whole) for i, image in enumerate(pixels)]


def test_out_of_memory__smaller_batches_say_the_same(photos):
    small = Mean(room=3)
    np.testing.assert_array_equal(live_targets(small, photos, 16), live_targets(Mean(), photos, 16))
    # 16 and 8 have no room, 4 has not either, 2 has: and so it stays.
    assert small.batches == [16, 8, 4, *[2] * 8, 2, 1]


def test_out_of_memory__once_is_the_end_of_full_batches_for_this_shard_only(photos):
    teacher = Mean(room=8)
    live_targets(teacher, photos, 16)
    assert teacher.batches == [16, 8, 8, 3]
    teacher.batches, teacher.room = [], None
    live_targets(teacher, photos, 16)
    assert teacher.batches == [16, 3]


def test_out_of_memory__with_a_single_picture_is_an_error(photos):
    with pytest.raises(torch.OutOfMemoryError):
        live_targets(Mean(room=0.5), photos, 16)


@pytest.mark.parametrize("batch_size", [1, 4, 19, 100])
def test_batcher__gives_photos_in_order_and_every_batch_full_but_the_last(photos, batch_size):
    teacher = Mean()
    batcher = Batcher(teacher, batch_size, StageTimer())
    outputs = [pair for photo in photos for pair in batcher.add(photo, teacher.inputs(photo))]
    outputs += batcher.finish()
    assert [photo.key for photo, _ in outputs] == [photo.key for photo in photos]
    assert [len(outputs[0][1]), *teacher.batches[:-1]] == [3, *[batch_size] * (len(teacher.batches) - 1)]
    assert sum(teacher.batches) == 19
