"""Masks in files of other programs: what is read, and what is counted as malformed without being decoded."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from densecli.shards.segmentation import Malformed, annotations_of, lengths_of, packed, sampled

WIDTH, HEIGHT = 12, 8
BITMAP = np.zeros((HEIGHT, WIDTH), bool)
BITMAP[2:5, 3:9] = True


def bitmap(segmentation: object) -> np.ndarray:
    lengths = lengths_of(segmentation, WIDTH, HEIGHT)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(WIDTH, HEIGHT).T


def rle(of: np.ndarray) -> dict[str, object]:
    return {"size": list(of.shape), "counts": packed([of])[0].decode()}


ONE = np.zeros_like(BITMAP)
ONE[7, 11] = True


@pytest.mark.parametrize(
    "of", [BITMAP, ONE, BITMAP | True, BITMAP & False], ids=["some", "one", "all", "none"]
)
def test_lengths_of__text_and_lists_of_run_lengths(of) -> None:
    assert np.array_equal(bitmap(rle(of)), of)
    counts = lengths_of(rle(of), WIDTH, HEIGHT).tolist()
    assert np.array_equal(bitmap({"size": [HEIGHT, WIDTH], "counts": counts}), of)


def test_lengths_of__polygons_are_those_of_pycocotools() -> None:
    polygons = [[1.2, 1.0, 9.7, 2.0, 6.0, 7.5], [0.0, 6.0, 2.0, 6.0, 2.0, 8.0]]
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))
    assert np.array_equal(bitmap(polygons), coco_mask.decode(merged).astype(bool))


def test_lengths_of__edges_that_fill_a_photo_are_refused_before_anything_walks_along_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    side, lines = 1 << 12, 1 << 8
    zigzag = [float(number) for i in range(lines) for number in (side * (i % 2), i)]
    assert lengths_of([zigzag], side, side).sum() == side**2
    monkeypatch.setattr(coco_mask, "frPyObjects", lambda *_: pytest.fail("walked along the edges"))
    for polygons in ([zigzag * 17], [zigzag] * 17):
        with pytest.raises(Malformed, match="fills its photo"):
            lengths_of(polygons, side, side)


def test_lengths_of__a_polygon_far_outside_is_moved_to_the_edge() -> None:
    assert bitmap([[-1e9, -1e9, 1e9, -1e9, 1e9, 1e9, -1e9, 1e9]]).all()


HUGE = [1 << 40, 1 << 40]


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [HEIGHT, WIDTH + 1], "counts": rle(BITMAP)["counts"]}, "another size"),
        ({"size": [WIDTH, HEIGHT], "counts": rle(BITMAP)["counts"]}, "another size"),
        ({"size": HUGE, "counts": "0"}, "another size"),
        ({"size": HUGE, "counts": [1 << 61, 1 << 61]}, "another size"),
        ({"size": [HEIGHT], "counts": "0"}, "without a size"),
        ({"counts": "0"}, "without a size"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "damaged run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": "oooooooooooo"}, "damaged run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": "P\x00é"}, "damaged run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": str(rle(BITMAP)["counts"])[:-1]}, "damaged run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": [95]}, "damaged run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": [100, -4]}, "damaged run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": [95.5, 0.5]}, "damaged run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": [1 << 61, 1 << 61]}, "damaged run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": None}, "damaged run lengths"),
        ([[0, 0, 1, 1]], "damaged polygon"),
        ([[0, 0, 1, 1, 2, 2, 3]], "damaged polygon"),
        ([[0, 0, 1, float("nan"), 2, 2]], "damaged polygon"),
        ([[0, 0, 1, "1", 2, 2]], "damaged polygon"),
        ([5], "damaged polygon"),
        ("polygon", "neither"),
    ],
    ids=str,
)
def test_lengths_of__odd_masks_are_malformed(segmentation, reason) -> None:
    with pytest.raises(Malformed, match=reason):
        lengths_of(segmentation, WIDTH, HEIGHT)


def test_annotations_of__counts_what_is_no_mask() -> None:
    good = {"segmentation": rle(BITMAP), "predicted_iou": 0.9, "stability_score": 1}
    bad = [5, {}, {"segmentation": []}, {**good, "predicted_iou": "high"}, {**good, "stability_score": None}]
    found = annotations_of([good, *bad, {"segmentation": [[0, 0, 1, 1, 2, 2]], "iscrowd": 1}])
    assert [(each.iou, each.stability) for each in found.annotations] == [(0.9, 1.0), (1.0, 1.0)]
    assert sum(found.malformed.values()) == len(bad)


@pytest.mark.parametrize("to", [(12, 8), (6, 4), (9, 6), (24, 16), (1, 1)], ids=str)
def test_sampled__a_pixel_has_what_lies_under_its_middle(to) -> None:
    rng = np.random.default_rng(0)
    for of in (rng.random(BITMAP.shape) < 0.5, BITMAP, ONE, BITMAP | True, BITMAP & False):
        found = sampled(lengths_of(rle(of), WIDTH, HEIGHT), WIDTH, HEIGHT, to)
        x, y = (int((i + 0.5) * WIDTH / to[0]) for i in range(to[0])), range(to[1])
        columns = list(x)
        expected = [[of[int((j + 0.5) * HEIGHT / to[1]), column] for column in columns] for j in y]
        assert np.array_equal(found, expected)
