"""The folder and the result of a training that has ended, without the training."""

import json
import math
from pathlib import Path
from typing import Any


def finished_run(folder: Path, steps: int = 40) -> dict[str, Any]:
    """A run whose loss falls from 2 to 1; every tenth step is measured, and step 30 is the best.

    Step 7 has no finite loss.
    """
    folder.mkdir(parents=True)
    config = {
        "method": "declip",
        "student": "scenes-s",
        "store": "stores/<b>scenes-96",
        "losses": {"region_cosine": 1.0, "context": 0.25},
        "total_steps": steps,
        "samples_per_step": 8,
        "lr": 1e-4,
        "seed": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            loss = 2 - step / steps + 0.1 * math.sin(9 * step)
            row = {"step": step, "epoch": 0, "loss": loss if step != 7 else None}
            row |= {"region_cosine": loss / 2, "context": 2 * loss, "kept": 0.5}
            row |= {"grad_norm": 1.0, "lr": 1e-4 * (1 - step / steps), "images_per_s": 20.0}
            if step % 10 == 0:
                row |= {"holdout/loss": 1.5 + abs(step - 30) / 40, "evaluate/Masks-S": 40 + step / 10}
            file.write(json.dumps(row) + "\n")
    return {
        "run": str(folder),
        "step": steps,
        "loss": 1.0,
        "export": str(folder / "export" / "student.safetensors"),
        "random_weights": False,
        "warnings": [],
        "moved": 0.01,
        "measured": {
            "before": {"holdout/loss": 2.5, "evaluate/Masks-S": 35.0},
            "last": {"holdout/loss": 1.75, "evaluate/Masks-S": 44.0},
        },
        "best": {"metric": "holdout/loss", "value": 1.5, "step": 30, "about": {}, "export": "best"},
    }
