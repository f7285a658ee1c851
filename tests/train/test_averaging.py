import json
from importlib.metadata import version
from pathlib import Path

import torch

from densecli.models.checkpoints import load_model, load_weights
from densecli.models.weights import weights_sha256
from densecli.train.averaging import average, export_student


def test_average__weights_student_by_alpha() -> None:
    student = {"trained": torch.tensor([1.0, 3.0]), "count": torch.tensor(7)}
    initial = {"trained": torch.tensor([0.0, 1.0]), "count": torch.tensor(0)}
    averaged = average(student, initial, 0.75)
    assert averaged["trained"].tolist() == [0.75, 2.5] and averaged["count"] == 7


def test_average__frozen_tensor_keeps_its_bits() -> None:
    frozen = {"w": torch.randn(1000, generator=torch.Generator().manual_seed(0))}
    assert torch.equal(average(frozen, frozen, 0.7)["w"], frozen["w"])


def test_export_student__load_weights_reads_it_back(tmp_path: Path) -> None:
    model, _ = load_model("scenes-s", "random:0")
    initial = {name: tensor.clone() for name, tensor in model.clip.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    path = export_student(
        model.clip, initial, alpha=0.5, folder=str(tmp_path / "export"), card={"student": "scenes-s"}
    )

    exported, _ = load_model("scenes-s", "random:1")
    load_weights(exported, path)
    for name, tensor in exported.clip.state_dict().items():
        torch.testing.assert_close(tensor, (initial[name] + model.clip.state_dict()[name]) / 2)
    card = json.loads((tmp_path / "export" / "card.json").read_text())
    assert card == {
        "student": "scenes-s",
        "alpha": 0.5,
        "sha256": weights_sha256(path),
        "densecli": version("densecli"),
    }
