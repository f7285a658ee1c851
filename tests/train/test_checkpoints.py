from pathlib import Path

import pytest
import torch

from densecli.core.errors import DenseCLIError
from densecli.train.checkpoints import (
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
