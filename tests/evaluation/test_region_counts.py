"""The arithmetic of region classification, by hand and by brute force."""

import json

import numpy as np
import pytest

from densecli.core.errors import DenseCLIError
from densecli.evaluation.region_counts import PhotoCounts, count, summarize, true_class_ranks
from densecli.models.categories import Categories

NAMES = ("cat", "boat", "kite", "sea", "sky", "sand", "road", "hill")
THING = np.array([True, True, True, False, False, False, False, False])
SET = Categories(name="eight", names=NAMES, thing=THING)


def scored(mask_scores, labels, box_scores=None, areas=None):
    mask_scores, labels = np.asarray(mask_scores, np.float32), np.asarray(labels)
    things = THING[labels]
    areas = np.full(len(labels), 5000) if areas is None else np.asarray(areas)
    boxes = mask_scores[things] if box_scores is None else np.asarray(box_scores, np.float32)
    return PhotoCounts(
        boxes=count(boxes, labels[things], areas[things]), masks=count(mask_scores, labels, areas), skipped=0
    )


def one_hot(*classes):
    return np.eye(len(NAMES), dtype=np.float32)[list(classes)]


def test_true_class_ranks__ties_count_against():
    scores = np.array([[0.1, 0.9, 0.5], [0.5, 0.5, 0.1], [0.0, 0.0, 0.0]], np.float32)
    assert true_class_ranks(scores, np.array([2, 0, 0])).tolist() == [1, 1, 2]


def test_metrics__by_hand():
    # cat: 2 of 3 hit; boat: 0 of 1; sea: 1 of 2, the other called a cat; sky: 0 of 1, called sand.
    labels = [0, 0, 0, 1, 3, 3, 4]
    result = summarize(scored(one_hot(0, 0, 1, 2, 3, 0, 5), labels), SET, "a")
    assert result.masks_thing_top1 == pytest.approx((200 / 3 + 0) / 2)
    assert result.masks_stuff_top1 == pytest.approx((50 + 0) / 2)
    assert result.stuff_as_thing == pytest.approx(100 / 3)
    assert (result.things, result.stuffs) == (4, 3)
    assert [(r.name, r.segments, r.boxes_top1) for r in result.classes] == [
        ("cat", 3, pytest.approx(200 / 3)),
        ("boat", 1, 0.0),
        ("sea", 2, None),
        ("sky", 1, None),
    ]


def test_metrics__boxes_and_masks_are_scored_apart():
    result = summarize(scored(one_hot(1, 3), [0, 3], box_scores=one_hot(0)), SET, "a")
    assert (result.boxes_top1, result.masks_thing_top1, result.masks_stuff_top1) == (100.0, 0.0, 100.0)


def test_metrics__top5_is_the_true_class_among_five():
    falling = np.linspace(1, 0, len(NAMES), dtype=np.float32)[None]
    assert summarize(scored(falling, [4]), SET, "a").masks_stuff_top5 == 100.0
    assert summarize(scored(falling, [5]), SET, "a").masks_stuff_top5 == 0.0


def test_metrics__a_vanished_segment_is_a_miss_and_no_thing():
    result = summarize(scored(np.zeros((2, len(NAMES))), [0, 3]), SET, "a")
    assert (result.masks_thing_top5, result.masks_stuff_top5, result.stuff_as_thing) == (0.0, 0.0, 0.0)


def test_metrics__what_the_data_lacks_is_none():
    result = summarize(scored(one_hot(0), [0]), SET, "a")
    assert result.masks_stuff_top1 is None and result.stuff_as_thing is None and result.boxes_top1 == 100.0


def test_metrics__brute_force():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(NAMES), 200)
    masks, boxes = rng.random((200, len(NAMES))), rng.random((int(THING[labels].sum()), len(NAMES)))
    masks[np.arange(200), labels] += 0.4
    result = summarize(scored(masks, labels, box_scores=boxes), SET, "a")

    def accuracy(scores, truth, k, thing):
        hits: dict[int, list[bool]] = {}
        for row, c in zip(scores, truth, strict=True):
            if THING[c] == thing:
                hits.setdefault(c, []).append(c in sorted(range(len(NAMES)), key=lambda i: -row[i])[:k])
        return 100 * sum(sum(h) / len(h) for h in hits.values()) / len(hits)

    for k, name in ((1, "top1"), (5, "top5")):
        assert getattr(result, f"boxes_{name}") == pytest.approx(
            accuracy(boxes, labels[THING[labels]], k, True)
        )
        assert getattr(result, f"masks_thing_{name}") == pytest.approx(accuracy(masks, labels, k, True))
        assert getattr(result, f"masks_stuff_{name}") == pytest.approx(accuracy(masks, labels, k, False))
    predicted = [THING[max(range(len(NAMES)), key=lambda i: row[i])] for row in masks[~THING[labels]]]
    assert result.stuff_as_thing == pytest.approx(100 * sum(predicted) / len(predicted))


def test_metrics__features_that_are_not_finite_are_refused():
    with pytest.raises(DenseCLIError, match="not finite"):
        summarize(scored(one_hot(0) * np.nan, [0]), SET, "a")


@pytest.mark.parametrize("random", [True, False])
def test_classification__says_whether_weights_are_random(random):
    result = summarize(scored(one_hot(0), [0]), SET, "/data/random:trial/x.pt", random_weights=random)
    assert result.random_weights is random and result.to_dict()["random_weights"] is random


def test_metrics__sizes_are_cocos_and_means_over_the_classes_of_that_size():
    areas = [32**2 - 1, 32**2, 96**2 - 1, 96**2, 10**6, 10]
    result = summarize(scored(one_hot(0, 1, 0, 0, 3, 0), [0, 0, 0, 1, 3, 3], areas=areas), SET, "a")
    small, medium, large = result.sizes
    assert [(row.name, row.things, row.stuffs) for row in result.sizes] == [
        ("small", 1, 1),
        ("medium", 2, 0),
        ("large", 1, 1),
    ]
    assert (small.boxes_top1, small.masks_thing_top1, small.masks_stuff_top1) == (100.0, 100.0, 0.0)
    assert (medium.boxes_top1, medium.masks_stuff_top1) == (50.0, None)
    assert (large.masks_thing_top1, large.masks_stuff_top1) == (0.0, 100.0)


def test_count__parts_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    scores, labels, areas = rng.random((90, 8)), rng.integers(0, 8, 90), rng.integers(1, 20000, 90)
    whole = count(scores, labels, areas)
    parts = [count(scores[i::3], labels[i::3], areas[i::3]) for i in range(3)]
    np.testing.assert_array_equal(sum(parts[1:], parts[0]).predicted, whole.predicted)
    np.testing.assert_array_equal(sum(parts[1:], parts[0]).top5, whole.top5)
    assert whole.predicted.sum() == 90


def test_count__a_tie_is_called_the_other_class_and_no_token_nothing():
    scores = np.array([[0.5, 0.5, 0.1], [0.2, 0.7, 0.7], [0, 0, 0]])
    predicted = count(scores, np.array([0, 2, 1]), np.full(3, 10)).predicted[0]
    assert np.argwhere(predicted).tolist() == [[0, 1], [1, 3], [2, 1]]


def test_to_dict__keeps_every_figure_and_the_confusion_through_json():
    result = summarize(
        scored([*one_hot(0, 1, 3), np.zeros(8)], [0, 0, 3, 4]), SET, "random:7", random_weights=True
    )
    told = json.loads(json.dumps(result.to_dict()))
    assert told["boxes_top1"] == 50.0 and told["random_weights"] is True and told["weights"] == "random:7"
    assert told["confusion"] == {"cat": {"cat": 1, "boat": 1}, "sea": {"sea": 1}, "sky": {"": 1}}
    assert told["classes"][1]["name"] == "sea" and told["sizes"][1]["things"] == 2
