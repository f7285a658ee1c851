"""The batcher: runs a teacher on full batches, whatever the number of inputs of a photo, without waiting."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from torch import Tensor

from densecli.core.device import Precision
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import Stopped
from densecli.core.stage_timer import StageTimer
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.room import Room
from densecli.pipeline.teachers.base import Photo, Reducing, Teacher
from densecli.pipeline.transfers import Arrival, to_device
from densecli.shards.specs import FULL_PRECISION

Parts = tuple[np.ndarray, ...]
"""What `Teacher.encode` takes of a photo."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A teacher as a build runs it, over all shards.

    Attributes:
        teacher: The teacher.
        precision: The precision of its arithmetic.
        room: What its device has room for.
    """

    teacher: Teacher
    precision: Precision
    room: Room

    @classmethod
    def of(cls, teacher: Teacher, precision: str = FULL_PRECISION) -> "Run":
        """A run in a precision, of which nothing is known yet.

        Raises:
            DenseCLIError: The device does not have this precision.
        """
        if precision == "tf32" and teacher.device.type != "cuda":
            raise DenseCLIError(
                f"The teacher {teacher.name} cannot compute in tf32 on {teacher.device}: only GPUs can.",
                hint="Run it on a GPU, or give --teacher-precision fp32, which makes another column.",
            )
        return cls(
            teacher=teacher,
            precision=Precision(name=precision, device=teacher.device),
            room=Room(teacher.name, teacher.device),
        )


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """A batch on its way.

    Attributes:
        photos: The photos that are complete with it.
        counts: Number of parts of each photo.
        arrival: The parts of all photos, one after the other, and whether each photo's target is finite.
        started: When the GPU began with it; None on a CPU.
    """

    photos: list[Photo]
    counts: list[int]
    arrival: Arrival
    started: torch.cuda.Event | None


class Batcher:
    """Runs one teacher on photos whose inputs share batches. All batches but the last are full.

    On a GPU the host waits once for a batch, after it has launched the next: so the GPU always has work.
    """

    def __init__(
        self,
        run: Run,
        batch_size: int,
        timer: StageTimer,
        stop: Event | None = None,
        *,
        reduce: bool = True,
    ) -> None:
        """Starts with no photos.

        Args:
            run: The teacher.
            batch_size: Number of canvases in a batch. Inputs of another size are batched to as many pixels.
            timer: Measures the stage "teacher": on a GPU the time that the device spends.
            stop: Once set, the next batch is replaced by core.prefetch.Stopped.
            reduce: Whether targets are reduced to what `encode` takes, see `Reducing`.
        """
        self._stop = stop or Event()
        self._run = run
        self._teacher = run.teacher
        self._device = run.teacher.device
        self._batch_size = batch_size
        self._timer = timer
        self._reduce = reduce
        self._inputs: deque[np.ndarray] = deque()
        self._outputs: list[Tensor] = []
        self._open: deque[tuple[Photo, int]] = deque()
        self._under_way: deque[_Batch] = deque()

    def add(self, photo: Photo, inputs: np.ndarray) -> Iterator[tuple[Photo, Parts]]:
        """Adds one photo and yields photos that are done, in order, with what `encode` takes.

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
            self._launch(size)
            yield from self._done(keep=1 if self._device.type == "cuda" else 0)

    def finish(self) -> Iterator[tuple[Photo, Parts]]:
        """Yields the photos that were waiting for a full batch."""
        if self._open:
            self._launch(len(self._inputs))
        yield from self._done()

    @torch.inference_mode()
    def _launch(self, size: int) -> None:
        """Starts a batch, and whatever is to be done for the photos that it completes."""
        if self._stop.is_set():
            raise Stopped
        rows = [self._inputs.popleft() for _ in range(size)]
        started = None
        if self._device.type == "cuda":
            started = torch.cuda.Event(enable_timing=True)
            started.record(torch.cuda.current_stream(self._device))
            self._start(rows, started)
        else:
            with self._timer("teacher"):
                self._start(rows, None)

    def _start(self, rows: Sequence[np.ndarray], started: torch.cuda.Event | None) -> None:
        if rows:
            self._outputs += self._run.room.run("forward", len(rows), lambda a, b: self._forward(rows[a:b]))
        photos, outputs = self._complete()
        if photos:
            found = self._run.room.run(
                "target", len(photos), lambda a, b: self._finish(photos[a:b], outputs[a:b])
            )
            parts = [of_photo for some, _ in found for of_photo in some]
            finite = torch.cat([flags for _, flags in found])
            arrival = Arrival([*(part for of_photo in parts for part in of_photo), finite], self._device)
            counts = [len(of_photo) for of_photo in parts]
            self._under_way.append(_Batch(photos=photos, counts=counts, arrival=arrival, started=started))

    def _forward(self, rows: Sequence[np.ndarray]) -> Tensor:
        batch = to_device(rows, self._device).permute(0, 3, 1, 2)
        with self._run.precision.block():
            return self._teacher.forward(batch)

    def _complete(self) -> tuple[list[Photo], list[Tensor]]:
        """Takes the photos all of whose outputs are there, with their outputs."""
        there, taken = sum(map(len, self._outputs)), 0
        photos: list[Photo] = []
        counts: list[int] = []
        while self._open and taken + self._open[0][1] <= there:
            photo, count = self._open.popleft()
            taken += count
            photos.append(photo)
            counts.append(count)
        if not photos:
            return [], []
        if not taken:
            return photos, [torch.empty(0, device=self._device)] * len(photos)
        outputs = self._outputs[0] if len(self._outputs) == 1 else torch.cat(self._outputs)
        self._outputs = [outputs[taken:]] if taken < there else []
        return photos, list(outputs[:taken].split(counts))

    def _finish(self, photos: list[Photo], outputs: list[Tensor]) -> tuple[list[tuple[Tensor, ...]], Tensor]:
        """The parts of some photos, and whether their targets are finite, (B,) bool."""
        with self._run.precision.block():
            targets = self._teacher.targets(photos, outputs)
        finite = torch.stack([target.isfinite().all() for target in targets])
        if self._reduce and isinstance(self._teacher, Reducing):
            return self._teacher.reduce(targets), finite
        return [(target,) for target in targets], finite

    def _done(self, keep: int = 0) -> Iterator[tuple[Photo, Parts]]:
        """Waits for batches until `keep` are left, and yields their photos."""
        while len(self._under_way) > keep:
            batch = self._under_way.popleft()
            *parts, finite = batch.arrival.wait()
            if batch.started:
                self._timer.add("teacher", batch.arrival.seconds_since(batch.started))
            remaining = iter(parts)
            for photo, count, is_finite in zip(batch.photos, batch.counts, finite, strict=True):
                if not is_finite:
                    raise DenseCLIError(
                        f"The teacher {self._teacher.name} returned NaN or infinite values for {photo.key}.",
                        hint="Check its weights. Nothing of this shard was written.",
                    )
                yield photo, tuple(next(remaining) for _ in range(count))


def live_targets(
    teacher: Teacher,
    photos: Iterable[Photo],
    batch_size: int = BuildConfig.batch_size,
    precision: str = FULL_PRECISION,
) -> list[np.ndarray]:
    """Returns a teacher's target for each photo, before any codec.

    Args:
        teacher: A loaded teacher.
        photos: Photos as stored.
        batch_size: See `Batcher`.
        precision: The precision of its arithmetic.
    """
    batcher = Batcher(Run.of(teacher, precision), batch_size, StageTimer(), reduce=False)
    targets = [parts[0] for photo in photos for _, parts in batcher.add(photo, teacher.inputs(photo))]
    return targets + [parts[0] for _, parts in batcher.finish()]
