"""Region classification: pooling by a model that knows the truth, in one process and in two."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.evaluation.classify import ClassifyConfig, classify, count_regions, segment_crops, token_masks
from densecli.evaluation.panoptic import PanopticDataset
from densecli.models.categories import Categories

NAMES = ("cat", "boat", "kite", "sea", "sky", "sand", "road", "hill")
THING = np.array([True, True, True, False, False, False, False, False])
SET = Categories(name="eight", names=NAMES, thing=THING)
PATCH, SIDE, STEP = 8, 64, 25
CONFIG = ClassifyConfig(canvas=SIDE, batch_size=2)
ALONE = Distributed(device=torch.device("cpu"))


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

    @property
    def arch(self):
        return SimpleNamespace(native_side=PATCH)

    def prepare(self, canvases):
        return canvases.float()

    def encode_image(self, images):
        """What the middle of the image is."""
        return self.dense(images, "value").mean((2, 3))

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
    result = classify(Oracle(), world, torch.eye(len(NAMES)) * 3, "oracle", CONFIG, ALONE)
    expected = dict.fromkeys(figures(result), 100.0) | {"stuff_as_thing": 0.0}
    assert figures(result) == expected
    assert (result.things, result.stuffs, result.skipped, result.vanished) == (3, 5, 0, 0)


def test_classify__an_oracle_that_looks_aside_does_not(world):
    result = classify(Oracle(shift=3), world, torch.eye(len(NAMES)), "oracle", CONFIG, ALONE)
    assert result.boxes_top1 < 50 and result.masks_thing_top1 < 50


def test_classify__text_embeddings_decide_the_class(world):
    swapped = torch.eye(len(NAMES))[[3, 1, 2, 0, 4, 5, 6, 7]]  # cat and sea trade places
    result = classify(Oracle(), world, swapped, "oracle", CONFIG, ALONE)
    assert result.masks_stuff_top1 == pytest.approx(80.0) and result.stuff_as_thing == pytest.approx(20.0)


@pytest.mark.parametrize("crops", [False, True])
def test_classify__batches_and_processes_change_nothing(world, crops):
    text = torch.randn(len(NAMES), len(NAMES), generator=torch.Generator().manual_seed(0))

    def counts(size, rank, world_size):
        config = dataclasses.replace(CONFIG, batch_size=size, crops=crops)
        processes = Distributed(device=torch.device("cpu"), rank=rank, world_size=world_size)
        return count_regions(Oracle(), world, text, config, processes)

    one = counts(2, 0, 1)
    for parts in (
        [counts(16, 0, 1)],
        [counts(1, r, 2) for r in (0, 1)],
        [counts(2, r, 3) for r in (0, 1, 2)],
    ):
        whole = sum(parts[1:], parts[0])
        for kind in ("boxes", "masks"):
            np.testing.assert_array_equal(getattr(whole, kind).predicted, getattr(one, kind).predicted)
            np.testing.assert_array_equal(getattr(whole, kind).top5, getattr(one, kind).top5)
        assert whole.skipped == one.skipped


def test_classify__box_area_is_bounded_in_photo_pixels(world):
    # Boxes of 24x24, 16x32, 32x16 px (things) and of at least 32x32 (stuff); the canvas is twice as large.
    config = dataclasses.replace(CONFIG, canvas=2 * SIDE, min_side=24)
    result = classify(Oracle(), world, torch.eye(len(NAMES)), "oracle", config, ALONE)
    assert (result.things, result.stuffs, result.skipped) == (1, 5, 2)


def test_classify__a_photo_without_segments_is_no_trouble(write_panoptic):
    empty, full = coded(np.full((8, 8), 5), []), coded(np.full((8, 8), 5), [5])
    dataset = PanopticDataset(write_panoptic("coco", NAMES, THING, [empty, full, empty]), "val", SET)
    result = classify(
        Oracle(), dataset, torch.eye(len(NAMES)), "oracle", dataclasses.replace(CONFIG, batch_size=1), ALONE
    )
    assert result.masks_stuff_top1 == 100.0 and result.boxes_top1 is None


def test_classify__embeddings_of_another_set_are_refused(world):
    with pytest.raises(DenseCLIError, match=r"\(7, 8\).*\(8, 8\)"):
        classify(Oracle(), world, torch.eye(len(NAMES))[:7], "oracle", CONFIG, ALONE)


def test_classify__leaves_the_model_in_training_mode(world):
    model = Oracle().train()
    classify(model, world, torch.eye(len(NAMES)), "oracle", CONFIG, ALONE)
    assert model.training


def test_segment_crops__things_with_context_and_stuff_without():
    photo = np.zeros((40, 80, 3), np.uint8)
    photo[10:20, 20:40] = 200
    box = np.array([[20, 10, 40, 20]] * 2, np.float32)
    thing, stuff = segment_crops(photo, box, [True, False], 30)
    # 20 x 10 pixels fill 30 x 15 of the crop; with 1.5 times their size around them, 20 x 10.
    assert [round((crop > 100).all(2).sum() ** 0.5) for crop in (stuff, thing)] == [
        round((30 * 15) ** 0.5),
        round((20 * 10) ** 0.5),
    ]


def test_classify__crops_see_no_dense_map(world):
    model = Oracle(shift=3)
    model.encode_image = lambda images: Oracle().dense(images, "value").mean((2, 3))
    config = dataclasses.replace(CONFIG, crops=True)
    result = classify(model, world, torch.eye(len(NAMES)), "oracle", config, ALONE)
    assert result.masks_thing_top1 == result.boxes_top1 == 100.0
    assert (result.things, result.stuffs, result.vanished) == (3, 5, 0)


def test_classify__ade_as_coco(world, write_panoptic):
    photos = [
        (np.asarray(photo.photo), [(s.category, s.mask, False) for s in photo.segments])
        for photo in (world[i] for i in range(len(world)))
    ]
    ade = PanopticDataset(write_panoptic("ade", NAMES, THING, photos), "val", SET)
    text = torch.randn(len(NAMES), len(NAMES), generator=torch.Generator().manual_seed(0))
    of_coco, of_ade = (classify(Oracle(), data, text, "oracle", CONFIG, ALONE) for data in (world, ade))
    assert figures(of_ade) == figures(of_coco)
