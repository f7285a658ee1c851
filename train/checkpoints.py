"""Checkpoints: everything that a run needs to continue as if it had never stopped."""

import io
import re
import warnings
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from densecli.core import fs
from densecli.core.errors import DenseCLIError

_NAME = re.compile(r"step-(\d{8})\.pt")


def checkpoint_path(folder: str, step: int) -> str:
    """Path of the checkpoint of a step."""
    return fs.join(folder, f"step-{step:08d}.pt")


def save_checkpoint(folder: str, state: dict[str, Any], *, keep: int, also: Collection[int] = ()) -> str:
    """Writes a checkpoint atomically, then removes the oldest ones.

    Args:
        folder: Folder of the checkpoints.
        state: Tensors and plain values, including `step`.
        keep: Number of checkpoints that stay: those written last, whatever their steps. One of a later step
            that is older belongs to another run.
        also: Steps whose checkpoints stay besides.

    Returns:
        Path of the checkpoint.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = checkpoint_path(folder, state["step"])
    stay = {path, *(checkpoint_path(folder, step) for step in also)}
    fs.write_atomic(path, buffer.getvalue())
    files = fs.files(folder)
    for name in sorted(_names(folder), key=lambda name: (files[name].modified, name))[:-keep]:
        if fs.join(folder, name) not in stay:
            fs.remove(fs.join(folder, name))
    return path


class CheckpointWriter:
    """Writes checkpoints in a thread, while the training goes on."""

    def __init__(self, folder: str, *, keep: int) -> None:
        """Starts the thread; for the arguments see `save_checkpoint`."""
        self._folder, self._keep = folder, keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[str] | None = None

    def write(self, state: dict[str, Any], also: Collection[int] = ()) -> None:
        """Copies a state, whose tensors may change afterwards, and writes the copy.

        Waits for the write before. Raises DenseCLIError if that one failed. `also`: see `save_checkpoint`.
        """
        self.wait()
        self._writing = self._pool.submit(
            save_checkpoint, self._folder, copied(state), keep=self._keep, also=also
        )

    def check(self) -> None:
        """Raises DenseCLIError if a write has failed; waits for none."""
        if self._writing and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits until everything is written. Raises DenseCLIError if it failed."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def close(self) -> None:
        """Waits for the thread to end."""
        self._pool.shutdown()


def copied(state: Any) -> Any:
    """A copy of nested dicts and lists, with their tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: copied(value) for name, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list) else state


def latest_checkpoint(folder: str) -> str | None:
    """Path of the newest checkpoint in a folder, None if there is none."""
    names = _names(folder)
    return fs.join(folder, names[-1]) if names else None


def load_checkpoint(path: str) -> dict[str, Any]:
    """Reads a checkpoint to the CPU without unpickling code. Raises DenseCLIError for a damaged file."""
    try:
        data = io.BytesIO(fs.read_bytes(path))
        with warnings.catch_warnings():
            # The error below says enough of a damaged file.
            warnings.simplefilter("ignore")
            state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
        if type(state["step"]) is not int or not isinstance(state.get("config", {}), dict):
            raise TypeError("it is no checkpoint of a training")
    except Exception as error:  # torch.load raises anything from KeyError to RuntimeError on a damaged file
        cause = (str(error).splitlines() or [""])[0][:200].rstrip(".") or type(error).__name__
        raise DenseCLIError(
            f"The checkpoint {path} cannot be read: {cause}.",
            hint="Remove it to continue from the one before, or start again with --resume overwrite.",
        ) from error
    if "bad_steps" in state:  # the name in version 0.1
        state["nonfinite_steps"] = state.pop("bad_steps")
    return state


def rng_state() -> dict[str, Any]:
    """Torch's random state on the CPU and on the current GPU, which training steps may use."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restores what `rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _names(folder: str) -> list[str]:
    return sorted(name for name in fs.listdir(folder) if _NAME.fullmatch(name))
