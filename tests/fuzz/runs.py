"""The files of a run: config.json, metrics.jsonl, loggers.json, card.json, and what an ablation recorded."""

import json
import random
from pathlib import Path
from typing import Any

from densecli.ablation.runs import photos_seen
from densecli.models.model_card import run_export
from densecli.train.loggers import keep_run_id, make_loggers, open_log
from densecli.train.run_folder import RunFolder

from .frame import Target
from .inputs import mutated, mutated_value

CONFIG: dict[str, Any] = {
    "lr": 0.1, "student": "scenes-s", "alpha": 0.9, "columns": {"labels": "0"}, "total_steps": 3,
    "samples_per_step": 2, "decoupling": "densevlm",
    "initial_weights": {"source": "a.pt", "sha256": "0", "random": False},
}  # fmt: skip
CARD = {
    "student": "scenes-s", "mode": "value", "image_size": 96, "random_weights": False, "alpha": 0.9,
    "initial_weights": {"source": "a.pt", "sha256": "0"},
}  # fmt: skip
ROWS = b"".join(json.dumps({"step": i + 1, "loss": 0.5}).encode() + b"\n" for i in range(3))
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "metrics.jsonl": ROWS,
    "loggers.json": b'{"wandb": "abc"}',
    "export/card.json": json.dumps(CARD).encode(),
}


def try_one(rng: random.Random, folder: Path) -> None:
    """A run one of whose files was changed."""
    changed = rng.choice(list(FILES))
    for name, data in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if name == changed and name.endswith(".json") and rng.random() < 0.6:
            data = json.dumps(mutated_value(rng, json.loads(data))).encode()
        elif name == changed:
            data = mutated(rng, data)
        (folder / name).write_bytes(data)
    (folder / "export" / "student.safetensors").write_bytes(b"")
    match changed:
        case "export/card.json":
            assert run_export(folder)[1]["student"]
        case "loggers.json":
            keep_run_id(folder, "mlflow", "1")
        case _:
            photos_seen(folder)
            run = RunFolder(folder)
            try:
                run.open(CONFIG, "interrupted")
                run.check_checkpoint("step-00000003.pt", {"step": 3, "config": CONFIG}, CONFIG)
                open_log(make_loggers([], run), run, CONFIG, step=3, total=3).close()
            finally:
                run.close()


TARGET = Target(name="runs", try_one=try_one, quick=150)
