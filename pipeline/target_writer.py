"""The target writer: makes a shard of a teacher's column, from the inputs to the finished tar."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NamedTuple

import numpy as np

from densecli.core.prefetch import Pending
from densecli.core.stage_timer import StageTimer
from densecli.pipeline.batcher import Batcher, Parts, Run, live_targets
from densecli.pipeline.stored_error import of_full_precision, stored_error
from densecli.pipeline.teachers import Photo
from densecli.shards.codecs import Errors, combine_errors
from densecli.shards.receipts import Receipt
from densecli.shards.specs import FULL_PRECISION
from densecli.shards.store import Column
from densecli.shards.writer import ShardWriter, npz_bytes

SHARDS_PER_PROBE = 16


class _Encoded(NamedTuple):
    key: str
    npz: bytes
    error: Errors


class TargetWriter:
    """Writes a shard of a teacher's column. A pool encodes targets while the teacher continues."""

    def __init__(
        self,
        column: Column,
        run: Run,
        shard: str,
        *,
        batch_size: int,
        window: int,
        pool: ThreadPoolExecutor,
        stop: Event,
    ) -> None:
        """Starts the shard.

        Args:
            column: The teacher's column.
            run: The loaded teacher.
            shard: Name of the shard.
            batch_size: See `Batcher`.
            window: Number of targets that may wait to be encoded.
            pool: Encodes targets.
            stop: See `Batcher`.
        """
        self._column = column
        self._teacher = run.teacher
        self._writer = ShardWriter(column, shard)
        self._timer = StageTimer()
        self._batcher = Batcher(run, batch_size, self._timer, stop)
        self._errors: list[Errors] = []
        self._window = window
        # A lower precision's cost is measured on the first photo of every 16th shard. On a GPU float32 takes
        # up to sixteen times as long, so on all shards it would cost a share of the build.
        lower = run.precision.name != FULL_PRECISION
        self._measures = lower and column.shard_names.index(shard) % SHARDS_PER_PROBE == 0
        self._exact: tuple[str, np.ndarray] | None = None
        self._cost: Errors = {}
        self._encoding = Pending[_Encoded](pool)

    def prepare(self, photo: Photo) -> np.ndarray:
        """Returns the teacher's inputs for a photo. Thread-safe."""
        with self._timer("prepare"):
            return self._teacher.inputs(photo)

    def add(self, photo: Photo, inputs: np.ndarray) -> None:
        """Adds the next photo of the shard with its inputs."""
        if self._measures and self._exact is None:
            with self._timer("teacher"):
                self._exact = photo.key, live_targets(self._teacher, [photo])[0]
        self._encode(self._batcher.add(photo, inputs))

    def finish(self) -> None:
        """Runs the teacher on the rest of the shard."""
        self._encode(self._batcher.finish())

    def commit(self, shared: dict[str, float]) -> Receipt:
        """Publishes the shard.

        Args:
            shared: This teacher's share of the seconds that were spent for all teachers, by stage.
        """
        self._write(keep=0)
        own = self._timer.seconds
        return self._writer.commit(
            seconds={stage: own.get(stage, 0) + shared.get(stage, 0) for stage in {**shared, **own}},
            gpu_seconds=own["teacher"] if self._teacher.device.type == "cuda" else 0.0,
            error={**combine_errors(self._errors), **self._cost},
        )

    def _encode(self, targets: Iterable[tuple[Photo, Parts]]) -> None:
        for photo, parts in targets:
            self._encoding.submit(self._encoded, photo, parts)
            with self._timer("wait"):
                self._write(keep=self._window)

    def _encoded(self, photo: Photo, parts: Parts) -> _Encoded:
        with self._timer("encode"):
            arrays, error = self._teacher.encode(photo, *parts)
            if self._exact and photo.key == self._exact[0]:
                self._cost = of_full_precision(stored_error(self._column, arrays, self._exact[1]))
            return _Encoded(photo.key, npz_bytes(arrays), error)

    def _write(self, keep: int) -> None:
        """Writes encoded targets, in order, until only `keep` of them are still being encoded."""
        for encoded in self._encoding.results(keep=keep):
            self._writer.add(encoded.key, {"npz": encoded.npz})
            self._errors.append(encoded.error)
