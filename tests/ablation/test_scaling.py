"""Whether more data pays: the trainings of a spec, curves of their figures, and the page."""

from dataclasses import replace

import pytest

from densecli.ablation.power_law import PowerLaw
from densecli.ablation.report import write_report
from densecli.ablation.runs import RunResult
from densecli.ablation.scaling import (
    check_sizes,
    parse_seeds,
    parse_shares,
    scaling_curves,
    scaling_section,
    scaling_spec,
    scaling_text,
)
from densecli.ablation.spec import Spec, cells
from densecli.core.errors import DenseCLIError

SPEC = Spec(title="t", train={"lr": 0.1, "max-steps": 7}, grid={"photos-share": [0.5, 1.0], "seed": [0, 1]})
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
PHOTOS = {
    (share, seed): round(960 * share) + (share < 1) * (seed - 1) for share in SHARES for seed in range(3)
}
LAW = PowerLaw(20.0, 30.0, 0.5, 60.0)


def results(shares: tuple[float, ...] = SHARES) -> list[RunResult]:
    """Boxes follow the law, Masks-S do not move, and stuff is called a thing as often as the law errs."""
    runs = [RunResult(name="scenes-s", figures={"Boxes": 25.0, "Masks-S": 45.0})]
    for share in shares:
        for seed in range(3):
            error = float(LAW.at(PHOTOS[share, seed])) + 0.2 * (seed - 1)
            figures = {"Boxes": 100 - error, "Masks-S": 85.0 + seed, "stuff as thing": error}
            settings = {"photos-share": share, "seed": seed}
            runs.append(RunResult(name=f"{share}-{seed}", settings=settings, figures=figures))
    return runs


HEADINGS = ("Boxes", "Masks-S", "stuff as thing")


def test_shares__are_fractions():
    assert parse_shares("1, 1/4,0.5") == [0.25, 0.5, 1.0]
    assert parse_seeds("2,0,2") == [2, 0]
    for wrong in ("", "0", "2", "1/0", "a"):
        with pytest.raises(DenseCLIError, match="no list of shares"):
            parse_shares(wrong)
    with pytest.raises(DenseCLIError, match="no list of seeds"):
        parse_seeds("1,x")


def test_spec__every_step_has_as_many_photos():
    made = scaling_spec(SPEC, shares=None, seeds=[4], length={"epochs": 3})
    assert [cell.name for cell in cells(made)] == ["photos-share-0.5-seed-4", "photos-share-1.0-seed-4"]
    words = ["--lr", "0.1", "--epochs", "3", "--drop-last", "--photos-share", "0.5", "--seed", "4"]
    assert list(cells(made)[0].arguments) == words
    # That of the spec, so that ablate and scaling know each other's runs.
    assert list(scaling_spec(SPEC, shares=None, seeds=None, length={"max-steps": 7}).train) == [
        *SPEC.train,
        "drop-last",
    ]
    with pytest.raises(DenseCLIError, match="varies theta"):
        scaling_spec(replace(SPEC, grid={"theta": [0.1]}), shares=[1.0], seeds=None, length={})
    with pytest.raises(DenseCLIError, match="no photos-share"):
        scaling_spec(replace(SPEC, grid={"seed": [0]}), shares=None, seeds=None, length={})


def test_sizes__a_subset_smaller_than_a_step_is_refused():
    check_sizes(PHOTOS, 59)
    with pytest.raises(DenseCLIError, match=r"0.0625 has 59 photos with seed 0, fewer than a step: 60"):
        check_sizes(PHOTOS, 60)
    with pytest.raises(DenseCLIError, match=r"shares 0.98 and 1 are the same 24 photos with seed 0"):
        check_sizes({(0.5, 0): 11, (0.98, 0): 24, (1.0, 0): 24}, 8)


def test_curves__hold_the_known_law_ten_times_further():
    boxes, masks, bias = scaling_curves(results(), PHOTOS, HEADINGS)
    assert list(boxes.figures) == [60.0, 120.0, 240.0, 480.0, 960.0]
    there, truth = boxes.at_ten_times, 100 - float(LAW.at(9600))
    assert (
        there is not None and there.low <= truth <= there.high and there.mean == pytest.approx(truth, abs=1)
    )
    assert "10 times the photos (9,600) would give" in boxes.sentence
    # The same errors, where lower is better.
    assert bias.at_ten_times is not None
    assert bias.at_ten_times.mean == pytest.approx(100 - there.mean)
    assert masks.fit is None and masks.sentence.startswith("Masks-S: no curve. The error is the same from")
    document = boxes.to_dict()
    assert document["fit"]["extrapolated"]["photos"] == 9600 and document["figures"][0]["photos"] == 60


def test_text__no_run_with_figures_is_no_table():
    found = scaling_text(scaling_curves([], {}, []), "steps")
    assert found.endswith("no run has figures.") and "photos\n" not in found
    assert not scaling_section([], "steps").parts


def test_curves__three_sizes_are_shown_without_one():
    boxes, *_ = scaling_curves(results(SHARES[-3:]), PHOTOS, HEADINGS)
    assert boxes.fit is None and "at least 4 sizes" in boxes.sentence
    assert "extrapolated)" not in scaling_text([boxes], "steps")


def test_page__has_the_points_the_curve_and_what_it_answers(tmp_path):
    curves = scaling_curves(results(), PHOTOS, HEADINGS)
    section = scaling_section(curves, "epochs")
    page = write_report(tmp_path, SPEC, results(), [], first=[section]).read_text()
    for text in ("same number of epochs", "9,600 (extrapolated)", ">extrapolated</text>", ">960</text>"):
        assert text in page
    assert "9,600 photos, extrapolated: " in page and page.index("Does more") < page.index("Settings</h2>")
    text = scaling_text(curves, "steps")
    assert "same number of steps" in text and "Masks-S: no curve." in text
