"""The base of teachers: what a build needs from every teacher, whatever it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from densecli.core import fs, hub
from densecli.core.errors import DenseCLIError
from densecli.models.registry import MODELS
from densecli.models.vfms import architecture_of
from densecli.models.weights import given_for, is_random, located, random_seed, weights_sha256
from densecli.pipeline.transfers import to_device
from densecli.shards.codecs import Arrays, Errors
from densecli.shards.geometry import Canvas
from densecli.shards.joined import Record
from densecli.shards.regions import Regions
from densecli.shards.specs import FULL_PRECISION, ColumnInfo, NetworkSpec, TeacherSpec

if TYPE_CHECKING:
    from densecli.pipeline.config import BuildConfig


def with_precision(spec: TeacherSpec, precision: str) -> TeacherSpec:
    """Returns a teacher's spec for a column that is made in this precision."""
    # fp32 stays unsaid, as it was before there were others: such columns keep their ids.
    return spec if precision == FULL_PRECISION else {**spec, "precision": precision}


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A sample as stored.

    Attributes:
        key: Key of the sample.
        image: (h, w, 3) uint8, without padding.
        canvas: The canvas that the image is on.
        regions: The boxes of every view.
        shard: The samples of its shard, for teachers that look at other photos too.
    """

    key: str
    image: np.ndarray
    canvas: Canvas
    regions: Regions
    shard: Sequence[Record] = ()
    _prepared: dict[Hashable, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def padded(self) -> np.ndarray:
        """Returns the whole canvas, (S, S, 3) uint8."""
        return self.once("padded", lambda: self.canvas.pad(self.image))

    def once(self, what: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Returns what `make` makes, the same array to every teacher that asks for it.

        Args:
            what: Names the array with all that it depends on besides the photo.
            make: Makes it.
        """
        if what not in self._prepared:
            self._prepared[what] = make()
        return self._prepared[what]

    def forget(self) -> None:
        """Drops what `once` keeps."""
        self._prepared.clear()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one photo.

    Attributes:
        stored: Arrays of zeros with the shapes and types of the stored target.
        once: FLOPs to make the target for the store.
        visit: FLOPs of a live teacher each time a training visits the photo.
        most: The same as `stored` for the largest target, if the size depends on what the teacher says;
            `stored` is then the smallest.
    """

    stored: Arrays
    once: float
    visit: float
    most: Arrays | None = None


class Teacher(Protocol):
    """A frozen network on its device. `Batcher` calls inputs, forward and targets; the build calls encode.

    `forward` and `targets` run at the precision of the column; `core.device.full_precision` is for what must
    be exact. Nothing in them should make the host wait for a GPU.
    """

    name: str
    device: torch.device

    def inputs(self, photo: Photo) -> np.ndarray:
        """Returns the square inputs of the network for one photo, (N, side, side, 3) uint8, N >= 0."""
        ...

    def forward(self, inputs: Tensor) -> Tensor:
        """Runs the network on a batch.

        Args:
            inputs: (B, 3, side, side) uint8, on the teacher's device.

        Returns:
            (B, ...), one output for each input.
        """
        ...

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Makes the targets of the photos that a batch completes.

        Args:
            photos: The photos.
            outputs: For each of them (N, ...), the outputs for its inputs, in their order.

        Returns:
            The float32 target of each photo, on the device.
        """
        ...

    def encode(self, photo: Photo, target: np.ndarray, /) -> tuple[Arrays, Errors]:
        """Returns the arrays that are stored for a photo's target, and the codec's error on it.

        A `Reducing` teacher takes what `reduce` made of the target in place of it.
        """
        ...


@runtime_checkable
class Reducing(Protocol):
    """A teacher that makes what is stored on its device, so that less work and fewer bytes reach the host."""

    def reduce(self, targets: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Returns the arguments of `encode` after the photo, for each target. Runs in full precision."""
        ...


class TeacherConfig(Protocol):
    """A teacher before it is loaded: small, picklable, and enough to name its column."""

    @property
    def name(self) -> str:
        """The column's name."""
        ...

    def spec(self) -> TeacherSpec:
        """Returns what a target depends on besides photos, canvas and regions, for the column's key.

        Raises:
            DenseCLIError: A file is missing.
        """
        ...

    def info(self) -> ColumnInfo:
        """Returns facts for readers that are not part of the key.

        They include `random_weights`, and usually `weights`.
        """
        ...

    def cost(self, photo: Photo) -> Cost:
        """Returns the cost of a photo. Needs neither weights nor pixels."""
        ...

    def load(self, device: str) -> Teacher:
        """Loads the teacher onto a device.

        Raises:
            DenseCLIError: The weights do not fit.
        """
        ...


def boxes_of(boxes: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the boxes of several photos as one batch.

    Args:
        boxes: (N, 4) float32 of each photo.
        device: Where to copy them, without waiting.

    Returns:
        (R, 4) boxes of all photos, and (R,) the photo of each.
    """
    of_photo = np.repeat(np.arange(len(boxes), dtype=np.float32), [len(some) for some in boxes])
    rows = to_device([np.column_stack([np.concatenate(boxes), of_photo])], device)[0]
    return rows[:, :4], rows[:, 4]


def weights_for(model: str, settings: BuildConfig) -> str:
    """Returns the weights of a model in a build, downloaded unless it is a dry run; see `absolute_weights`.

    Raises:
        DenseCLIError: See `densecli.models.weights.located`.
    """
    return absolute_weights(model, given_for(model, settings.weights), settings)


def clip_names() -> Iterable[str]:
    """Returns the names of the CLIPs, for suggestions."""
    return MODELS


def absolute_weights(name: str, weights: str | None, settings: BuildConfig) -> str:
    """Returns what every node of a cluster can find: an absolute path, random:SEED, or a file on the hub.

    Each node has the hub's files in its own cache, or downloads them there. Here they are downloaded before
    workers start, which would wait for one another, and where the user sees how far it is.
    """
    found = located(name, weights)
    if random_seed(found) is not None:
        return found
    if not hub.is_hub(found):
        return fs.absolute(found)
    if not settings.dry_run:
        hub.local_file(found)
    return found


def weights_id(weights: str) -> str:
    """Returns the identity of a teacher's weights in a column's key: random:SEED or the file's sha256.

    So a file and the same file on the hub make the same column.
    """
    if is_random(weights):
        return weights
    return weights_sha256(weights) if hub.is_hub(weights) else file_sha256(weights, "--weights")


def clip_spec(model: str, weights: str, pixels: str) -> NetworkSpec:
    """Returns the part of a spec that all teachers have that are CLIPs, or VFMs read as such.

    Args:
        model: Name or alias of the CLIP, or name of the VFM.
        weights: As `weights_for` gives them.
        pixels: Describes what it sees of a photo.

    Raises:
        DenseCLIError: The weights are missing.
    """
    arch = architecture_of(model)
    return {
        "architecture": arch.name,
        "weights": weights_id(weights),
        "preprocessing": {"mean": list(arch.mean), "std": list(arch.std), "input": pixels},
    }


def weights_info(weights: str) -> ColumnInfo:
    """Returns the source of a teacher's weights, and whether they are random."""
    return {"weights": weights, "random_weights": is_random(weights)}


def file_sha256(path: str, option: str) -> str:
    """Returns the sha256 of a file that was given to an option.

    Raises:
        DenseCLIError: There is no such file.
    """
    if not os.path.isfile(path):
        raise DenseCLIError(f"There is no file {path}.", hint=f"Check what was given to {option}.")
    return weights_sha256(path)
