"""A logger: the metrics of a training as a CSV file in the run folder."""

import csv
from collections.abc import Mapping
from typing import Any

from densecli.train.loggers import LOGGERS, Logger, Row


@LOGGERS.register("csv", help="RUN/metrics.csv: a row for each step.")
class CSVLogger(Logger):
    """Appends rows; those of steps that a resumed training takes again are replaced."""

    def start(self, config: Mapping[str, Any], step: int) -> None:
        path = self.folder / "metrics.csv"
        kept = path.read_text().splitlines(keepends=True)[: step + 1] if step and path.exists() else []
        path.write_text("".join(kept))
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file)
        self._has_head = bool(kept)

    def log(self, row: Row) -> None:
        if not self._has_head:
            self._writer.writerow(row)
            self._has_head = True
        self._writer.writerow(row.values())

    def sync(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
