import os
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from densecli.core.errors import DenseCLIError
from densecli.train.checkpoints import (
    CheckpointWriter,
    latest_checkpoint,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)


def test_checkpoint__round_trip(tmp_path: Path) -> None:
    state = {"step": 3, "model": {"w": torch.arange(3.0)}, "rng": rng_state()}
    path = save_checkpoint(str(tmp_path), state, keep=2)
    drawn = torch.rand(4)
    loaded = load_checkpoint(path)
    set_rng_state(loaded["rng"])
    assert loaded["step"] == 3 and torch.equal(loaded["model"]["w"], torch.arange(3.0))
    assert torch.equal(torch.rand(4), drawn)


def test_checkpoint__latest_of_the_kept(tmp_path: Path) -> None:
    for step in (5, 9, 10):
        save_checkpoint(str(tmp_path), {"step": step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000009.pt", "step-00000010.pt"]
    latest = latest_checkpoint(str(tmp_path))
    assert latest is not None and load_checkpoint(latest)["step"] == 10


def test_latest_checkpoint__none(tmp_path: Path) -> None:
    assert latest_checkpoint(str(tmp_path / "absent")) is None


def test_load_checkpoint__damaged(tmp_path: Path) -> None:
    path = Path(save_checkpoint(str(tmp_path), {"step": 1, "w": torch.rand(100)}, keep=1))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DenseCLIError, match="cannot be read"):
        load_checkpoint(str(path))


def test_save_checkpoint__keeps_what_was_written_last_whatever_its_step(tmp_path: Path) -> None:
    folder = str(tmp_path)
    for age, step in ((30, 500), (20, 600), (10, 7)):
        save_checkpoint(folder, {"step": step}, keep=9)
        then = time.time() - age
        os.utime(tmp_path / f"step-{step:08d}.pt", (then, then))
    save_checkpoint(folder, {"step": 8}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000007.pt", "step-00000008.pt"]


def test_save_checkpoint__never_removes_the_one_just_written(tmp_path: Path) -> None:
    save_checkpoint(str(tmp_path), {"step": 500}, keep=1)
    future = time.time() + 1e6
    os.utime(tmp_path / "step-00000500.pt", (future, future))
    path = save_checkpoint(str(tmp_path), {"step": 1}, keep=1)
    assert Path(path).exists()


@pytest.mark.parametrize(
    "state", [[], {"step": "1"}, {"model": {}}, {"step": 1, "config": []}, {"step": True}]
)
def test_load_checkpoint__what_is_none_is_a_sentence(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "step-00000001.pt")
    with pytest.raises(DenseCLIError, match="cannot be read") as caught:
        load_checkpoint(str(tmp_path / "step-00000001.pt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", [0, 1, 100, -100])
def test_load_checkpoint__a_cut_one_is_a_sentence(tmp_path: Path, end: int) -> None:
    path = Path(save_checkpoint(str(tmp_path), {"step": 1, "model": {"a": torch.zeros(99)}}, keep=1))
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DenseCLIError, match="cannot be read") as caught:
        load_checkpoint(str(path))
    assert "\n" not in str(caught.value)


def test_writer__writes_what_the_state_was(tmp_path: Path) -> None:
    weights = torch.ones(1000)
    writer = CheckpointWriter(str(tmp_path), keep=2)
    with closing(writer):
        writer.write({"step": 1, "model": {"w": weights}, "optimizer": {"state": [weights]}})
        weights.zero_()
        writer.wait()
    state = load_checkpoint(latest_checkpoint(str(tmp_path)))
    assert state["model"]["w"].all() and state["optimizer"]["state"][0].all()


def test_writer__a_write_that_fails_is_told_at_the_next_step(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise DenseCLIError("No space left on device.")

    monkeypatch.setattr("densecli.core.fs.write_atomic", full)
    writer = CheckpointWriter(str(tmp_path), keep=2)
    writer.write({"step": 1})
    writer.close()
    with pytest.raises(DenseCLIError, match="No space left"):
        writer.check()
    writer.check()
