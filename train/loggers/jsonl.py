"""metrics.jsonl: a JSON object for each step."""

import json
import os
from collections.abc import Mapping
from typing import Any

from densecli.core import fs
from densecli.core.documents import finite
from densecli.train.loggers import LOGGERS, Logger, Row
from densecli.train.run_folder import RunFolder


@LOGGERS.register("jsonl", help="RUN/metrics.jsonl; always written.")
class JsonlLogger(Logger):
    """Appends a line for each step; numbers that are not finite become null."""

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Keeps the first `step` rows, and drops those that were logged after the checkpoint."""
        path = RunFolder(self.folder).metrics
        rows = path.read_bytes().splitlines(keepends=True)[:step] if path.exists() else []
        fs.write_atomic(str(path), rows)
        self._file = path.open("a", buffering=1)

    def log(self, row: Row) -> None:
        """See `Logger.log`."""
        self._file.write(json.dumps(finite(row)) + "\n")

    def sync(self) -> None:
        """See `Logger.sync`."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """See `Logger.close`."""
        self._file.close()
