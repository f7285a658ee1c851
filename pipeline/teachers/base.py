"""What the pipeline asks of a teacher, whatever it says, and how it is asked: in full batches."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.core.stage_timer import StageTimer
from densecli.models.checkpoints import weights_sha256
from densecli.models.registry import resolve
from densecli.shards.codecs import Arrays, Errors
from densecli.shards.geometry import Canvas
from densecli.shards.regions import Regions


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A sample as the store has it. image: (h, w, 3) uint8, un-padded."""

    key: str
    image: np.ndarray
    canvas: Canvas
    regions: Regions

    def padded(self) -> np.ndarray:
        """(S, S, 3) uint8, the whole canvas."""
        return self.canvas.pad(self.image)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one photo costs. stored: arrays of zeros, of the shapes and types that are stored of it. once:
    FLOPs of looking at it for the store. visit: FLOPs of a live teacher, at each visit of a training."""

    stored: Arrays
    once: float
    visit: float


class Teacher(Protocol):
    """A frozen network on its device."""

    name: str
    device: torch.device

    def inputs(self, photo: Photo) -> np.ndarray:
        """The square pictures it looks at for one photo: (N, side, side, 3) uint8, N >= 0."""
        ...

    def look(self, pictures: Tensor) -> Tensor:
        """(B, 3, side, side) uint8 on its device -> what it sees in each of the B."""
        ...

    def target(self, photo: Photo, seen: list[Tensor]) -> np.ndarray:
        """What it says about a photo, from what it saw in the photo's pictures."""
        ...

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """The arrays that are stored for a photo's target, and the codec's error on it."""
        ...


class TeacherConfig(Protocol):
    """A teacher that is not loaded yet: small, picklable, and enough to name its column."""

    @property
    def name(self) -> str:
        """The column's name."""
        ...

    @property
    def of_regions(self) -> bool:
        """Whether its targets are of a region plan's boxes; else they hold for any boxes."""
        ...

    def spec(self) -> dict[str, Any]:
        """All that a stored target depends on beside data, canvas and regions: it enters the key."""
        ...

    def info(self) -> dict[str, Any]:
        """What a reader may want to know and the key does not need."""
        ...

    def cost(self, photo: Photo) -> Cost:
        """What a photo will cost; needs no weights, and no pixels of it."""
        ...

    def load(self, device: str) -> Teacher: ...


class Batcher:
    """One teacher's way through photos: its pictures of several photos share a batch, so that every batch is
    full but the last, however many pictures a photo has."""

    def __init__(self, teacher: Teacher, batch_size: int, clock: StageTimer) -> None:
        """batch_size: in canvases; pictures of another side come as many as have the same pixels.

        The clock's stage "teacher" ends when the device has finished, so on a GPU it is the GPU's time too.
        """
        self.teacher = teacher
        self.batch_size = batch_size
        self.clock = clock
        self._pictures: deque[np.ndarray] = deque()
        self._seen: deque[Tensor] = deque()
        self._open: deque[tuple[Photo, int]] = deque()
        self._fits: int | None = None

    def add(self, photo: Photo, pictures: np.ndarray) -> Iterator[tuple[Photo, np.ndarray]]:
        """Takes one more photo with the teacher's `inputs` of it; gives the photos that are done with it, in
        order, with their targets."""
        self._open.append((photo, len(pictures)))
        self._pictures.extend(pictures)
        size = max(1, self.batch_size * photo.canvas.size**2 // pictures.shape[1] ** 2)
        while len(self._pictures) >= size:
            self._look(size)
        yield from self._done()

    def finish(self) -> Iterator[tuple[Photo, np.ndarray]]:
        """The photos that waited for a full batch."""
        if self._pictures:
            self._look(len(self._pictures))
        yield from self._done()

    def _look(self, size: int) -> None:
        batch = np.stack([self._pictures.popleft() for _ in range(size)])
        with self.clock("teacher"):
            self._seen.extend(self._see(torch.from_numpy(batch).permute(0, 3, 1, 2)))
            self._synchronize()

    @torch.inference_mode()
    def _see(self, pictures: Tensor) -> Iterator[Tensor]:
        """What the teacher sees in each, in as many steps as its device's memory asks for.

        Once half of a batch was all that had room, the rest of the shard goes in halves.
        """
        start = 0
        while start < len(pictures):
            some = pictures[start : start + (self._fits or len(pictures))]
            try:
                seen = self.teacher.look(some.to(self.teacher.device))
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise
                self._fits = len(some) // 2
            else:
                yield from seen
                start += len(some)

    @torch.inference_mode()
    def _done(self) -> Iterator[tuple[Photo, np.ndarray]]:
        while self._open and len(self._seen) >= self._open[0][1]:
            photo, count = self._open.popleft()
            with self.clock("teacher"):
                target = self.teacher.target(photo, [self._seen.popleft() for _ in range(count)])
                self._synchronize()
            if not np.isfinite(target).all():
                raise DenseCLIError(
                    f"The teacher {self.teacher.name} says NaN.",
                    hint="Check its weights: nothing was written.",
                )
            yield photo, target

    def _synchronize(self) -> None:
        if self.teacher.device.type == "cuda":
            torch.cuda.synchronize(self.teacher.device)


def live(teacher: Teacher, photos: Iterable[Photo], batch_size: int = 16) -> list[np.ndarray]:
    """What a teacher says about photos, before any codec: a target each."""
    asking = Batcher(teacher, batch_size, StageTimer())
    said = [target for photo in photos for _, target in asking.add(photo, teacher.inputs(photo))]
    return said + [target for _, target in asking.finish()]


def weights_id(weights: str) -> str:
    """What stands in a column's key for a teacher's weights: random:SEED, or the sha256 of the file."""
    return weights if weights.startswith("random:") else file_sha256(weights, "--weights")


def clip_spec(model: str, weights: str, pixels: str) -> dict[str, Any]:
    """What every teacher that is a CLIP says of it in its spec; `pixels`: which it looks at, in words.

    Digests the weights; raises DenseCLIError where they are missing.
    """
    arch = resolve(model)
    return {
        "architecture": arch.name,
        "weights": weights_id(weights),
        "preprocessing": {"mean": list(arch.mean), "std": list(arch.std), "input": pixels},
    }


def weights_info(weights: str) -> dict[str, Any]:
    """Where a teacher's weights were found, and whether they are random."""
    return {"weights": weights, "random_weights": weights.startswith("random:")}


def file_sha256(path: str, flag: str) -> str:
    """sha256 of a file that was given to `flag`; DenseCLIError where it is not there."""
    if not os.path.isfile(path):
        raise DenseCLIError(f"There is no file {path}.", hint=f"Check what was given to {flag}.")
    return weights_sha256(path)
