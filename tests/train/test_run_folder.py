import json
import os
from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.train.checkpoints import save_checkpoint
from densecli.train.run_folder import RunFolder

CONFIG = {"lr": 0.1, "workers": 2, "lanes": 1}


def opened(folder: RunFolder, *args, **settings) -> str | None:
    """What `open` returns, with the folder unlocked again."""
    try:
        return folder.open(*args, **settings)
    finally:
        folder.close()


def test_open__words(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert opened(folder, CONFIG, "never") is None
    checkpoint = save_checkpoint(folder.checkpoints, {"step": 1}, keep=1)
    assert opened(folder, CONFIG, "interrupted") == checkpoint
    with pytest.raises(DenseCLIError, match="is a run in"):
        opened(folder, CONFIG, "never")
    assert opened(folder, {**CONFIG, "lr": 0.2}, "overwrite") is None
    assert json.loads(folder.config.read_text())["lr"] == 0.2


def test_open__a_dry_run_says_where_it_would_continue_and_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert opened(folder, CONFIG, "never", dry_run=True) is None
    assert not folder.root.exists()
    opened(folder, CONFIG, "never")
    checkpoint = save_checkpoint(folder.checkpoints, {"step": 1}, keep=1)
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")}
    assert opened(folder, CONFIG, "interrupted", dry_run=True) == checkpoint
    assert opened(folder, {**CONFIG, "lr": 0.2}, "overwrite", dry_run=True) is None
    for resume, word in (("never", "is a run in"), ("interrupted", "other settings")):
        with pytest.raises(DenseCLIError, match=word):
            opened(folder, {**CONFIG, "lr": 0.2}, resume, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")} == before


def test_open__other_settings(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    opened(folder, CONFIG, "interrupted")
    with pytest.raises(DenseCLIError, match=r"lr 0\.1 -> 0\.2"):
        opened(folder, {**CONFIG, "lr": 0.2}, "interrupted")
    opened(folder, {**CONFIG, "workers": 4}, "interrupted", free=frozenset({"workers"}))


def test_open__a_run_without_lanes_was_shuffled_otherwise(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_text(json.dumps({"lr": 0.1, "workers": 2}))
    with pytest.raises(DenseCLIError, match="an earlier version, which shuffled in another order"):
        opened(folder, CONFIG, "interrupted")
    opened(folder, CONFIG, "overwrite")


def test_recorded_lanes__are_those_of_the_run_that_is_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.recorded_lanes() is None
    opened(folder, {**CONFIG, "lanes": 24}, "never")
    assert folder.recorded_lanes() == 24


def test_open__says_what_a_step_has_to_keep(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    opened(folder, {"lanes": 1, "samples_per_step": 6}, "interrupted")
    with pytest.raises(DenseCLIError, match="samples_per_step 6 -> 12") as caught:
        opened(folder, {"lanes": 1, "samples_per_step": 12}, "interrupted")
    assert "--batch-size x --accumulate x processes = 6" in caught.value.hint


def test_open__removes_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    checkpoint = save_checkpoint(folder.checkpoints, {"step": 1}, keep=1)
    for name in (".config.json.1.tmp", "checkpoints/.step-00000002.pt.1.tmp", "notes.tmp"):
        (tmp_path / name).write_text("half")
    assert opened(folder, CONFIG, "interrupted") == checkpoint
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"config.json", "step-00000001.pt", "notes.tmp"}


def test_open__weights_may_move_and_not_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    def config(source: str, sha256: str) -> dict:
        return {**CONFIG, "initial_weights": {"source": source, "sha256": sha256, "random": False}}

    opened(folder, config("/here/a.pt", "1"), "interrupted")
    opened(folder, config("/there/a.pt", "1"), "interrupted")
    with pytest.raises(DenseCLIError, match=r"initial_weights .*'1'.* -> .*'2'"):
        opened(folder, config("/there/a.pt", "2"), "interrupted")


def test_open__overwrite_leaves_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    folder = RunFolder(tmp_path)
    opened(folder, CONFIG, "interrupted")
    opened(folder, CONFIG, "overwrite")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_open__a_run_at_an_address_is_refused():
    with pytest.raises(DenseCLIError, match="written to a local folder") as caught:
        RunFolder("s3://bucket/run")
    assert "--run" in caught.value.hint


def test_open__settings_that_an_older_run_does_not_know_have_their_defaults(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    opened(folder, {**CONFIG, "max_bad_steps": 0}, "interrupted")
    newer = {**CONFIG, "schedule": "cosine"}
    opened(folder, newer, "interrupted", defaults={"schedule": "cosine"}, dry_run=True)
    with pytest.raises(DenseCLIError, match="schedule 'cosine' -> 'wsd'"):
        opened(folder, {**CONFIG, "schedule": "wsd"}, "interrupted", defaults={"schedule": "cosine"})


def test_lock__a_second_writer_is_told_who_holds_it(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.open(CONFIG, "interrupted")
    with pytest.raises(DenseCLIError, match=rf"^The run in .* written by process {os.getpid()} on"):
        second.open(CONFIG, "overwrite")
    second.open(CONFIG, "interrupted", dry_run=True)
    first.close()
    opened(second, CONFIG, "interrupted")


def test_lock__a_refused_run_leaves_it_free(tmp_path: Path) -> None:
    opened(RunFolder(tmp_path), CONFIG, "interrupted")
    refused = RunFolder(tmp_path)
    with pytest.raises(DenseCLIError, match="is a run in"):
        refused.open(CONFIG, "never")
    opened(RunFolder(tmp_path), CONFIG, "interrupted")


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("below", ["", "/run"])
def test_open__a_file_is_no_run(tmp_path: Path, below: str, dry_run: bool) -> None:
    (tmp_path / "file").write_text("mine")
    folder = RunFolder(f"{tmp_path}/file{below}")
    with pytest.raises(DenseCLIError, match="is a file") as caught:
        opened(folder, CONFIG, "interrupted", dry_run=dry_run)
    assert "--run" in caught.value.hint
    with pytest.raises(DenseCLIError, match=f"{tmp_path}/file is a file"):
        folder.recorded_lanes()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"initial_weights": 1}', "[" * 9999, '{"lr": NaN}', "\x00", '{"student": 2}']
)
def test_open__a_damaged_configuration_is_a_sentence(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_text(content)
    with pytest.raises(DenseCLIError, match=r"configuration .*config\.json is damaged") as caught:
        opened(folder, CONFIG, "interrupted")
    assert "\n" not in str(caught.value) and "--resume overwrite" in caught.value.hint
    opened(folder, CONFIG, "overwrite")


def logged(folder: RunFolder, steps: int) -> None:
    folder.metrics.write_text("".join(json.dumps({"step": i + 1}) + "\n" for i in range(steps)))


def test_check_checkpoint__one_of_this_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    logged(folder, 3)
    for state in (
        {"step": 3, "config": CONFIG},
        {"step": 2, "config": {**CONFIG, "workers": 9}},
        {"step": 0, "config": {**CONFIG, "max_bad_steps": 0}},
        {"step": 1},
    ):
        folder.check_checkpoint("c.pt", state, CONFIG, free={"workers"})
    newer = {**CONFIG, "schedule": "cosine"}
    folder.check_checkpoint("c.pt", {"step": 1, "config": CONFIG}, newer, defaults={"schedule": "cosine"})


@pytest.mark.parametrize(("steps", "state", "message"), [
    (3, {"step": 3, "config": {**CONFIG, "lr": 9}}, r"other settings: lr 9 -> 0\.1"),
    (2, {"step": 3, "config": CONFIG}, "after step 3, but .* has only the first 2 steps"),
    (0, {"step": 1}, "only the first 0 steps"),
])  # fmt: skip
def test_check_checkpoint__one_of_another_run(tmp_path: Path, steps: int, state: dict, message: str) -> None:
    folder = RunFolder(tmp_path)
    logged(folder, steps)
    with pytest.raises(DenseCLIError, match=message) as caught:
        folder.check_checkpoint("c.pt", state, CONFIG)
    assert "c.pt" in caught.value.hint


@pytest.mark.parametrize("line", ["", "{", '{"step": 7}', "[]", '{"loss": 1}', "\x00"])
def test_check_checkpoint__rows_that_are_cut_or_of_other_steps(tmp_path: Path, line: str) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(DenseCLIError, match=r"Line 2 of .*metrics\.jsonl is not that of step 2"):
        folder.check_checkpoint("c.pt", {"step": 2}, CONFIG)


FORMER = {1: "none", 2: "stuff-only", 3: "full", 4: "densevlm"}


@pytest.mark.parametrize("number", FORMER)
def test_open__a_numbered_decoupling_keeps_what_it_meant(tmp_path: Path, number: int) -> None:
    folder = RunFolder(tmp_path)
    for name in FORMER.values():
        folder.config.write_text(json.dumps({**CONFIG, "decoupling": number}))
        if name == FORMER[number]:
            opened(folder, {**CONFIG, "decoupling": name}, "interrupted")
            assert json.loads(folder.config.read_text())["decoupling"] == name
        else:
            with pytest.raises(DenseCLIError, match=f"decoupling '{FORMER[number]}' -> '{name}'") as caught:
                opened(folder, {**CONFIG, "decoupling": name}, "interrupted")
            assert f"--decoupling {FORMER[number]} to continue" in caught.value.hint
