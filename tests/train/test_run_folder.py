import json
from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.train.checkpoints import save_checkpoint
from densecli.train.run_folder import Metrics, RunFolder

CONFIG = {"lr": 0.1, "workers": 2}


def test_open__words(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.open(CONFIG, "never") is None
    checkpoint = save_checkpoint(folder.checkpoints, {"step": 1}, keep=1)
    assert folder.open(CONFIG, "interrupted") == checkpoint
    with pytest.raises(DenseCLIError, match="is a run in"):
        folder.open(CONFIG, "never")
    assert folder.open({**CONFIG, "lr": 0.2}, "overwrite") is None
    assert json.loads(folder.config.read_text())["lr"] == 0.2


def test_open__a_dry_run_says_where_it_would_continue_and_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.open(CONFIG, "never", dry_run=True) is None
    assert not folder.root.exists()
    folder.open(CONFIG, "never")
    checkpoint = save_checkpoint(folder.checkpoints, {"step": 1}, keep=1)
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")}
    assert folder.open(CONFIG, "interrupted", dry_run=True) == checkpoint
    assert folder.open({**CONFIG, "lr": 0.2}, "overwrite", dry_run=True) is None
    for resume, word in (("never", "is a run in"), ("interrupted", "other settings")):
        with pytest.raises(DenseCLIError, match=word):
            folder.open({**CONFIG, "lr": 0.2}, resume, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")} == before


def test_open__other_settings(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(CONFIG, "interrupted")
    with pytest.raises(DenseCLIError, match=r"lr 0\.1 -> 0\.2"):
        folder.open({**CONFIG, "lr": 0.2}, "interrupted")
    folder.open({**CONFIG, "workers": 4}, "interrupted", free=frozenset({"workers"}))


def test_open__says_what_a_step_has_to_keep(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open({"samples_per_step": 6}, "interrupted")
    with pytest.raises(DenseCLIError, match="samples_per_step 6 -> 12") as caught:
        folder.open({"samples_per_step": 12}, "interrupted")
    assert "--batch-size x --accumulate x processes = 6" in caught.value.hint


def test_open__removes_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    checkpoint = save_checkpoint(folder.checkpoints, {"step": 1}, keep=1)
    for name in (".config.json.1.tmp", "checkpoints/.step-00000002.pt.1.tmp", "notes.tmp"):
        (tmp_path / name).write_text("half")
    assert folder.open(CONFIG, "interrupted") == checkpoint
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"config.json", "step-00000001.pt", "notes.tmp"}


def test_open__weights_may_move_and_not_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    def config(source: str, sha256: str) -> dict:
        return {**CONFIG, "initial_weights": {"source": source, "sha256": sha256, "random": False}}

    folder.open(config("/here/a.pt", "1"), "interrupted")
    folder.open(config("/there/a.pt", "1"), "interrupted")
    with pytest.raises(DenseCLIError, match=r"initial_weights .*'1'.* -> .*'2'"):
        folder.open(config("/there/a.pt", "2"), "interrupted")


def test_open__overwrite_leaves_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    folder = RunFolder(tmp_path)
    folder.open(CONFIG, "interrupted")
    folder.open(CONFIG, "overwrite")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_metrics__drops_rows_after_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    metrics = Metrics(folder, step=0)
    for step in (1, 2, 3):
        metrics.log({"step": step, "loss": 0.5})
    metrics.close()
    with folder.metrics.open("a") as file:
        file.write('{"step": 4, "lo')  # what a kill in the middle of a write leaves
    resumed = Metrics(folder, step=2)
    assert resumed.last == {"step": 2, "loss": 0.5}
    resumed.log({"step": 3, "loss": 0.25})
    resumed.close()
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3] and rows[-1]["loss"] == 0.25


def test_open__a_run_at_an_address_is_refused():
    with pytest.raises(DenseCLIError, match="written to a local folder") as caught:
        RunFolder("s3://bucket/run")
    assert "--run" in caught.value.hint
