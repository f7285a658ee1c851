"""Short runs of a small student, and what they logged."""

import json
from pathlib import Path
from typing import Any


def run_settings(store: str, run: Path, **settings: Any) -> dict[str, Any]:
    """Of a TrainConfig or a RefinerConfig."""
    defaults = {
        "store": store,
        "run": str(run),
        "student": "scenes-s",
        "weights": "random:0",
        "batch_size": 3,
        "lr": 1e-3,
        "device": "cpu",
    }
    return {**defaults, **settings}


def rows(run: Path) -> list[dict[str, Any]]:
    """The whole rows of the metrics, without what the clock says."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    kept = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{name: value for name, value in row.items() if name != "images_per_s"} for row in kept]
