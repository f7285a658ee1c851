"""The report says what was measured, before beside after, and warns where the numbers mean little."""

import numpy as np
import pytest

from densecli.evaluation.classify import ClassifyConfig
from densecli.evaluation.model_under_test import ModelUnderTest, evaluate_regions
from densecli.evaluation.region_counts import PhotoCounts, count, summarize
from densecli.evaluation.region_page import meaning, region_sections, write_region_page
from densecli.evaluation.report import regions_table
from densecli.models.categories import Categories, load_categories

SET = Categories(name="two", names=("boat", "sky"), thing=np.array([True, False]))


def result(weights="x.pt", categories=SET):
    masks = count(np.eye(2, dtype=np.float32), np.array([0, 1]), np.array([10, 10]))
    return summarize(
        PhotoCounts(boxes=masks, masks=masks, skipped=0),
        categories,
        weights,
        random_weights=weights.endswith("random:0"),
    )


def test_sections__one_model_or_before_and_after():
    one, two = region_sections({"m": result()}), region_sections({"before": result(), "after": result()})
    assert [part.title for part in one[0].parts] == ["Region classification", ""]
    assert [part.title for part in two[0].parts] == ["Before and after", ""]
    assert [len(section.parts) for section in two] == [
        len(section.parts) + (i == 1) for i, section in enumerate(one)
    ]


def test_sections__models_beside_before_and_after_have_rows_and_matrices():
    names = ("teacher", "before", "undecoupled", "after")
    regions, confusion, *_ = region_sections({name: result() for name in names})
    assert [part.title for part in regions.parts] == ["Before and after", "Region classification", ""]
    assert [row[0] for row in regions.parts[1].rows] == list(names)
    assert [figure.title for figure in confusion.parts[:-1]] == list(names)


def test_sections__crops_have_rows_of_their_own():
    first, *_ = region_sections({"m": result()}, {"m": result()})
    assert [row[0] for row in first.parts[0].rows] == ["m", "m, crops"]


def test_meaning__random_weights_before_anything_else():
    scenes = Categories(name="scenes", names=SET.names, thing=SET.thing, note="On the generated world.")
    assert meaning({"m": result()})[0] == ""
    assert "generated world" in load_categories("scenes").note
    assert "generated world" in meaning({"m": result(categories=scenes)})[0]
    warning, paragraphs = meaning(
        {"before": result("random:0", scenes), "after": result("y from random:0", scenes)}
    )
    assert warning.startswith("Random weights")
    assert paragraphs[-2:] == ["Weights, before: random:0.", "Weights, after: y from random:0."]


@pytest.fixture
def page(write_panoptic, tmp_path):
    """A report of random weights before and after, with crops, of two photos; and its result after."""
    rng = np.random.default_rng(0)
    sky = np.zeros((60, 96), bool)
    sky[:30] = True
    photos = [
        (rng.integers(0, 255, (60, 96, 3), np.uint8), [(1, sky, False), (0, ~sky, False)]) for _ in range(2)
    ]
    (tmp_path / "two.json").write_text('[{"name": "boat", "thing": true}, {"name": "sky", "thing": false}]')
    where = {
        "data": str(write_panoptic("coco", SET.names, SET.thing, photos)),
        "split": "val",
        "categories": str(tmp_path / "two.json"),
        "config": ClassifyConfig(canvas=96),
    }
    models_under_test = {
        name: ModelUnderTest(model="scenes-s", weights=f"random:{seed}")
        for seed, name in enumerate(("before", "after"))
    }
    results = {name: evaluate_regions(each, **where) for name, each in models_under_test.items()}
    path = write_region_page(tmp_path / "out", models_under_test, results, crops=results, **where)
    return path, results


def test_page__holds_the_numbers(page):
    path, results = page
    html = path.read_text()
    assert path.name == "index.html" and "Random weights" in html
    for row in regions_table({"after, crops": results["after"]}).rows:
        assert "".join(f'<td class="number">{cell}</td>\n' for cell in row[1:]) in html
    assert html.count("data:image/png") == 4  # two confusions, two photos


def test_page__is_not_cut_in_a_browser(page, screenshot):
    seen = screenshot(page[0], 1280, 6000)
    ink = (seen < 250).any(2)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    # The margins are clear on both sides, and the page has come to its end.
    assert columns[0] >= 20 and columns[-1] < 1280 - 20
    assert 1500 < rows[-1] < 6000 - 20
