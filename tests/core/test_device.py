import pytest
import torch

from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError


@pytest.mark.parametrize(
    ("gpus", "name", "device"),
    [(0, "auto", "cpu"), (1, "auto", "cuda"), (1, "cpu", "cpu"), (2, "cuda:1", "cuda:1")],
)
def test_pick_device__auto_is_the_gpu_where_there_is_one(
    monkeypatch, gpus: int, name: str, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert pick_device(name) == torch.device(device)


@pytest.mark.parametrize(("gpus", "name"), [(0, "cuda"), (1, "cuda:1"), (1, "gpu"), (1, "cuda:x")])
def test_pick_device__what_is_not_there_is_a_sentence(monkeypatch, gpus: int, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(DenseCLIError, match=f"device '{name}'") as error:
        pick_device(name)
    assert "cpu" in error.value.hint


def test_pick_device__auto_is_apples_gpu_where_there_is_no_other(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(DenseCLIError, match="no GPU of Apple"):
        pick_device("mps")
