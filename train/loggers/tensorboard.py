"""TensorBoard: event files in RUN/tensorboard."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from densecli.train.loggers import LOGGERS, Logger, Row
from densecli.train.run_folder import RunFolder


@LOGGERS.register("tensorboard", help="RUN/tensorboard: metrics, the resolved configuration, pictures.")
class TensorBoardLogger(Logger):
    """Writes scalars, the configuration as text, and pictures."""

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """See `Logger.start`. The viewer hides what was logged after `step`."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(RunFolder(self.folder).tensorboard), purge_step=step + 1)
        # Four spaces make it a code block.
        text = "\n".join(f"    {line}" for line in json.dumps(config, indent=2).splitlines())
        self._writer.add_text("config", text, step)

    def log(self, row: Row) -> None:
        """See `Logger.log`."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))

    def note(self, name: str, value: float, step: int) -> None:
        """See `Logger.note`."""
        self._writer.add_scalar(name, value, step)

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """See `Logger.image`."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """See `Logger.close`."""
        self._writer.close()
