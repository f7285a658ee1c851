"""A diagnosis draws and measures a model before and after, with annotations or without."""

import numpy as np
import pytest
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.evaluation.diagnosis import diagnose
from densecli.evaluation.diagnosis_config import DiagnosisConfig
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.photo_files import PhotoFiles
from densecli.models.categories import load_categories
from densecli.scenes.coco import write_coco

SCENES = load_categories("scenes")
BOTH = {
    "before": ModelUnderTest(model="scenes-s"),
    "after": ModelUnderTest(model="scenes-s", weights="random:1"),
}


@pytest.fixture
def files(tmp_path):
    """Three photos, wider than high."""
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.glob("*.png"))


def config(**given) -> DiagnosisConfig:
    return DiagnosisConfig(canvas=96, device="cpu", **given)


def titles(found) -> list[list[str]]:
    return [[figure.title.partition(" (")[0] for figure in photo.figures] for photo in found.photos]


def test_diagnose__photos_without_annotations(files):
    found = diagnose(BOTH, PhotoFiles(files, 3), SCENES, config(limit=1))
    (shown,) = titles(found)
    assert shown == [
        *("The photo", "Nearest categories", "Similarity to texts"),
        *("Attention of [CLS]", "Attention of point 1", "Attention of point 2"),
        *("Correlation with point 1", "Correlation with point 2"),
    ]
    assert all(figure.width == 350 and figure.photo for figure in found.photos[0].figures)
    assert found.measured_photos == 3 and not found.notes
    for title, figures in found.models.items():
        assert figures.random_weights == (title == "after")
        assert len(figures.proxy_scores) == 4 and min(figures.proxy_scores) >= 1
        assert figures.proxy_score == pytest.approx(np.mean(figures.proxy_scores[2:]))
        assert figures.coupling_ratio_mean and figures.coupling_ratio_median and figures.regions is None


@pytest.mark.parametrize("size", [(1000, 3), (3, 1000), (1, 1)])
def test_diagnose__photos_of_any_shape(tmp_path, size):
    Image.new("RGB", size, (90, 120, 10)).save(tmp_path / "odd.png")
    photos = PhotoFiles([tmp_path / "odd.png"], 1)
    found = diagnose(BOTH, photos, SCENES, config(layers=(4,), heat_maps=1))
    for figure in found.photos[0].figures:
        assert figure.image.width == 350 and figure.image.height < 1200


def test_diagnose__a_single_photo_has_no_coupling_ratio(files):
    found = diagnose({"m": BOTH["before"]}, PhotoFiles(files, 1), SCENES, config(point=(0.2, 0.8)))
    assert found.models["m"].coupling_ratio_mean is found.models["m"].coupling_ratio_median is None
    assert any("pairs" in note for note in found.notes)
    assert titles(found)[0][-1] == "Correlation with the point"


def test_diagnose__annotated_photos_have_regions_and_points_in_their_segments(tmp_path):
    write_coco(tmp_path, split="test", count=2)
    photos = PanopticDataset(tmp_path, "test", SCENES)
    found = diagnose({"m": BOTH["before"]}, photos, SCENES, config(limit=1, heat_maps=0))
    regions = found.models["m"].regions
    assert regions and regions.things + regions.stuffs == sum(len(photos[i].segments) for i in (0, 1))
    names = {SCENES.names[segment.category] for segment in photos[0].segments}
    points = [f.title for f in found.photos[0].figures if f.title.startswith("Correlation")]
    assert len(points) == 2
    assert all(point.partition("(")[2].removesuffix(")") in names for point in points)
    assert "Similarity to texts" not in titles(found)[0]


def test_diagnose__a_vfm_has_layers_and_no_texts(files):
    under_test = {"vfm": ModelUnderTest(model="scenes-vfm")}
    found = diagnose(under_test, PhotoFiles(files, 1), SCENES, config(layers=(1,)))
    assert titles(found) == [
        ["The photo", "Attention of [CLS]", "Attention of the centre", "Correlation with the centre"]
    ]
    assert any("text tower" in note for note in found.notes)


@pytest.mark.parametrize("layers", [(5,), (1, 9)])
def test_diagnose__layers_that_are_not_there(files, layers):
    with pytest.raises(DenseCLIError) as error:
        diagnose({"m": BOTH["before"]}, PhotoFiles(files, 1), SCENES, config(layers=layers))
    assert "has 4 layers" in str(error.value) and "1 to 4" in error.value.hint
