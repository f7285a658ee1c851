"""Printed numbers are the measured ones and say so when the weights are random."""

import numpy as np
import pytest

from densecli.evaluation.region_counts import PhotoCounts, count, summarize
from densecli.evaluation.report import (
    block_table,
    class_table,
    comparison,
    mistaken_for,
    regions_table,
    size_table,
)
from densecli.models.categories import Categories

NAMES = ("cat", "kite", "sky", "sea")
SET = Categories(name="four", names=NAMES, thing=np.array([True, True, False, False]))
# (true class, predicted, area); 4 is a mask without a token.
SEEN = [
    (0, 0, 10),
    (0, 1, 2000),
    (0, 1, 2000),
    (1, 1, 10),
    (2, 0, 10**5),
    (2, 3, 10**5),
    (2, 2, 10**5),
    (3, 4, 1),
]


def result(weights="student.pt", seen=SEEN):
    labels = np.array([true for true, _, _ in seen])
    scores = np.eye(5, dtype=np.float32)[[predicted for _, predicted, _ in seen], :4]
    areas = np.array([area for _, _, area in seen])
    things = labels < 2
    boxes = count(scores[things], labels[things], areas[things])
    return summarize(
        PhotoCounts(boxes=boxes, masks=count(scores, labels, areas), skipped=1),
        SET,
        weights,
        random_weights=weights == "random:0",
    )


def test_regions_table__one_row_a_model():
    made = regions_table({"student": result(), "teacher": result(seen=SEEN[:1] + SEEN[3:])})
    # cat 1 of 3, kite 1 of 1; sky 1 of 3, sea 0 of 1. One of 4 stuff masks is called a cat.
    assert list(made.rows[0][:2]) == ["student", "66.7"] and made.rows[0][5] == "16.7"
    assert made.rows[0][-1] == "25.0" and made.rows[1][1] == "100.0"
    assert "4 thing and 4 stuff segments, 4 classes" in made.note
    assert "1 left out because of the box area, 1 without a token" in made.note


def test_regions_table__random_weights_are_named_in_their_row_only():
    made = regions_table({"student": result("random:0"), "teacher": result()})
    assert [row[0] for row in made.rows] == ["student (random weights)", "teacher"]


def test_comparison__change_in_points():
    made = comparison(result(), result(seen=[(0, 0, 10), (1, 1, 10)]))
    rows = {row[0]: row[1:] for row in made.rows}
    assert rows["Boxes"] == ["66.7", "100.0", "+33.3"]
    assert rows["Masks-S"] == ["16.7", "-", "-"]


def test_comparison__random_weights_are_named():
    assert comparison(result("random:0"), result()).columns[1:3] == ["before (random weights)", "after"]


def test_class_table__worst_first_with_what_they_are_taken_for():
    made = class_table(result())
    assert [row[0] for row in made.rows] == ["sea", "cat", "sky", "kite"]
    assert [row[-1] for row in made.rows] == ["(no token) 100%", "kite 67%", "cat 33%, sea 33%", ""]
    assert len(class_table(result(), limit=2).rows) == 2


def test_class_table__before_beside_after():
    made = class_table(result(), result(seen=[(3, 3, 1), *SEEN[:-1]]), limit=1)
    (row,) = made.rows
    assert dict(zip(made.columns, row, strict=True)) | {
        "masks before": "100.0",
        "masks after": "0.0",
    } == dict(zip(made.columns, row, strict=True))


def test_mistaken_for__never_itself():
    assert mistaken_for(result(), "kite") == []


def test_size_table__leaves_out_sizes_that_are_not_there():
    made = size_table({"a": result(seen=SEEN[:2])})
    assert [row[1:3] for row in made.rows] == [["small", "1"], ["medium", "1"]]
    assert [row[4] for row in made.rows] == ["100.0", "0.0"]


def test_block_table__shares_of_a_kind_add_up():
    made = block_table({"a": result()})
    things, stuff = (dict(zip(made.columns, row, strict=True)) for row in made.rows)
    assert (things["right"], things["another thing"], things["another stuff"]) == ("50.0", "50.0", "0.0")
    assert (stuff["right"], stuff["another thing"], stuff["no token"]) == ("25.0", "25.0", "25.0")
    for row in made.rows:
        assert sum(map(float, row[3:])) == pytest.approx(100, abs=0.2)
