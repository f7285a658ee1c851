"""Region classification: arithmetic by hand and by brute force, pooling by a model that knows the truth."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.classify import (
    ClassifyConfig,
    RegionScores,
    classify,
    region_scores,
    scores_to_metrics,
    token_masks,
    true_class_ranks,
)
from evaluation.panoptic import PanopticDataset
from models.categories import Categories
from shards.errors import DenseCLIError

NAMES = ("cat", "boat", "kite", "sea", "sky", "sand", "road", "hill")
THING = np.array([True, True, True, False, False, False, False, False])
SET = Categories(name="eight", names=NAMES, thing=THING)
PATCH, SIDE, STEP = 8, 64, 25
CONFIG = ClassifyConfig(canvas=SIDE, batch_size=2)


def scored(mask_scores, labels, box_scores=None, **counts):
    mask_scores, labels = np.asarray(mask_scores, np.float32), np.asarray(labels)
    things = THING[labels]
    boxes = mask_scores[things] if box_scores is None else np.asarray(box_scores, np.float32)
    counts = {"skipped": 0, "vanished": 0} | counts
    return RegionScores(
        boxes=boxes, box_labels=labels[things], masks=mask_scores, mask_labels=labels, **counts
    )


def one_hot(*classes):
    return np.eye(len(NAMES), dtype=np.float32)[list(classes)]


def test_ranks__ties_count_against():
    scores = np.array([[0.1, 0.9, 0.5], [0.5, 0.5, 0.1], [0.0, 0.0, 0.0]], np.float32)
    assert true_class_ranks(scores, np.array([2, 0, 0])).tolist() == [1, 1, 2]


def test_metrics__by_hand():
    # cat: 2 of 3 hit; boat: 0 of 1; sea: 1 of 2, the other called a cat; sky: 0 of 1, called sand.
    labels = [0, 0, 0, 1, 3, 3, 4]
    result = scores_to_metrics(scored(one_hot(0, 0, 1, 2, 3, 0, 5), labels), SET, "a")
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
    result = scores_to_metrics(scored(one_hot(1, 3), [0, 3], box_scores=one_hot(0)), SET, "a")
    assert (result.boxes_top1, result.masks_thing_top1, result.masks_stuff_top1) == (100.0, 0.0, 100.0)


def test_metrics__top5_is_the_true_class_among_five():
    falling = np.linspace(1, 0, len(NAMES), dtype=np.float32)[None]
    assert scores_to_metrics(scored(falling, [4]), SET, "a").masks_stuff_top5 == 100.0
    assert scores_to_metrics(scored(falling, [5]), SET, "a").masks_stuff_top5 == 0.0


def test_metrics__a_vanished_segment_is_a_miss_and_no_thing():
    result = scores_to_metrics(scored(np.zeros((2, len(NAMES))), [0, 3]), SET, "a")
    assert (result.masks_thing_top5, result.masks_stuff_top5, result.stuff_as_thing) == (0.0, 0.0, 0.0)


def test_metrics__what_the_data_lacks_is_none():
    result = scores_to_metrics(scored(one_hot(0), [0]), SET, "a")
    assert result.masks_stuff_top1 is None and result.stuff_as_thing is None and result.boxes_top1 == 100.0


def test_metrics__brute_force():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(NAMES), 200)
    masks, boxes = rng.random((200, len(NAMES))), rng.random((int(THING[labels].sum()), len(NAMES)))
    masks[np.arange(200), labels] += 0.4
    result = scores_to_metrics(scored(masks, labels, box_scores=boxes), SET, "a")

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
    called = [THING[max(range(len(NAMES)), key=lambda i: row[i])] for row in masks[~THING[labels]]]
    assert result.stuff_as_thing == pytest.approx(100 * sum(called) / len(called))


def test_metrics__features_that_are_not_finite_are_refused():
    with pytest.raises(DenseCLIError, match="not finite"):
        scores_to_metrics(scored(one_hot(0) * np.nan, [0]), SET, "a")


@pytest.mark.parametrize(
    ("weights", "random"),
    [("random:0", True), ("weights/random.pt", False), ("run/student.pt from random:3", True)],
)
def test_classification__says_whether_weights_are_random(weights, random):
    result = scores_to_metrics(scored(one_hot(0), [0]), SET, weights)
    assert result.random_weights is random and result.to_dict()["random_weights"] is random


def test_token_masks__whole_tokens_come_back_and_padding_is_empty():
    grid = np.random.default_rng(0).random((3, 5, 8)) > 0.5
    masks = grid.repeat(PATCH, 1).repeat(PATCH, 2)
    tokens = token_masks(masks, 8).numpy()
    np.testing.assert_array_equal(tokens[:, :5], grid)
    assert not tokens[:, 5:].any()


def test_token_masks__no_antialiasing():
    # Two pixels in the corner of a token of 16 px: an antialiased filter would take it in.
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 16:18, 16:18] = True
    assert not token_masks(mask, 4).any()


class Oracle(nn.Module):
    """One-hot tokens of the class that the red channel codes, `shift` tokens to the side."""

    patch_size, embed_dim = PATCH, len(NAMES)

    def __init__(self, shift=0):
        super().__init__()
        self.shift = shift

    def input_side(self, canvas):
        return round(canvas / PATCH) * PATCH

    def prepare(self, canvases):
        return canvases.float()

    def dense(self, images, mode):
        centres = images[:, 0, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]
        classes = (centres / STEP).round().long().clamp(max=len(NAMES) - 1)
        one_hot = torch.nn.functional.one_hot(classes, len(NAMES)).permute(0, 3, 1, 2).float()
        return one_hot.roll(self.shift, dims=3)


def coded(classes, segments):
    """A photo whose red channel codes `classes` (h, w tokens), and its segments."""
    classes = np.asarray(classes).repeat(PATCH, 0).repeat(PATCH, 1)
    photo = np.zeros((*classes.shape, 3), np.uint8)
    photo[..., 0] = classes * STEP
    return photo, [(c, classes == c, False) for c in segments]


@pytest.fixture
def world(write_panoptic):
    """Three photos, wide, tall and square, every class present, every segment at least 2 x 2 tokens."""
    wide = np.full((5, 8), 4)
    wide[3:] = 3
    wide[1:4, 1:4] = 1
    tall = np.full((8, 4), 6)
    tall[4:, :] = 7
    tall[2:6, 1:3] = 0
    square = np.full((8, 8), 5)
    square[2:4, 4:8] = 2
    photos = [coded(wide, [4, 3, 1]), coded(tall, [6, 7, 0]), coded(square, [5, 2])]
    return PanopticDataset(write_panoptic("coco", NAMES, THING, photos), "val", SET)


def figures(result):
    return {
        name: value
        for name, value in dataclasses.asdict(result).items()
        if name.endswith(("top1", "top5", "as_thing"))
    }


def test_classify__an_oracle_scores_100(world):
    result = classify(Oracle(), world, torch.eye(len(NAMES)) * 3, "oracle", CONFIG)
    expected = dict.fromkeys(figures(result), 100.0) | {"stuff_as_thing": 0.0}
    assert figures(result) == expected
    assert (result.things, result.stuffs, result.skipped, result.vanished) == (3, 5, 0, 0)


def test_classify__an_oracle_that_looks_aside_does_not(world):
    result = classify(Oracle(shift=3), world, torch.eye(len(NAMES)), "oracle", CONFIG)
    assert result.boxes_top1 < 50 and result.masks_thing_top1 < 50


def test_classify__text_embeddings_decide_the_class(world):
    swapped = torch.eye(len(NAMES))[[3, 1, 2, 0, 4, 5, 6, 7]]  # cat and sea trade places
    result = classify(Oracle(), world, swapped, "oracle", CONFIG)
    assert result.masks_stuff_top1 == pytest.approx(80.0) and result.stuff_as_thing == pytest.approx(20.0)


def test_classify__batch_size_changes_nothing(world):
    text = torch.nn.functional.normalize(
        torch.randn(len(NAMES), len(NAMES), generator=torch.Generator().manual_seed(0))
    )
    runs = [
        region_scores(Oracle(), world, text, dataclasses.replace(CONFIG, batch_size=size))
        for size in (1, 2, 16)
    ]
    for run in runs[1:]:
        np.testing.assert_allclose(run.masks, runs[0].masks, atol=1e-6)
        np.testing.assert_allclose(run.boxes, runs[0].boxes, atol=1e-6)


def test_classify__box_area_is_bounded_in_photo_pixels(world):
    # Boxes of 24x24, 16x32, 32x16 px (things) and of at least 32x32 (stuff); the canvas is twice as large.
    config = dataclasses.replace(CONFIG, canvas=2 * SIDE, min_side=24)
    result = classify(Oracle(), world, torch.eye(len(NAMES)), "oracle", config)
    assert (result.things, result.stuffs, result.skipped) == (1, 5, 2)


def test_classify__a_photo_without_segments_is_no_trouble(write_panoptic):
    empty, full = coded(np.full((8, 8), 5), []), coded(np.full((8, 8), 5), [5])
    dataset = PanopticDataset(write_panoptic("coco", NAMES, THING, [empty, full, empty]), "val", SET)
    result = classify(
        Oracle(), dataset, torch.eye(len(NAMES)), "oracle", dataclasses.replace(CONFIG, batch_size=1)
    )
    assert result.masks_stuff_top1 == 100.0 and result.boxes_top1 is None


def test_classify__embeddings_of_another_set_are_refused(world):
    with pytest.raises(DenseCLIError, match=r"\(7, 8\).*\(8, 8\)"):
        classify(Oracle(), world, torch.eye(len(NAMES))[:7], "oracle", CONFIG)


def test_classify__leaves_the_model_in_training_mode(world):
    model = Oracle().train()
    classify(model, world, torch.eye(len(NAMES)), "oracle", CONFIG)
    assert model.training
