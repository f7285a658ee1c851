"""Pictures of segmentation on the page of `evaluate --report`."""

import numpy as np
import pytest
from command_line import passed, refused
from PIL import Image

from densecli.evaluation.segmentation_pictures import SIDE, draw_classes
from densecli.scenes.coco import write_coco

RED, BLUE = (200, 0, 0), (0, 0, 200)


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list:
    root = tmp_path_factory.mktemp("scenes")
    write_coco(root, split="val", count=6)
    where = ["--data", root, "--split", "val", "--categories", "scenes"]
    return ["evaluate", "--task", "segmentation", "--student", "scenes-s", *where]


def test_pictures__photo_truth_and_prediction_on_the_page(words, tmp_path):
    assert "Report:" in passed(*words, "--report", tmp_path, "--pictures", 2)
    page = (tmp_path / "index.html").read_text()
    # Spread over the split, each with three pictures inside the file.
    assert [f"Photo {i:06d}" in page for i in range(6)] == [True, False, False, True, False, False]
    assert page.count("<img") == page.count('src="data:image/png') == 6
    assert page.count("of the annotated pixels are right") == 2 * 2  # below the picture, and for its alt
    # A link for the section, none for each photo.
    assert page.count('<a href="#s') == 2


def test_pictures__more_than_there_are_photos_show_all(words, tmp_path):
    passed(*words, "--limit", 1, "--report", tmp_path, "--pictures", 9)
    assert (tmp_path / "index.html").read_text().count("<img") == 3


def test_pictures__need_a_page(words):
    assert "--pictures needs --report" in refused(*words, "--pictures", 2, code=2)


def test_draw_classes__colours_grey_and_names_within_bounds():
    labels = np.zeros((50, 100), np.int16)
    labels[:, 50:], labels[:, 90:] = 1, -1
    photo = Image.new("RGB", (SIDE, SIDE // 2), (100, 100, 100))
    palette = {0: RED, 1: BLUE}
    picture = np.asarray(draw_classes(photo, labels, ("a", "b" * 10_000), palette)).astype(int)
    assert picture.shape == (SIDE // 2, SIDE, 3)
    left, middle, right = picture[5, 5], picture[5, SIDE // 2 + 20], picture[5, -5]
    assert left[0] > left[2] + 80 and middle[2] > middle[0] + 80 and np.ptp(right) == 0
    # The names are white with a black edge.
    white = (picture == 255).all(2)
    assert white.any() and white[:, : SIDE // 2].any()


def test_draw_classes__a_class_without_room_has_no_name():
    labels = np.zeros((40, 40), np.int16)
    labels[20, 20] = 1
    photo = Image.new("RGB", (40, 40))
    palette = {0: RED, 1: BLUE}
    one = np.asarray(draw_classes(photo, labels, ("a", "b"), palette))
    other = np.asarray(draw_classes(photo, labels, ("a", "w"), palette))
    assert np.array_equal(one, other)
