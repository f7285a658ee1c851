"""The run folder, with what a training and its exports write there."""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from densecli.core import fs
from densecli.core.distributed import Distributed
from densecli.core.documents import parse, read_document
from densecli.core.errors import DenseCLIError, OtherRun
from densecli.core.lock import FolderLock
from densecli.train.checkpoints import latest_checkpoint
from densecli.train.run_config import with_current_values
from densecli.train.trainer_config import Resume, TrainerConfig


class RunFolder:
    """The local folder of one run, with the lock of the process that writes it.

    Attributes:
        root: The folder.
        config: File of the resolved configuration.
        metrics: File with a row for each step.
        tensorboard: Folder of TensorBoard's event files.
        checkpoints: Folder of the checkpoints.
        export: Folder of the exported weights.
        export_best: Folder of those of the best checkpoint, if there is one.
    """

    LOGGERS = "loggers.json"
    """File with the ids of the run at logging services."""
    REPORT = "report.html"
    """File with the curves of a training that has ended."""

    def __init__(self, root: str | Path) -> None:
        """Describes a folder. Raises DenseCLIError for an address such as s3://."""
        if "://" in str(root):
            raise DenseCLIError(
                "A run is written to a local folder, not to an address.",
                hint="Give a local folder as --run, and copy it afterwards.",
            )
        self.root = Path(root)
        self.config = self.root / "config.json"
        self.metrics = self.root / "metrics.jsonl"
        self.tensorboard = self.root / "tensorboard"
        self.checkpoints = str(self.root / "checkpoints")
        self.export = str(self.root / "export")
        self.export_best = str(self.root / "export-best")
        self._lock = FolderLock(self.root, "The run", "--run")

    def open(
        self,
        config: dict[str, Any],
        resume: Resume,
        *,
        free: Collection[str] = (),
        defaults: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> str | None:
        """Locks the folder and prepares it for a training; `close` unlocks it.

        Args:
            config: The resolved configuration, JSON values.
            resume: What to do with an existing run. "interrupted" continues it, if its settings are the same;
                "never" refuses; "overwrite" removes it.
            free: Settings that may differ from those of the existing run.
            defaults: Values of settings that the existing run does not have, because an earlier version
                started it.
            dry_run: Whether only to find out where it would continue, without locking or writing.

        Returns:
            Path of the checkpoint to continue from, None if there is none.

        Raises:
            DenseCLIError: Another process writes the run, or `resume` does not allow to continue it.
        """
        if not dry_run:
            self._lock.acquire()
        else:
            self._refuse_file()
        try:
            return self._prepare(config, resume, free, defaults or {}, dry_run=dry_run)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlocks the folder."""
        self._lock.release()

    def recorded_lanes(self) -> int | None:
        """The number of lanes that the run's samples are dealt to; None if there is no run.

        Raises:
            DenseCLIError: Its configuration is damaged, or the folder is a file.
        """
        self._refuse_file()
        try:
            lanes: int | None = self.read_config().get("lanes")
        except FileNotFoundError:
            return None
        return lanes

    def _refuse_file(self) -> None:
        for place in (self.root, *self.root.parents):
            if place.is_file():
                raise DenseCLIError(
                    f"{self.root} cannot be a run's folder: {place} is a file.", hint="Choose another --run."
                )

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
                raise OtherRun(
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
        for folder in (self.tensorboard, self.checkpoints, self.export, self.export_best):
            shutil.rmtree(folder, ignore_errors=True)
        self.metrics.unlink(missing_ok=True)
        (self.root / self.REPORT).unlink(missing_ok=True)
        (self.root / self.LOGGERS).unlink(missing_ok=True)
        self.config.unlink()

    def _sweep(self) -> None:
        """Removes files that a killed process left half-written: a checkpoint may have gigabytes."""
        for folder in (str(self.root), self.checkpoints, self.export, self.export_best):
            for name in filter(fs.is_temporary, fs.files(folder)):
                fs.remove(fs.join(folder, name))

    def read_config(self) -> dict[str, Any]:
        """The recorded configuration. Raises FileNotFoundError, and DenseCLIError for a damaged one."""
        config: dict[str, Any] = read_document(
            self.config,
            _Config,
            noun="The run's configuration",
            hint="Restore it, choose another --run, or start again with --resume overwrite.",
        )
        return config

    def check_checkpoint(
        self,
        path: str,
        state: Mapping[str, Any],
        config: dict[str, Any],
        *,
        free: Collection[str] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Checks that a checkpoint belongs to this run, whose files two processes may have mixed.

        Args:
            path: Path of the checkpoint.
            state: Its content. One of version 0.1 has no `config`.
            config: The resolved configuration of this run.
            free: See `open`.
            defaults: See `open`.

        Raises:
            DenseCLIError: It was written under other settings, or after more steps than are logged.
        """
        hint = f"Remove {path} to continue from the one before, or start again with --resume overwrite."
        changed = _changed(state.get("config", config), config, free, defaults or {})
        if changed:
            raise DenseCLIError(
                f"The checkpoint {path} was written with other settings: {'; '.join(changed)}.",
                hint=hint,
            )
        step = state["step"]
        rows = self.metrics.read_bytes().splitlines() if self.metrics.is_file() else []
        if len(rows) < step:
            raise DenseCLIError(
                f"The checkpoint {path} was written after step {step}, but {self.metrics} has only the first "
                f"{len(rows)} steps.",
                hint=hint,
            )
        try:
            b"\n".join(rows[:step]).decode()
            same = not step or parse(rows[step - 1])["step"] == step
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise DenseCLIError(f"Line {step} of {self.metrics} is not that of step {step}.", hint=hint)

    def _check_same(self, config: dict[str, Any], free: Collection[str], defaults: Mapping[str, Any]) -> None:
        recorded = self.read_config()
        if "lanes" not in recorded:
            raise DenseCLIError(
                f"The run in {self.root} was started by an earlier version, which shuffled in another order.",
                hint="Finish it with that version, or choose another --run, or --resume overwrite.",
            )
        old = with_current_values(recorded)
        if changed := _changed(recorded, config, free, defaults):
            hint = (
                f"Choose another --run, or --resume overwrite; --config {self.config} continues it as it was."
            )
            if "samples_per_step" in old and old["samples_per_step"] != config.get("samples_per_step"):
                samples = f"--batch-size x --accumulate x processes = {old['samples_per_step']}"
                hint = f"Keep {samples}, or choose another --run, or --resume overwrite."
            if isinstance(recorded.get("decoupling"), int) and old["decoupling"] != config["decoupling"]:
                hint = (
                    "Rows 2 and 3 were swapped when the run was started: "
                    f"give --decoupling {old['decoupling']} to continue it."
                )
            raise OtherRun(
                f"The run in {self.root} was started with other settings: {'; '.join(changed)}.", hint=hint
            )


def lanes_to_continue(config: TrainerConfig, distributed: Distributed) -> int | None:
    """The number of lanes of the run that a training continues; None for a new run."""
    if config.resume != "interrupted":
        return None
    return distributed.on_rank_zero(lambda: RunFolder(config.run).recorded_lanes())


class _Config(TypedDict):
    """The entries that a run's configuration must have."""

    student: NotRequired[str]
    store: NotRequired[str]
    lanes: NotRequired[int]
    alpha: NotRequired[float]
    initial_weights: NotRequired[dict[str, Any]]


def _changed(
    recorded: Mapping[str, Any],
    config: dict[str, Any],
    free: Collection[str],
    defaults: Mapping[str, Any],
) -> list[str]:
    """The settings that differ from recorded ones, as NAME OLD -> NEW, and files with another content."""
    old = _without_places({**defaults, **with_current_values(recorded)})
    config = _without_places(config)
    changed = [
        f"{name} {old.get(name)!r} -> {config[name]!r}"
        for name in sorted(config.keys() - set(free) - {"files"})
        if old.get(name) != config[name]
    ]
    # An earlier version did not record them.
    before, now = old.get("files", {}), config.get("files", {})
    files = [name for name in sorted(now) if before.get(name, now[name]) != now[name]]
    return [*changed, *(f"the content of the file of {name}" for name in files)]


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The settings without paths: initial weights are compared by their digest."""
    weights = {k: v for k, v in config.get("initial_weights", {}).items() if k != "source"}
    return {**config, "initial_weights": weights}
