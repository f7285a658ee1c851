"""The run folder: RUN/config.json, metrics.jsonl, tensorboard/, checkpoints/, export/."""

import json
import os
import shutil
import socket
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.train.checkpoints import latest_checkpoint
from densecli.train.run_config import with_current_values
from densecli.train.trainer_config import Resume


class RunFolder:
    """Paths of one run, in a local folder, and the lock of the process that writes it.

    Attributes:
        root: The folder.
        config: File of the resolved configuration.
        metrics: File with a row for each step.
        tensorboard: Folder of TensorBoard's event files.
        checkpoints: Folder of the checkpoints.
        export: Folder of the exported weights.
    """

    LOGGERS = "loggers.json"
    """File with the ids under which services know the run."""
    LOCK = ".lock"
    """Locked by the process that writes the run; says which one it is."""

    def __init__(self, root: str | Path) -> None:
        """Raises DenseCLIError for an address."""
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
        self._lock = FileLock(self.root / self.LOCK)

    def open(
        self,
        config: dict[str, Any],
        resume: Resume,
        *,
        free: Collection[str] = (),
        defaults: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> str | None:
        """Locks the folder and makes it ready for a training; `close` unlocks it.

        Args:
            config: The resolved configuration, JSON values.
            resume: interrupted: continue the run that is there, whose settings have to be the same; never:
                refuse to touch a run that is there; overwrite: remove it.
            free: Settings that may differ from those of the run that is there.
            defaults: Values of settings that the run that is there does not know, because it was started by
                an earlier version.
            dry_run: Only say where it would continue; lock and write nothing.

        Returns:
            Path of the checkpoint to continue from, None where there is none.

        Raises:
            DenseCLIError: Where another process writes the run, and where `resume` forbids to touch it.
        """
        if not dry_run:
            self.root.mkdir(parents=True, exist_ok=True)
            self._acquire()
        try:
            return self._prepare(config, resume, free, defaults or {}, dry_run=dry_run)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlocks the folder."""
        if self._lock.is_locked:
            (self.root / self.LOCK).write_text("")
            self._lock.release()

    def _acquire(self) -> None:
        """Locks the folder. The system releases the lock of a process that dies."""
        file = self.root / self.LOCK
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DenseCLIError(
                f"The run in {self.root} is being written by {file.read_text() or 'another process'}.",
                hint="Wait for it to end, stop it, or choose another --run.",
            ) from None
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        file.write_text(f"process {os.getpid()} on {socket.gethostname()} since {now}")

    def _prepare(
        self,
        config: dict[str, Any],
        resume: Resume,
        free: Collection[str],
        defaults: Mapping[str, Any],
        *,
        dry_run: bool,
    ) -> str | None:
        if self.config.exists():
            if resume == "never":
                raise DenseCLIError(
                    f"There is a run in {self.root} already.",
                    hint="Choose another --run, or --resume overwrite.",
                )
            if resume != "overwrite":
                self._check_same(config, free, defaults)
            elif dry_run:
                return None
            else:
                self._remove()
        if not dry_run:
            self._sweep()
            fs.write_atomic(str(self.config), json.dumps(config, indent=2).encode())
        return latest_checkpoint(self.checkpoints)

    def _remove(self) -> None:
        for folder in (self.tensorboard, self.checkpoints, self.export):
            shutil.rmtree(folder, ignore_errors=True)
        self.metrics.unlink(missing_ok=True)
        (self.root / self.LOGGERS).unlink(missing_ok=True)
        self.config.unlink()

    def _sweep(self) -> None:
        """Removes files that a killed process left half written: a checkpoint may have gigabytes."""
        for folder in (str(self.root), self.checkpoints, self.export):
            for name in filter(fs.is_temporary, fs.files(folder)):
                fs.remove(fs.join(folder, name))

    def _check_same(self, config: dict[str, Any], free: Collection[str], defaults: Mapping[str, Any]) -> None:
        recorded = json.loads(self.config.read_bytes())
        old = _without_places({**defaults, **with_current_values(recorded)})
        config = _without_places(config)
        changed = [
            f"{name} {old.get(name)!r} -> {config[name]!r}"
            for name in sorted(config.keys() - set(free))
            if old.get(name) != config[name]
        ]
        if changed:
            hint = (
                f"Choose another --run, or --resume overwrite; --config {self.config} continues it as it was."
            )
            if old.get("samples_per_step") != config.get("samples_per_step"):
                samples = f"--batch-size x --accumulate x processes = {old['samples_per_step']}"
                hint = f"Keep {samples}, or choose another --run, or --resume overwrite."
            if isinstance(recorded.get("decoupling"), int) and old["decoupling"] != config["decoupling"]:
                hint = (
                    "Rows 2 and 3 had each other's number then: "
                    f"--decoupling {old['decoupling']} is what the run was started with."
                )
            raise DenseCLIError(
                f"The run in {self.root} was started with other settings: {'; '.join(changed)}.", hint=hint
            )


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The settings without the places of files: of the initial weights only the digest counts."""
    weights = {k: v for k, v in config.get("initial_weights", {}).items() if k != "source"}
    return {**config, "initial_weights": weights}
