import numpy as np
import pytest
import torch

from densecli.core.stage_timer import StageTimer
from densecli.pipeline.batcher import Batcher, Run, live_targets
from densecli.pipeline.room import NoRoom
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

    def targets(self, photos, seen):
        return [of_photo[0] for of_photo in seen]


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


def targets_of(run, photos, batch_size=16):
    batcher = Batcher(run, batch_size, StageTimer())
    found = [pair for photo in photos for pair in batcher.add(photo, run.teacher.inputs(photo))]
    return [target for _, (target,) in [*found, *batcher.finish()]]


def test_out_of_memory__is_remembered_over_shards(photos):
    teacher = Mean(room=8)
    run = Run.of(teacher)
    for _ in range(2):
        targets_of(run, photos)
    assert teacher.batches == [16, 8, 8, 3, 8, 8, 3]


def test_out_of_memory__in_the_targets_halves_the_photos_at_once(photos):
    class Cramped(Mean):
        def targets(self, photos, seen):
            done.append(len(photos))
            if len(photos) > 3:
                raise torch.OutOfMemoryError("no room")
            return super().targets(photos, seen)

    done, run = [], Run.of(Cramped())
    for _ in range(2):
        np.testing.assert_array_equal(targets_of(run, photos), live_targets(Mean(), photos, 16))
    assert done == [16, 8, 4, *[2] * 8, 2, 1, *[2] * 8, 2, 1]
    assert run.teacher.batches == [16, 3, 16, 3]


@pytest.mark.parametrize("message", [
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
    "CUDA error: out of memory",
    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9",
])  # fmt: skip
def test_out_of_memory__in_the_words_of_each_library(photos, message):
    class Cramped(Mean):
        def forward(self, pictures):
            if len(pictures) > 8:
                raise RuntimeError(message)
            return super().forward(pictures)

    np.testing.assert_array_equal(live_targets(Cramped(), photos, 16), live_targets(Mean(), photos, 16))


def test_out_of_memory__another_error_is_raised_as_it_is(photos):
    class Broken(Mean):
        def forward(self, pictures):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        live_targets(Broken(), photos, 16)


def test_out_of_memory__with_a_single_picture_says_what_helps(photos):
    with pytest.raises(NoRoom, match="cpu has no memory left for one input of the teacher mean: give each"):
        live_targets(Mean(room=0.5), photos, 16)


@pytest.mark.parametrize("batch_size", [1, 4, 19, 100])
def test_batcher__gives_photos_in_order_and_every_batch_full_but_the_last(photos, batch_size):
    teacher = Mean()
    batcher = Batcher(Run.of(teacher), batch_size, StageTimer())
    outputs = [pair for photo in photos for pair in batcher.add(photo, teacher.inputs(photo))]
    outputs += batcher.finish()
    assert [photo.key for photo, _ in outputs] == [photo.key for photo in photos]
    assert [len(outputs[0][1][0]), *teacher.batches[:-1]] == [3, *[batch_size] * (len(teacher.batches) - 1)]
    assert sum(teacher.batches) == 19
