"""Weights & Biases."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from densecli.train.loggers import LOGGERS, Logger, Row, keep_run_id, missing_package, run_id


@LOGGERS.register(
    "wandb",
    help="Weights & Biases; reads WANDB_PROJECT and WANDB_MODE.",
    needs="pip install 'densecli[wandb]'",
)
class WandbLogger(Logger):
    """Logs to a run of the project WANDB_PROJECT, else `densecli`. A resumed training continues its run."""

    def __init__(self, folder: Path) -> None:
        """See `Logger.__init__`."""
        super().__init__(folder)
        try:
            import wandb
        except ImportError:
            raise missing_package("wandb") from None
        self._wandb: Any = wandb

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """See `Logger.start`. W&B keeps what was logged after `step`."""
        id = run_id(self.folder, "wandb") or uuid.uuid4().hex[:8]
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "densecli"),
            name=self.folder.name,
            dir=str(self.folder),
            config=dict(config),
            resume="allow",
            id=id,
        )
        keep_run_id(self.folder, "wandb", id)

    def log(self, row: Row) -> None:
        """See `Logger.log`."""
        self._run.log({name: v for name, v in row.items() if name != "step"}, step=int(row["step"]))

    def note(self, name: str, value: float, step: int) -> None:
        """See `Logger.note`."""
        self._run.log({name: value}, step=step)

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """See `Logger.image`."""
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """See `Logger.close`."""
        self._run.finish()
