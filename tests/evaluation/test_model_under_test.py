import json
from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.models.checkpoints import WeightsInfo


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
    under_test = ModelUnderTest.of_run(str(tmp_path))
    assert under_test.settings == {"canvas": 64, "mode": "qq+scale"}
    assert under_test.weights == str(tmp_path / "export" / "student.safetensors")
    assert (under_test.model, under_test.origin) == ("scenes-s", "weights/scenes-s.pt")


@pytest.mark.parametrize("random", [True, False])
def test_describe__random_weights_are_what_the_card_says(tmp_path: Path, random: bool) -> None:
    """A folder called random:trial holds no random weights, and a file without that word may."""
    folder = tmp_path / "random:trial"
    folder.mkdir()
    (folder / "x.card.json").write_text(json.dumps({"random_weights": random}))
    info = WeightsInfo(source=str(folder / "x.pt"), sha256="0", random=False)
    assert ModelUnderTest(model="scenes-s").describe(info).random is random
    trained = ModelUnderTest(model="scenes-s", origin=info.source, random_weights=random)
    assert trained.describe(WeightsInfo(source="y.pt", sha256="0", random=False)).random is random


def test_describe__random_weights_of_this_model() -> None:
    info = WeightsInfo(source="random:0", sha256="0", random=True)
    assert ModelUnderTest(model="scenes-s").describe(info) == info


def test_of_run__without_an_export(tmp_path: Path) -> None:
    with pytest.raises(DenseCLIError, match="no exported student"):
        ModelUnderTest.of_run(str(tmp_path))


def test_named__on_the_models_own_canvas() -> None:
    canvases = {name: ModelUnderTest.named(name).settings["canvas"] for name in ("eva02-b16", "scenes-s")}
    assert canvases == {"eva02-b16": 512, "scenes-s": 96}
    assert ModelUnderTest.named("scenes-vfm").settings == {"canvas": 96}
    assert ModelUnderTest.named("dinov2-vits14").settings == {"canvas": 448}


def test_named__as_the_card_beside_its_weights_says(tmp_path: Path) -> None:
    weights = tmp_path / "x.pt"
    weights.touch()
    (tmp_path / "x.card.json").write_text(json.dumps({"image_size": 224, "mode": "qq"}))
    under_test = ModelUnderTest.named("scenes-s", str(weights))
    assert under_test.settings == {"canvas": 224, "mode": "qq"} and under_test.origin is None
