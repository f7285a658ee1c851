"""MLflow."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from densecli.train.loggers import LOGGERS, Logger, Row, keep_run_id, missing_package, run_id


@LOGGERS.register(
    "mlflow",
    help="MLflow; reads MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.",
    needs="pip install 'densecli[mlflow]'",
)
class MlflowLogger(Logger):
    """Logs to a run of the experiment MLFLOW_EXPERIMENT_NAME, else `densecli`. A resumed training continues
    its run."""

    def __init__(self, folder: Path) -> None:
        """See `Logger.__init__`."""
        super().__init__(folder)
        try:
            import mlflow
        except ImportError:
            raise missing_package("mlflow") from None
        self._mlflow: Any = mlflow

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """See `Logger.start`. MLflow keeps what was logged after `step`."""
        self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "densecli"))
        id = run_id(self.folder, "mlflow")
        if id is not None:
            self._mlflow.start_run(run_id=id)
            return
        run = self._mlflow.start_run(run_name=self.folder.name)
        keep_run_id(self.folder, "mlflow", run.info.run_id)
        # Only once, because MLflow refuses parameters that change, as --device may.
        self._mlflow.log_params(dict(config))

    def log(self, row: Row) -> None:
        """See `Logger.log`."""
        metrics = {name: value for name, value in row.items() if name != "step"}
        self._mlflow.log_metrics(metrics, step=int(row["step"]))

    def note(self, name: str, value: float, step: int) -> None:
        """See `Logger.note`."""
        self._mlflow.log_metrics({name: value}, step=step)

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """See `Logger.image`."""
        self._mlflow.log_image(picture, key=name, step=step)

    def close(self) -> None:
        """See `Logger.close`."""
        self._mlflow.end_run()
