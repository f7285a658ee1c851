import pytest
import torch
from torch import nn

from densecli.train.optimizer import adamw, freeze


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.logit_scale = nn.Parameter(torch.ones(()))
        self.text = nn.Linear(4, 4)


def test_adamw__decays_matrices_only() -> None:
    tower = Tower()
    decay, plain = adamw(tower, weight_decay=0.1, betas=(0.9, 0.98)).param_groups
    assert decay["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    assert {id(p) for p in decay["params"]} == {id(tower.proj.weight), id(tower.text.weight)}
    assert len(plain["params"]) == 5


def test_freeze__leaves_named_parameters_out_of_the_optimizer() -> None:
    tower = Tower()
    freeze(tower, {"text.weight", "text.bias"})
    trained = {
        id(p)
        for group in adamw(tower, weight_decay=0.1, betas=(0.9, 0.98)).param_groups
        for p in group["params"]
    }
    assert trained == {id(p) for name, p in tower.named_parameters() if not name.startswith("text")}


def test_freeze__unknown_name() -> None:
    with pytest.raises(KeyError):
        freeze(Tower(), {"visual.conv1.weight"})
