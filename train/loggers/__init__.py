"""Loggers by name: they record the metrics, configuration and pictures of a training.

To add one, write a module in this package, or a plug-in:

    from densecli.train.loggers import LOGGERS, Logger

    @LOGGERS.register("print", help="Prints each row.")
    class PrintLogger(Logger):
        def log(self, row):
            print(row)

metrics.jsonl is always written, because resuming a training needs it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densecli.core import fs
from densecli.core.documents import finite, read_document
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress, say
from densecli.core.registry import Registry, registry
from densecli.train.run_folder import RunFolder

Row = Mapping[str, float]


class Logger:
    """Receives what a training logs. Methods that a logger does not define do nothing.

    Only the process of rank 0 logs.
    """

    def __init__(self, folder: Path) -> None:
        """Prepares the logger, and writes nothing yet.

        Args:
            folder: The run folder.

        Raises:
            DenseCLIError: A package that the logger needs is not installed.
        """
        self.folder = folder

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Begins the log, or continues that of a resumed training.

        Args:
            config: The resolved configuration, JSON values.
            step: Number of steps taken before. Anything that was logged after this step will be logged again.
        """

    def log(self, row: Row) -> None:
        """Logs the metrics of a step: numbers by name, including `step`."""

    def note(self, name: str, value: float, step: int) -> None:
        """Logs a number that describes the process, not a step."""

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Logs a picture, (H, W, 3) uint8."""

    def sync(self) -> None:
        """Writes everything to disk, so that no checkpoint exists without the rows of its steps."""

    def close(self) -> None:
        """Ends the log."""


LOGGERS: Registry[type[Logger]] = registry("loggers", package=__name__, noun="logger", of=Callable)


class RunLog:
    """All loggers of a training, and its progress on standard error. It is silent without loggers."""

    def __init__(
        self, loggers: Sequence[Logger] = (), progress: Progress | None = None, last: Row | None = None
    ) -> None:
        """Wraps loggers that have started.

        Args:
            loggers: The loggers.
            progress: Shows the steps.
            last: The last row that a resumed training has logged.
        """
        self._loggers, self._progress = loggers, progress
        self.last: dict[str, float | None] = dict(last or {})
        """The last row. Numbers that are not finite are None."""

    def row(self, row: Row) -> None:
        """Logs the metrics of a step."""
        if self._progress is None:
            return
        self.last = finite(row)
        for logger in self._loggers:
            logger.log(row)
        self._progress.advance(1, f"loss {row['loss']:.4f}, {row['images_per_s']:.1f} images/s")

    def first_step(self, seconds: float) -> None:
        """Logs how many seconds after the start the first step was done."""
        if self._progress is None:
            return
        for logger in self._loggers:
            logger.note("seconds_to_first_step", seconds, int(self.last["step"] or 0))
        say(f"The first step was done {seconds:.1f} s after the start.")

    def picture(self, draw: Callable[[], np.ndarray | None], step: int) -> None:
        """Draws a picture and logs it, if any logger takes pictures."""
        takers = [logger for logger in self._loggers if type(logger).image is not Logger.image]
        if takers and (picture := draw()) is not None:
            for logger in takers:
                logger.image("photos", picture, step)

    def sync(self) -> None:
        """See `Logger.sync`."""
        for logger in self._loggers:
            logger.sync()

    def close(self) -> None:
        """Closes all loggers."""
        for logger in self._loggers:
            logger.close()
        if self._progress:
            self._progress.close()


def make_loggers(names: Sequence[str], folder: RunFolder) -> list[Logger]:
    """Makes the loggers of a training, which write nothing before they are started.

    Args:
        names: Names of loggers besides `jsonl`.
        folder: The run folder.

    Raises:
        DenseCLIError: A logger is unknown, or its package is not installed.
    """
    return [LOGGERS[name](folder.root) for name in dict.fromkeys(["jsonl", *names])]


def open_log(
    loggers: Sequence[Logger], folder: RunFolder, config: Mapping[str, Any], *, step: int, total: int
) -> RunLog:
    """Starts the loggers of a training.

    Args:
        loggers: The loggers, `jsonl` first.
        folder: The run folder.
        config: The resolved configuration.
        step: Number of steps taken before.
        total: Number of steps of the whole training.
    """
    for logger in loggers:
        logger.start(config, step)
    lines = folder.metrics.read_text().splitlines()
    last = json.loads(lines[-1]) if lines else None
    return RunLog(loggers, Progress(total, "steps", done=step), last)


def run_id(folder: Path, logger: str) -> str | None:
    """The id of the run at a logging service; None for a new run."""
    return _ids(folder).get(logger)


def keep_run_id(folder: Path, logger: str, id: str) -> None:
    """Stores the id in the run folder, so that a resumed training continues the same run."""
    fs.write_atomic(str(folder / RunFolder.LOGGERS), json.dumps({**_ids(folder), logger: id}).encode())


def _ids(folder: Path) -> dict[str, str]:
    hint = "Delete it: the run then continues as a new one in these services."
    try:
        return dict(read_document(folder / RunFolder.LOGGERS, dict[str, str], noun="The list", hint=hint))
    except FileNotFoundError:
        return {}


def missing_package(package: str) -> DenseCLIError:
    """The error for a logger whose package is not installed."""
    return DenseCLIError(
        f"The logger {package} needs the package {package}, which is not installed.",
        hint=f"Install it with: pip install 'densecli[{package}]'",
    )
