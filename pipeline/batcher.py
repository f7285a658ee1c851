"""The batcher: runs a teacher on full batches, whatever the number of inputs of a photo."""

from collections import deque
from collections.abc import Iterable, Iterator
from threading import Event

import numpy as np
import torch
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import Stopped
from densecli.core.stage_timer import StageTimer
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.teachers.base import Photo, Teacher


class Batcher:
    """Runs one teacher on photos whose inputs share batches. All batches but the last are full."""

    def __init__(
        self, teacher: Teacher, batch_size: int, timer: StageTimer, stop: Event | None = None
    ) -> None:
        """Starts with no photos.

        Args:
            teacher: The teacher.
            batch_size: Number of canvases in a batch. Inputs of another size are batched to as many pixels.
            timer: Measures the stage "teacher", which ends when the device has finished, so it covers GPU
                time.
            stop: Once set, the next batch is replaced by core.prefetch.Stopped.
        """
        self._stop = stop or Event()
        self._teacher = teacher
        self._batch_size = batch_size
        self._timer = timer
        self._inputs: deque[np.ndarray] = deque()
        self._outputs: deque[Tensor] = deque()
        self._open: deque[tuple[Photo, int]] = deque()
        self._fits: int | None = None

    def add(self, photo: Photo, inputs: np.ndarray) -> Iterator[tuple[Photo, np.ndarray]]:
        """Adds one photo and yields the photos that are done, in order, with their targets.

        Args:
            photo: The photo.
            inputs: What `Teacher.inputs` returned for it, (N, side, side, 3) uint8.

        Raises:
            DenseCLIError: A target is not finite.
        """
        self._open.append((photo, len(inputs)))
        self._inputs.extend(inputs)
        size = max(1, self._batch_size * photo.canvas.size**2 // inputs.shape[1] ** 2)
        while len(self._inputs) >= size:
            self._run(size)
        yield from self._done()

    def finish(self) -> Iterator[tuple[Photo, np.ndarray]]:
        """Yields the photos that were waiting for a full batch."""
        if self._inputs:
            self._run(len(self._inputs))
        yield from self._done()

    def _run(self, size: int) -> None:
        if self._stop.is_set():
            raise Stopped
        batch = np.stack([self._inputs.popleft() for _ in range(size)])
        with self._timer("teacher"):
            self._outputs.extend(self._forward(torch.from_numpy(batch).permute(0, 3, 1, 2)))
            self._synchronize()

    @torch.inference_mode()
    def _forward(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yields the outputs for a batch, in parts if it does not fit into the device's memory.

        Once a batch had to be halved, the batches of the rest of the shard are halved too.
        """
        start = 0
        while start < len(inputs):
            part = inputs[start : start + (self._fits or len(inputs))]
            try:
                outputs = self._teacher.forward(part.to(self._teacher.device))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self._fits = len(part) // 2
            else:
                yield from outputs
                start += len(part)

    @torch.inference_mode()
    def _done(self) -> Iterator[tuple[Photo, np.ndarray]]:
        while self._open and len(self._outputs) >= self._open[0][1]:
            photo, count = self._open.popleft()
            with self._timer("teacher"):
                target = self._teacher.target(photo, [self._outputs.popleft() for _ in range(count)])
                self._synchronize()
            if not np.isfinite(target).all():
                raise DenseCLIError(
                    f"The teacher {self._teacher.name} returned NaN or infinite values for {photo.key}.",
                    hint="Check its weights. Nothing of this shard was written.",
                )
            yield photo, target

    def _synchronize(self) -> None:
        if self._teacher.device.type == "cuda":
            torch.cuda.synchronize(self._teacher.device)


def live_targets(
    teacher: Teacher, photos: Iterable[Photo], batch_size: int = BuildConfig.batch_size
) -> list[np.ndarray]:
    """Returns a teacher's target for each photo, before any codec.

    Args:
        teacher: A loaded teacher.
        photos: Photos as stored.
        batch_size: See `Batcher`.
    """
    batcher = Batcher(teacher, batch_size, StageTimer())
    targets = [target for photo in photos for _, target in batcher.add(photo, teacher.inputs(photo))]
    return targets + [target for _, target in batcher.finish()]
