"""The run folder: RUN/config.json, metrics.jsonl, tensorboard/, checkpoints/, export/."""

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.train.checkpoints import latest_checkpoint
from densecli.train.config import Resume


class RunFolder:
    """Paths of one run, in a local folder: its metrics grow row by row."""

    def __init__(self, root: str | Path) -> None:
        if "://" in str(root):
            raise DenseCLIError(
                "A run is written to a local folder, not to an address.",
                hint="Name a folder with --run, and copy it afterwards.",
            )
        self.root = Path(root)
        self.config = self.root / "config.json"
        self.metrics = self.root / "metrics.jsonl"
        self.tensorboard = self.root / "tensorboard"
        self.checkpoints = str(self.root / "checkpoints")
        self.export = str(self.root / "export")

    def open(
        self,
        config: dict[str, Any],
        resume: Resume,
        free: frozenset[str] = frozenset(),
        *,
        dry_run: bool = False,
    ) -> str | None:
        """Makes the folder ready for `config` (JSON values); returns the checkpoint to continue from, if any.

        interrupted: continue the run that is there, where its settings are the same but for those named in
        `free`; never: refuse to touch a run that is there; overwrite: remove it. dry_run: only say where it
        would continue. Raises DenseCLIError.
        """
        if self.config.exists():
            if resume == "never":
                raise DenseCLIError(
                    f"There is a run in {self.root} already.",
                    hint="Choose another --run, or --resume overwrite.",
                )
            if resume != "overwrite":
                self._check_same(config, free)
            elif dry_run:
                return None
            else:
                self._remove()
        if not dry_run:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            fs.write_atomic(str(self.config), json.dumps(config, indent=2).encode())
        return latest_checkpoint(self.checkpoints)

    def _remove(self) -> None:
        for folder in (self.tensorboard, self.checkpoints, self.export):
            shutil.rmtree(folder, ignore_errors=True)
        self.metrics.unlink(missing_ok=True)
        self.config.unlink()

    def _sweep(self) -> None:
        """Removes what a killed process was writing: a checkpoint may be gigabytes."""
        for folder in (str(self.root), self.checkpoints, self.export):
            for name in filter(fs.is_temporary, fs.files(folder)):
                fs.remove(fs.join(folder, name))

    def _check_same(self, config: dict[str, Any], free: frozenset[str]) -> None:
        old, config = _without_places(json.loads(self.config.read_bytes())), _without_places(config)
        changed = [
            f"{name} {old.get(name)!r} -> {config.get(name)!r}"
            for name in sorted((old.keys() | config.keys()) - free)
            if old.get(name) != config.get(name)
        ]
        if changed:
            hint = "Choose another --run, or --resume overwrite."
            if old.get("samples_per_step") != config.get("samples_per_step"):
                samples = f"--batch-size x --accumulate x processes = {old['samples_per_step']}"
                hint = f"Keep {samples}, or choose another --run, or --resume overwrite."
            raise DenseCLIError(
                f"The run in {self.root} was started with other settings: {'; '.join(changed)}.", hint=hint
            )


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The settings but for where files lay: of the initial weights the digest counts."""
    weights = {k: v for k, v in config.get("initial_weights", {}).items() if k != "source"}
    return {**config, "initial_weights": weights}


class Metrics:
    """One row a step, in metrics.jsonl and in TensorBoard."""

    def __init__(self, folder: RunFolder, *, step: int) -> None:
        """Keeps the rows up to `step` steps (those of a resumed run) and drops what was logged after it."""
        rows = folder.metrics.read_text().splitlines(keepends=True)[:step] if folder.metrics.exists() else []
        fs.write_atomic(str(folder.metrics), "".join(rows).encode())
        self.last: dict[str, float | None] = json.loads(rows[-1]) if rows else {}
        self._file = folder.metrics.open("a", buffering=1)
        self._board = SummaryWriter(str(folder.tensorboard), purge_step=step + 1)

    def log(self, row: dict[str, float]) -> None:
        """A number that is not finite becomes null, for JSON has none."""
        self.last = {name: value if math.isfinite(value) else None for name, value in row.items()}
        self._file.write(json.dumps(self.last) + "\n")
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, int(row["step"]))

    def begun(self, seconds: float) -> None:
        """To TensorBoard alone: rows say what a step did, whoever took it."""
        self._board.add_scalar("seconds_to_first_step", seconds, self.last["step"])

    def sync(self) -> None:
        """Puts the rows on disk: a checkpoint must not outlive the rows of its steps."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        self._board.close()


class Report:
    """What a run says while it goes: its metrics, and its progress on standard error."""

    def __init__(self, folder: RunFolder, *, step: int, total: int) -> None:
        """step: of the `total` steps those that were taken before."""
        self._metrics = Metrics(folder, step=step)
        self._progress = Progress(total, "steps", done=step)

    @property
    def last(self) -> dict[str, float | None]:
        """The row of the last step, of this run of the command or of one before."""
        return self._metrics.last

    def log(self, row: dict[str, float]) -> None:
        self._metrics.log(row)
        self._progress.advance(1, f"loss {row['loss']:.4f}, {row['images_per_s']:.1f} images/s")

    def begun(self, seconds: float) -> None:
        """Says after how many seconds the first step of this process was done."""
        self._metrics.begun(seconds)
        tqdm.write(f"The first step was done {seconds:.1f} s after the start.", file=sys.stderr)

    def sync(self) -> None:
        """See `Metrics.sync`."""
        self._metrics.sync()

    def close(self) -> None:
        self._metrics.close()
        self._progress.close()


class Silence(Report):
    """Of the processes that leave it to another to report."""

    def __init__(self) -> None:
        pass

    @property
    def last(self) -> dict[str, float | None]:
        return {}

    def log(self, row: dict[str, float]) -> None:
        pass

    def begun(self, seconds: float) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass
