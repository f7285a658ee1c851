import json
from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.evaluation.model_under_test import ModelUnderTest


def test_of_run__reads_the_student_out_as_it_was_trained(tmp_path: Path) -> None:
    card = {
        "student": "scenes-s",
        "canvas": 96,
        "image_size": 64,
        "mode": "qq+scale",
        "initial_weights": {"source": "weights/scenes-s.pt"},
        "random_weights": False,
    }
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "card.json").write_text(json.dumps(card))
    (tmp_path / "export" / "student.safetensors").touch()
    subject = ModelUnderTest.of_run(str(tmp_path))
    assert subject.settings == {"canvas": 64, "mode": "qq+scale"}
    assert subject.weights == str(tmp_path / "export" / "student.safetensors")
    assert (subject.model, subject.origin) == ("scenes-s", "weights/scenes-s.pt")


def test_of_run__without_an_export(tmp_path: Path) -> None:
    with pytest.raises(DenseCLIError, match="no exported student"):
        ModelUnderTest.of_run(str(tmp_path))
