"""Segmentation: arithmetic by hand and against torchmetrics, windows and prompts by brute force."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.evaluation import segmentation
from densecli.evaluation.benchmarks import Classes
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.segmentation import (
    SegmentationConfig,
    confusion_to_metrics,
    count_pairs,
    offsets,
    predict,
    segment,
    window_scores,
)
from densecli.evaluation.semantic import PanopticLabels, open_labelled
from densecli.models.categories import Categories

NAMES = ("cat", "boat", "sea", "sky", "sand")
THING = np.array([True, True, False, False, False])
SET = Categories(name="five", names=NAMES, thing=THING)
PATCH, STEP = 4, 50
CONFIG = SegmentationConfig(side=32, window=16, stride=8, batch_size=3)
ALONE = Distributed(device=torch.device("cpu"))


class Oracle(nn.Module):
    """One-hot tokens of the class that the red channel codes."""

    patch_size, embed_dim = PATCH, len(NAMES)

    def prepare(self, canvases):
        return canvases.float()

    def dense(self, images, mode):
        centres = images[:, 0, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]
        classes = (centres / STEP).round().long().clamp(max=len(NAMES) - 1)
        return nn.functional.one_hot(classes, len(NAMES)).permute(0, 3, 1, 2).float()


def coded(classes, scale):
    """A photo of `scale` px a cell whose red channel codes `classes` (h, w), and its segments."""
    classes = np.asarray(classes).repeat(scale, 0).repeat(scale, 1)
    photo = np.zeros((*classes.shape, 3), np.uint8)
    photo[..., 0] = classes * STEP
    return photo, [(c, classes == c, False) for c in np.unique(classes)]


@pytest.fixture
def world(write_panoptic):
    """Three photos, wide, tall and square, in large cells."""
    photos = [
        coded([[0, 0, 2, 2, 3], [4, 4, 2, 2, 3]], 32),
        coded([[1], [3]], 64),
        coded([[2, 1], [2, 4]], 48),
    ]
    return PanopticLabels(PanopticDataset(write_panoptic("coco", NAMES, THING, photos), "val", SET))


def test_metrics__by_hand():
    # cat: 3 of 4 found, 1 called sea. sea: 2 of 2 found. boat is never there but called once, by a sky.
    truth = torch.tensor([0, 0, 0, 0, 2, 2, 3, -1])
    given = torch.tensor([0, 0, 0, 2, 2, 2, 1, 4])
    result = confusion_to_metrics(count_pairs(truth, given, 5).view(5, 5).numpy(), NAMES, photos=1)
    assert [(c.name, c.pixels) for c in result.classes] == [("cat", 4), ("boat", 0), ("sea", 2), ("sky", 1)]
    assert [c.iou for c in result.classes] == pytest.approx([75, 0, 200 / 3, 0])
    assert result.miou == pytest.approx((75 + 200 / 3) / 4)
    assert result.pixel_accuracy == pytest.approx(500 / 7)
    assert result.mean_accuracy == pytest.approx((75 + 100 + 0) / 3)


def test_metrics__no_labelled_pixel_is_refused():
    with pytest.raises(DenseCLIError, match="No pixel"):
        confusion_to_metrics(np.zeros((5, 5), np.int64), NAMES, photos=1)


def assert_agrees_with_torchmetrics(truth, given, classes):
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    counts = sum(count_pairs(t, g, classes) for t, g in zip(truth, given, strict=True))
    result = confusion_to_metrics(
        counts.view(classes, classes).numpy(), [str(c) for c in range(classes)], photos=1
    )
    about = {"num_classes": classes, "ignore_index": -1}
    pixels = torch.cat([g.flatten() for g in given]), torch.cat([t.flatten() for t in truth]).long()
    iou = metrics.multiclass_jaccard_index(*pixels, **about)
    accuracy = metrics.multiclass_accuracy(*pixels, average="micro", **about)
    assert result.miou == pytest.approx(100 * iou.item(), rel=1e-5)
    assert result.pixel_accuracy == pytest.approx(100 * accuracy.item(), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 21, 171])
def test_metrics__agree_with_torchmetrics(classes):
    generator = torch.Generator().manual_seed(classes)
    # Half the classes only, so that some are in neither; a tenth of the pixels is ignored.
    truth = torch.randint(0, -(-classes // 2), (4, 60, 50), generator=generator)
    given = torch.where(torch.rand(truth.shape, generator=generator) < 0.4, truth, truth.roll(1))
    truth[torch.rand(truth.shape, generator=generator) < 0.1] = -1
    assert_agrees_with_torchmetrics(truth, given, classes)


def test_metrics__agree_with_torchmetrics_on_real_segments(shared_data):
    dataset = open_labelled("panoptic", str(shared_data / "coco128"), "val2017", limit=6)
    truth = [torch.from_numpy(dataset[i].labels) for i in range(len(dataset))]
    # The same segments moved aside, without gaps.
    given = [labels.roll((15, 40), (0, 1)).clamp(min=0).long() for labels in truth]
    assert_agrees_with_torchmetrics(truth, given, len(dataset.classes.names))


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(448, 336, 112), (597, 336, 112), (96, 96, 112), (50, 7, 3)]
)
def test_offsets__windows_cover_all_and_stay_inside(length, window, stride):
    found = offsets(length, window, stride)
    covered = {at for start in found for at in range(start, start + window)}
    assert covered == set(range(length)) and len(set(found)) == len(found)


def test_segment__an_oracle_is_right_away_from_borders(world):
    result = segment(Oracle(), world, torch.eye(len(NAMES)), CONFIG, ALONE)
    assert result.photos == 3 and [c.name for c in result.classes] == list(NAMES)
    # Half a token either side of a border is a matter of interpolation.
    assert result.pixel_accuracy > 90 and result.miou > 85


def test_segment__prompts_decide_the_class(world):
    right = segment(Oracle(), world, torch.eye(len(NAMES)), CONFIG, ALONE)
    swapped = segment(Oracle(), world, torch.eye(len(NAMES))[[2, 1, 0, 3, 4]], CONFIG, ALONE)  # cat and sea
    assert swapped.miou < right.miou - 30
    assert [c.iou for c in swapped.classes][3:] == pytest.approx([c.iou for c in right.classes][3:], abs=5)


def test_segment__batch_size_changes_nothing(world):
    text = nn.functional.normalize(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    results = [
        segment(Oracle(), world, text, dataclasses.replace(CONFIG, batch_size=size), ALONE)
        for size in (1, 4, 100)
    ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(("side", "window", "stride"), [(32, 48, 8), (32, 16, 20)])
def test_segment__windows_that_do_not_tile_are_refused(world, side, window, stride):
    with pytest.raises(DenseCLIError, match="do not tile"):
        config = SegmentationConfig(side=side, window=window, stride=stride)
        segment(Oracle(), world, torch.eye(5), config, ALONE)


def test_segment__features_that_are_not_finite_are_refused(world):
    class Broken(Oracle):
        def dense(self, images, mode):
            return super().dense(images, mode) * torch.nan

    with pytest.raises(DenseCLIError, match="not finite"):
        segment(Broken(), world, torch.eye(5), CONFIG, ALONE)


def test_window_scores__are_the_mean_of_the_windows_that_see_a_pixel():
    class Counter(nn.Module):
        """Window n of the photo says n everywhere."""

        seen = 0

        def prepare(self, views):
            return views

        def dense(self, views, mode):
            angle = torch.arange(self.seen, self.seen + len(views)) / 100
            self.seen += len(views)
            return torch.stack([angle.cos(), angle.sin()], 1)[:, :, None, None].expand(-1, -1, 2, 2)

    config = SegmentationConfig(side=8, window=8, stride=4, batch_size=2)
    scores = window_scores(Counter(), Image.new("RGB", (28, 14)), torch.eye(2)[1:], config)
    cosines = (torch.arange(3) / 100).sin()  # windows at 0, 4 and 8 of 16 columns
    expected = torch.stack(
        [cosines[0], cosines[:2].mean(), cosines[1:].mean(), cosines[2]]
    ).repeat_interleave(4)
    torch.testing.assert_close(scores[0], expected.expand(8, -1))


def brute_force(scores, classes, size, config):
    """SCLIP's own order of steps, all prompts at once."""
    p = (nn.functional.interpolate(scores[None], size=size, mode="bilinear")[0] * config.scale).softmax(0)
    ends = np.cumsum([len(prompts) for prompts in classes.prompts])
    p = torch.stack(
        [p[end - len(prompts) : end].amax(0) for prompts, end in zip(classes.prompts, ends, strict=True)]
    )
    best, predicted = p.max(0)
    if classes.background is not None:
        predicted[best < config.threshold] = classes.background
    return predicted


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("at_once", [1, 4, 32])
def test_predict__brute_force(monkeypatch, at_once, background):
    monkeypatch.setattr(segmentation, "QUERIES_AT_ONCE", at_once)
    classes = Classes.of(NAMES, {"boat": ("boat", "ship"), "sand": ("sand", "beach", "shore")})
    classes = classes.on_background("wall", "floor") if background else classes
    config = SegmentationConfig(threshold=0.25, scale=10)
    prompts = sum(map(len, classes.prompts))
    scores = torch.rand(prompts, 6, 7, generator=torch.Generator().manual_seed(1))
    ours = predict(scores, classes, (20, 15), config)
    theirs = brute_force(scores, classes, (20, 15), config)
    assert torch.equal(ours, theirs)
    assert not background or 0.1 < (ours == 0).float().mean() < 0.9
