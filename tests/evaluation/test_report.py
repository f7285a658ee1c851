"""Printed numbers are the measured ones and say so when the weights are random."""

import json

from evaluation.classify import Classification, ClassRow
from evaluation.report import class_table, comparison, report


def result(weights="student.pt", **changes):
    figures = {
        "boxes_top1": 44.34,
        "boxes_top5": 70.0,
        "masks_thing_top1": 44.7,
        "masks_thing_top5": 71.0,
        "masks_stuff_top1": 26.2,
        "masks_stuff_top5": 50.0,
        "stuff_as_thing": 33.3,
    }
    rows = (
        ClassRow(
            name="cat",
            thing=True,
            segments=3,
            boxes_top1=50.0,
            boxes_top5=60.0,
            masks_top1=40.0,
            masks_top5=45.0,
        ),
        ClassRow(
            name="sky",
            thing=False,
            segments=2,
            boxes_top1=None,
            boxes_top5=None,
            masks_top1=10.0,
            masks_top5=20.0,
        ),
    )
    counts = {"things": 3, "stuffs": 2, "skipped": 1, "vanished": 0}
    return Classification(**(figures | counts | changes), classes=rows, weights=weights)


def cells(line):
    return [cell for cell in line.split("  ") if cell.strip()]


def test_report__one_row_a_model():
    lines = report({"student": result(), "teacher": result(boxes_top1=75.2)}).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert [c.strip() for c in cells(lines[2])] == [
        "student",
        "44.3",
        "70.0",
        "44.7",
        "71.0",
        "26.2",
        "50.0",
        "33.3",
    ]
    assert [c.strip() for c in cells(lines[3])][:2] == ["teacher", "75.2"]
    assert "3 thing and 2 stuff segments, 2 classes" in lines[4]


def test_report__random_weights_are_named_in_their_row_only():
    lines = report({"student": result("random:0"), "teacher": result()}).splitlines()
    assert [("random weights" in line) for line in lines] == [False, False, True, False, False]


def test_comparison__change_in_points():
    after = result(boxes_top1=73.4, stuff_as_thing=3.3, masks_stuff_top1=None)
    lines = [[c.strip() for c in cells(line)] for line in comparison(result(), after).splitlines()]
    assert ["Boxes", "44.3", "73.4", "+29.1"] in lines
    assert ["stuff as thing", "33.3", "3.3", "-30.0"] in lines
    assert ["Masks-S", "26.2", "-", "-"] in lines


def test_comparison__random_weights_are_named():
    header = comparison(result("random:0"), result()).splitlines()[0]
    assert "before (random weights)" in header and "after (random weights)" not in header


def test_class_table__worst_first():
    names = [cells(line)[0] for line in class_table(result()).splitlines()[2:]]
    assert names == ["sky", "cat"]


def test_to_dict__keeps_every_figure_through_json():
    before = json.loads(json.dumps(result("random:7", boxes_top1=None).to_dict()))
    assert before["boxes_top1"] is None and before["random_weights"] is True
    after = json.loads(json.dumps(result().to_dict()))
    assert after["boxes_top1"] == 44.34 and after["weights"] == "student.pt"
    assert after["classes"][1]["name"] == "sky"
